"""`flowkeep serve --processes N`: keeps several replicas on one address and one database.

Each is a process of its own, started afresh and never forked (FAULTS P22). A socket pair joins it to this one: over it
comes the word that it serves, and at its end each knows that the other has gone, however that happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from uuid import uuid4

import structlog

from service.config import Config, ConfigError
from service.databases import Database, keep_alive, open_repository
from service.engine.tasks import TaskRegistry

log = structlog.get_logger(__name__)

SERVING = b"serving\n"
"""What a process says when it serves; one that says anything else says why it does not."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
_STEADY = 10.0
"""Seconds that a process must have lived for its end to be a new trouble, not more of the last one."""
_STOP_PATIENCE = 15.0
"""Seconds that a process may take to stop, beyond the graces that it gives."""
_CONNECTIONS, _BESIDE_THE_POOL = 90, 3
"""Of the embedded Postgres, for all processes; and of each process."""


class ProcessError(Exception):
    """A process ended before it served; the text is what it said."""


async def keep_processes(
    config: Config, place: Database, targets: Mapping[str, str], tell: Callable[[], None], stopped: asyncio.Event
) -> None:
    """Serve with as many processes as the settings say until `stopped` is set, and return when all have ended.

    `targets` holds the settings of the addresses that are held for them. Calls `tell` once, when all serve.

    Raises ConfigError when one cannot start at the beginning, and what `open_repository` raises.
    """
    async with open_repository(config, place.dsn) as repository:
        if config.is_embedded:
            # Nobody else can be alive on it, and the processes of before died with the one that kept them.
            await repository.retire_others(uuid4())
    environment = _environment(config, place, targets)
    patience = config.stop_grace + config.cancel_grace + _STOP_PATIENCE
    processes = [_Process(number, environment) for number in range(1, config.processes + 1)]
    tasks = TaskRegistry()
    async with keep_alive(place):
        try:
            if await _started(processes, stopped):
                for process in processes:
                    tasks.spawn(process.keep(), f"process {process.number}")
                tell()
                await stopped.wait()
        finally:
            await tasks.cancel_all()
            await asyncio.gather(*(process.stop(patience) for process in processes))


async def _started(processes: Sequence[_Process], stopped: asyncio.Event) -> bool:
    """Return when all serve, False when they are to stop before that. Raises ConfigError when one cannot serve."""
    starting = asyncio.ensure_future(_start(processes))
    stopping = asyncio.ensure_future(stopped.wait())
    try:
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
        return starting.done()
    except ProcessError as error:
        raise ConfigError(str(error)) from None
    finally:
        stopping.cancel()
        starting.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)


async def _start(processes: Sequence[_Process]) -> None:
    await asyncio.gather(*(process.start() for process in processes))


def _environment(config: Config, place: Database, targets: Mapping[str, str]) -> Mapping[str, str]:
    """Return the environment of a process: what the command line said stands in it too."""
    pool = config.database_pool
    if config.is_embedded:
        pool = min(pool, _CONNECTIONS // config.processes - _BESIDE_THE_POOL)
    return {
        **os.environ,
        **targets,
        "FLOWKEEP_PROCESSES": str(config.processes),
        "FLOWKEEP_DATABASE_URL": place.dsn,
        "FLOWKEEP_DATABASE_POOL": str(max(2, pool)),
        "FLOWKEEP_MIGRATE": "false",
        "FLOWKEEP_HANDLERS": json.dumps(config.handlers),
    }


class _Process:
    """One replica, started again whenever it ends by itself."""

    def __init__(self, number: int, environment: Mapping[str, str]) -> None:
        self.number = number
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._line: asyncio.StreamWriter | None = None

    async def start(self) -> None:
        """Return when it serves. Raises ProcessError when it ends before."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                # A session of its own: Ctrl-C is for the one that keeps it.
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "service.cli.replica", str(theirs.fileno())),
                    stdin=asyncio.subprocess.DEVNULL,
                    env=self._environment,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            reader, self._line = await asyncio.open_connection(sock=ours)
        except BaseException:
            ours.close()
            raise
        said = await reader.readline()
        if said != SERVING:
            said += await reader.read()
            code = await self._process.wait()
            text = said.decode(errors="replace").strip()
            raise ProcessError(text or f"a process ended with code {code} before it served; its log says why")

    async def keep(self) -> None:
        """Start it again whenever it ends."""
        pause = _FIRST_PAUSE
        while True:
            assert self._process is not None  # noqa: S101 - started before it is kept
            began = time.monotonic()
            code = await self._process.wait()
            if time.monotonic() - began >= _STEADY:
                pause = _FIRST_PAUSE
            log.warning("process ended; starting it again", process=self.number, child=self._process.pid, code=code)
            while True:
                self._let_go()
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                try:
                    await self.start()
                except (ProcessError, OSError) as error:
                    log.error("process does not start", process=self.number, error=str(error))
                else:
                    break
            log.info("process serves again", process=self.number, child=self._process.pid)

    async def stop(self, patience: float) -> None:
        """Let it stop in order, and end it when that takes longer than `patience` seconds."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                async with asyncio.timeout(patience):
                    await self._process.wait()
            except TimeoutError:
                log.error("process does not stop", process=self.number, child=self._process.pid)
                self._process.kill()
                await self._process.wait()
        self._let_go()

    def _let_go(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()
