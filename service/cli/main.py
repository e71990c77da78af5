"""The `flowkeep` command: its global options, and the modules that hold its commands."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from service.cli import memory, streams
from service.cli.connection import DEFAULT_TARGET, Connection, Format
from service.cli.refusal import refuse_call
from service.cli.settings import refuse_unknown

# Each module has `register(app)`, which adds its commands. They stand in the help in this order. To keep the help
# quick, a module imports at its top only what declares its commands, and within them what they work with.
_MODULES = (
    "service.cli.workflows",
    "service.cli.functions",
    "service.cli.trying",
    "service.cli.executions",
    "service.cli.control",
    "service.cli.fork",
    "service.cli.signalling",
    "service.cli.bulk",
    "service.cli.notifications",
    "service.cli.tasks",
    "service.cli.workers",
    "service.cli.serving",
    "service.cli.health",
    "service.cli.local",
    "service.cli.demo.command",
)


_EPILOG = (
    "Times are shown in UTC, and read as local unless they say otherwise. Ids of executions may be shortened to their "
    "first 8 or more digits. Exit codes: 0 done, 1 the execution did not complete, 2 wrong argument, 3 not found, "
    "4 no server, 5 refused, 6 output not written, 130 interrupted, 141 nobody reads the output."
)


def build() -> typer.Typer:
    """Return the command with everything below it."""
    app = typer.Typer(
        name="flowkeep",
        no_args_is_help=True,
        # A traceback with local variables would show tokens and inputs.
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog=_EPILOG,
    )
    app.callback()(_root)
    for module in _MODULES:
        import_module(module).register(app)
    return app


# The embedded Postgres is started again from a process that serves: gRPC's handlers of forks would now and then break
# the child. They are asked for when gRPC is loaded, which only commands do.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# Its core writes of each failed connection on standard error, in a form of its own; commands and the log say it better.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def main() -> None:
    """Run the command and end the process with its exit code.

    0: done. 1: the execution did not complete. 2: an argument or definition is wrong. 3: not found. 4: the server
    cannot be reached. 5: refused for another reason. 6: the output could not be written. 130: interrupted. 141: nobody
    reads the output any more.
    """
    memory.collect_rarely()
    streams.guard()
    try:
        sys.exit(_code())
    finally:
        streams.settle()


def _code() -> int:
    """Run the command and return its exit code, or raise SystemExit with it."""
    try:
        # Else typer draws a box around what is wrong with a command line, which breaks lines and is no JSON.
        return build()(standalone_mode=False) or 0
    except TyperException as error:
        return refuse_call(error)
    except typer.Abort:
        print("Nothing was done.", file=sys.stderr)
        return 1


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"flowkeep {version('flowkeep')}")
        raise typer.Exit


def _root(
    context: typer.Context,
    target: Annotated[str, typer.Option(envvar="FLOWKEEP_TARGET", help="Address of the server.")] = DEFAULT_TARGET,
    token: Annotated[
        str, typer.Option(envvar="FLOWKEEP_TOKEN", help="Bearer token that says who you are.", show_default=False)
    ] = "",
    tls: Annotated[bool, typer.Option("--tls", envvar="FLOWKEEP_TLS", help="Encrypt the connection.")] = False,
    ca: Annotated[
        Path | None,
        typer.Option(envvar="FLOWKEEP_CA_FILE", help="CA (PEM) of the server's certificate, with TLS."),
    ] = None,
    cert: Annotated[
        Path | None, typer.Option(envvar="FLOWKEEP_CERT_FILE", help="Your own certificate (PEM), with --key.")
    ] = None,
    key: Annotated[Path | None, typer.Option(envvar="FLOWKEEP_KEY_FILE", help="Private key (PEM) of --cert.")] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="Text for people, or JSON.")] = Format.TEXT,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Durable workflows: define them, execute them, watch them."""
    refuse_unknown(os.environ, [str(each.envvar) for each in context.command.params if each.envvar])
    context.obj = Connection(target, token, tls, output, ca, cert, key)


if __name__ == "__main__":
    main()
