"""`flowkeep` as processes of their own: the server, which a test may kill, and commands."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

import psutil

from persistence.embedded import EmbeddedPostgres
from tests.e2e.forks import Fork, Forks, Stream
from tests.folders import ROOT
from tests.patience import PATIENCE
from tests.processes import outliving

FLOWKEEP = (str(Path(sys.executable).with_name("flowkeep")),)
TOOLS = str(ROOT / ".tools" / "bin")
"""Where `make test` puts grpcurl."""

LOADED = 2 * PATIENCE
"""Seconds after which a program has not begun, or ended: to load it, in each of its processes, is much work."""
FOUND = "found without being told"
"""What a server logs when only a look has found what something should have told of."""
BUSY = "the event loop was held up"
"""What one logs that comes late to everything: there a look may be quicker than what tells."""

Process = asyncio.subprocess.Process | Fork

_SERVES = re.compile(r"serves on (?P<target>\S+);")


def environment(settings: Mapping[str, str] = {}) -> dict[str, str]:
    """Return an environment in which nothing but `settings` speaks to Flowkeep or its gRPC."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FLOWKEEP_", "GRPC_"))}
    path = [str(Path(FLOWKEEP[0]).parent), TOOLS, inherited.get("PATH", os.defpath)]
    return {**inherited, "PATH": os.pathsep.join(path), **settings}


@cache
def _forks() -> Forks:
    return Forks()


async def begin(
    command: Sequence[str], settings: Mapping[str, str], stdin: int, stdout: int, stderr: Stream
) -> Process:
    """Begin a program: `flowkeep` as a fork of what has loaded it, unless settings are for Python or the loader."""
    if command[0] == FLOWKEEP[0] and not any(name.startswith(("PYTHON", "LD_", "LC_", "LANG")) for name in settings):
        return await _forks().begin(command, environment(settings), stdin, stdout, stderr)
    return await asyncio.create_subprocess_exec(
        *command, stdin=stdin, stdout=stdout, stderr=stderr, env=environment(settings)
    )


async def copy_data(prepared: Path, folder: Path) -> None:
    """Copy a data folder, with its owner: made by root it belongs to the account of Postgres."""
    copied = await run_command("cp", "-a", str(prepared), str(folder))
    assert copied.code == 0, copied


