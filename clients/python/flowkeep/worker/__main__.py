"""Runs a worker from the command line: `python -m flowkeep.worker my.handlers --server localhost:50051`."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import logging
import os
import sys
from pathlib import Path
from types import ModuleType

from flowkeep.channel import Token
from flowkeep.errors import FlowkeepError
from flowkeep.worker.worker import Worker


def main() -> int:
    """Serve the handlers of modules until a signal comes; returns the code that the process ends with."""
    options = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        modules = [loaded(place) for place in options.modules]
        asyncio.run(_run(options, modules))
    except (FlowkeepError, ImportError, OSError, TypeError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


async def _run(options: argparse.Namespace, modules: list[ModuleType]) -> None:
    worker = Worker(
        options.server,
        handlers=modules,
        token=token_of(options.token_file),
        tls=options.tls,
        capacity=options.capacity,
        name=options.name,
        version=options.version,
        labels=dict(options.label),
        grace=options.grace,
    )
    await worker.run()


def token_of(file: str) -> Token:
    """Return the token of the environment, or what reads it from a file, in which another process renews it."""
    return Path(file).read_text if file else os.environ.get("FLOWKEEP_TOKEN")


def loaded(place: str) -> ModuleType:
    """Return a module that is named `package.module`, or as a path that ends in `.py`. Raises ImportError."""
    if not place.endswith(".py"):
        sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(place)
    path = Path(place).resolve()
    if not path.is_file():
        raise ImportError(f"there is no file {place}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{place} is no file of Python")
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form KEY=VALUE")
    return key, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m flowkeep.worker", description=main.__doc__)
    parser.add_argument("modules", nargs="+", help="modules with handlers, named my.handlers or as path/of/file.py")
    parser.add_argument("--server", default=os.environ.get("FLOWKEEP_TARGET", "localhost:50051"), help="host:port")
    parser.add_argument(
        "--token-file",
        default=os.environ.get("FLOWKEEP_TOKEN_FILE", ""),
        help="file with the token, read at each connection; else FLOWKEEP_TOKEN is the token",
    )
    parser.add_argument("--tls", action="store_true", help="encrypt the connection")
    parser.add_argument("--capacity", type=int, default=10, help="attempts at a time (10)")
    parser.add_argument("--name", default="", help="name of the worker, for people")
    parser.add_argument("--version", default="", help="version of its code, by which steps choose workers")
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        type=_label,
        metavar="KEY=VALUE",
        help="label by which steps choose workers, such as region=eu; may be given several times",
    )
    parser.add_argument("--grace", type=float, default=30.0, help="seconds that attempts may take at the end (30)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
