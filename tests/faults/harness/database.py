"""A Postgres that may be stopped, crashed and started again while everything around it goes on."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import psutil

from persistence.embedded import EmbeddedPostgres
from persistence.postgres.migrate import migrate

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

SETTINGS = {"max_connections": "200", "shared_buffers": "64MB", "max_wal_size": "256MB", "log_checkpoints": "off"}
ADMIN = "chaos"
"""What the harness's own sessions call themselves, so that no fault hits them on purpose."""

_LIBC, _PR_SET_PDEATHSIG = ctypes.CDLL(None), 1
_AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_READY_SECONDS = 60.0


class Postgres:
    """One server over a folder, reached by its unix socket; a test's proxies give it addresses that stay.

    `environment` is what its processes see beside the usual, `migrate` makes the schema of a data source name.
    """

    def __init__(
        self,
        folder: Path,
        *,
        environment: Mapping[str, str] = {},
        migrate: Callable[[str], Awaitable[None]] = migrate,
    ) -> None:
        self._embedded = EmbeddedPostgres(folder / "pg", settings=SETTINGS)
        self._environment = environment
        self._migrate = migrate
        self._command: Sequence[str] = ()
        self._account = (0, 0)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def dsn(self) -> str:
        """Address of the database, past all proxies, for a superuser."""
        return self._embedded.dsn()

    @property
    def socket(self) -> Path:
        """The unix socket, for proxies."""
        folder = next(part for part in self._command if part.startswith("--unix_socket_directories="))
        return Path(folder.partition("=")[2]) / ".s.PGSQL.5432"

    @property
    def log(self) -> str:
        """What Postgres said, over all its lives."""
        return self._embedded.log_path.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Id of the postmaster."""
        assert self._process is not None, "Postgres does not run"
        return self._process.pid

    @property
    def has_gone(self) -> bool:
        """Whether it ended without being told to, as it does on a full disk."""
        return self._process is None or self._process.returncode is not None

    async def create(self) -> None:
        """Make the data and the schema. Call it in the main thread, once; `start` comes after it."""
        with self._embedded as embedded:
            # How the supervisor runs it, so that the harness can do the same without its supervision.
            assert embedded.pid is not None
            running = psutil.Process(embedded.pid)
            self._command, self._account = running.cmdline(), (running.uids().real, running.gids().real)
            await self._migrate(embedded.dsn())

    async def start(self) -> None:
        """Return when it takes connections."""
        async with asyncio.timeout(_READY_SECONDS):
            while True:
                process = self._process = await self._launch()
                ready, ended = asyncio.create_task(self.ready()), asyncio.create_task(process.wait())
                await asyncio.wait([ready, ended], return_when=asyncio.FIRST_COMPLETED)
                is_up = ready.done()
                for task in (ready, ended):
                    task.cancel()
                await asyncio.gather(ready, ended, return_exceptions=True)
                if is_up:
                    return
                # Sessions of the one before it may still be on their way out, and hold its memory.
                await asyncio.sleep(0.05)

    async def _launch(self) -> asyncio.subprocess.Process:
        self.socket.parent.mkdir(exist_ok=True, mode=0o700)
        os.chown(self.socket.parent, *self._account)
        is_root = os.geteuid() == 0
        with self._embedded.log_path.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", **self._environment},
                start_new_session=True,
                preexec_fn=functools.partial(end_with, os.getpid(), signal.SIGQUIT),
                user=self._account[0] if is_root else None,
                group=self._account[1] if is_root else None,
                extra_groups=[] if is_root else None,
            )

    async def ready(self) -> None:
        """Return when it takes connections: after a start, or when it has recovered."""
        async with asyncio.timeout(_READY_SECONDS):
            while True:
                with suppress(*_AWAY):
                    await (await self.connect()).close()
                    return
                await asyncio.sleep(0.02)

    async def stop(self, *, immediate: bool = False) -> None:
        """Return when it is gone; `immediate` is a crash: nothing is finished, nobody is told goodbye in order."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
            await process.wait()

    async def connect(self) -> Connection:
        """Return a session of the harness's own. Raises what the driver raises."""
        return await asyncpg.connect(self.dsn, timeout=5.0, server_settings={"application_name": ADMIN})

    async def query(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """Run one statement in a session of its own, until Postgres answers."""
        async with asyncio.timeout(_READY_SECONDS):
            while True:
                with suppress(*_AWAY):
                    connection = await self.connect()
                    try:
                        return await connection.fetch(statement, *arguments)
                    finally:
                        connection.terminate()
                await asyncio.sleep(0.05)

    async def backends(self) -> list[int]:
        """Return the process ids of the sessions that are not the harness's."""
        found = await self.query(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> $1", ADMIN
        )
        return [row["pid"] for row in found]


def end_with(parent: int, order: signal.Signals) -> None:
    """Have Linux end this process when its parent dies; run it in the child."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, order)
    if os.getppid() != parent:
        os._exit(1)