class ServerProcess:
    """`flowkeep serve` with a data folder of its own; it serves on the same address after every restart."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        listen: str = "",
        settings: Mapping[str, str] = {},
        command: Sequence[str] = FLOWKEEP,
    ) -> None:
        self.data_dir = folder / "data"
        self.target = listen or f"unix:{folder / 'flowkeep.sock'}"
        self._log = folder / "server.log"
        self._command = (*command, "serve", "--data-dir", str(self.data_dir), *arguments)
        self._settings = settings
        self.is_healthy = "FLOWKEEP_FAILPOINTS" not in settings and "--processes" not in arguments
        """Whether nothing was done to it for which looks have to find what is left, and it need hear of no others."""
        self._process: Process | None = None
        self._family: list[psutil.Process] = []

    @property
    def dsn(self) -> str:
        """Address of the server's database."""
        return EmbeddedPostgres(self.data_dir).dsn()

    @property
    def pid(self) -> int:
        """Id of the server's process."""
        return self._running.pid

    @property
    def log(self) -> str:
        """What the server wrote on standard error, over all its lives."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def complaints(self) -> list[str]:
        """Lines of the log that a healthy server does not write."""
        log = self.log
        finds_none = self.is_healthy and BUSY not in log
        return [line for line in log.splitlines() if _is_complaint(line) or (finds_none and _is_find(line))]

    async def start(self) -> None:
        """Return when the server says that it serves; `target` is then its address."""
        with self._log.open("ab") as log:
            command = (*self._command, "--listen", self.target)
            self._process = await begin(command, self._settings, DEVNULL, PIPE, log)
        said = await self._line()
        found = _SERVES.search(said)
        if found is None:
            raise AssertionError(f"the server does not serve, it said {said!r}\n{self.log[-4000:]}")
        self.target = found["target"]
        self._family = psutil.Process(self.pid).children(recursive=True)

    async def kill9(self, *, with_postgres: bool = False) -> None:
        """Kill the server, and with it its Postgres if asked for, as a power cut would; return when it is gone."""
        if with_postgres:
            psutil.Process(self.pid).suspend()  # or it would start Postgres again
            for process in psutil.Process(self.pid).children(recursive=True):
                if process.is_running():
                    process.kill()
        self.is_healthy = False
        self._running.kill()
        await self._gone()

    async def terminate(self) -> tuple[int, str]:
        """Ask the server to stop; return its exit code, and what it said, when it is gone."""
        self._running.terminate()
        return await self._gone()

    async def death(self) -> None:
        """Return when the server has gone by itself."""
        self.is_healthy = False
        await self._running.wait()
        await self._gone()

    async def restart(self, settings: Mapping[str, str] | None = None) -> None:
        """Start again what was killed or stopped, with other settings if some are given."""
        if settings is not None:
            self._settings = settings
        await self.start()

    async def close(self) -> None:
        """End whatever still runs of it."""
        if self._process is not None:
            self._running.kill()
            await self._gone()
        # The server's death is the order to Postgres to shut down.
        alive = await asyncio.to_thread(outliving, self._family, PATIENCE)
        for process in alive:
            process.kill()
        assert not alive, f"Postgres outlived its server: {alive}"

    @property
    def _running(self) -> Process:
        assert self._process is not None, "the server does not run"
        return self._process

    async def _line(self) -> str:
        assert self._running.stdout is not None
        async with asyncio.timeout(LOADED):
            return (await self._running.stdout.readline()).decode()

    async def _gone(self) -> tuple[int, str]:
        process, self._process = self._running, None
        async with asyncio.timeout(PATIENCE):
            said, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, said.decode()


@asynccontextmanager
async def running(server: ServerProcess, prepared: Path) -> AsyncIterator[ServerProcess]:
    """Run a server on a copy of the data, inside; in the end it must have had nothing to complain about."""
    await copy_data(prepared, server.data_dir)
    await server.start()
    try:
        yield server
    finally:
        await server.close()
        print(server.log[-4000:])
    assert not server.complaints


def _is_find(line: str) -> bool:
    """Whether a look found what nothing told of; timers that are due before the next question for them are no such."""
    return FOUND in line and '"timers"' not in line


def _is_complaint(line: str) -> bool:
    if line.startswith("Traceback") or "was never retrieved" in line:
        return True
    try:
        return json.loads(line)["level"] in ("error", "critical")
    except (ValueError, KeyError, TypeError):
        return False


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, read as JSON."""
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        """What it printed, each line read as JSON."""
        return [json.loads(line) for line in self.out.splitlines()]


async def run_command(
    *command: str, settings: Mapping[str, str] = {}, given: str = "", patience: float = LOADED
) -> Outcome:
    """Run a program to its end; `given` is its standard input. It is interrupted when it takes too long."""
    process = await begin(command, settings, PIPE, PIPE, PIPE)
    try:
        async with asyncio.timeout(patience):
            out, err = await process.communicate(given.encode())
    except TimeoutError:
        process.kill()
        out, err = await process.communicate()
        raise AssertionError(f"{command} did not end:\n{out.decode()}\n{err.decode()}") from None
    assert process.returncode is not None
    return Outcome(process.returncode, out.decode(), err.decode())


async def flowkeep(*arguments: str, target: str = "", settings: Mapping[str, str] = {}, given: str = "") -> Outcome:
    """Run `flowkeep` with these arguments against the server at `target`."""
    named = {"FLOWKEEP_TARGET": target} if target else {}
    return await run_command(*FLOWKEEP, *arguments, settings={**named, **settings}, given=given)
