"""A database and connections that outlive tests, each of which finds it empty.

To make a database, to open the connections of a store, and to plan on each of them what it is asked, is most of the
work of a short test. Only connections are kept: whatever else a store knows is made anew for each test.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg

from persistence.embedded import EmbeddedPostgres
from persistence.postgres import PostgresRepository
from persistence.postgres.commit.committer import Committer
from persistence.postgres.commit.session import CommitSession
from persistence.postgres.commit.writer import Writer
from persistence.postgres.connection import Connection, Database
from persistence.postgres.notifications import Notifications
from persistence.postgres.tables import metadata
from tests.patience import PATIENCE

_GRACE = 2.0
"""Seconds in which calls that still run give their connections back, as when a store is closed for good."""

# Planned once for each connection that it is sent to.
_EMPTY = f"WITH {', '.join(f'of_{name} AS (DELETE FROM {name})' for name in metadata.tables)} SELECT 1"  # noqa: S608
# The server may still be at work on what connections were asked last that were cut off.
_END_OTHERS = f"""
SELECT count(pg_terminate_backend(pid, {int(1000 * PATIENCE)})) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend'
  AND pid <> pg_backend_pid() AND pid <> ALL ($1::int[])"""  # noqa: S608 - our own number


class _Lent(Database):
    """A database whose connections stay open when it is closed: copies of it share them. None is given up for haste."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn, command_timeout=PATIENCE, acquire_timeout=PATIENCE)

    async def connect(
        self, *, settings: Mapping[str, str] = {}, timeout: float = 5.0, command_timeout: float | None = None
    ) -> Connection:
        return await super().connect(settings=settings, timeout=PATIENCE, command_timeout=PATIENCE)

    def _settings(self, own: Mapping[str, str]) -> dict[str, str]:
        # By default a process that gets no turn for 5 s within a transaction loses its connection.
        patience = str(int(1000 * PATIENCE))
        return super()._settings({"idle_in_transaction_session_timeout": patience, **own})

    async def close(self, timeout: float = 2.0) -> None:
        self._drop_reserved()
        self._pool = None

    async def are_free(self) -> bool:
        """Whether all were given back."""
        pool: Any = self._pool
        try:
            async with asyncio.timeout(_GRACE):
                while pool.get_idle_size() < pool.get_size():  # noqa: ASYNC110 - no signal tells of it
                    await asyncio.sleep(0.01)
        except TimeoutError:
            return False
        return True

    def open_ones(self) -> list[Connection]:
        """The connections."""
        pool: Any = self._pool
        return [holder._con for holder in pool._holders if holder._con is not None]


@dataclass
class _Connections:
    """Those of one store: of its pool, and of its committer."""

    database: _Lent
    committing: Connection | None = None

    def pids(self) -> list[int]:
        """The backends that serve them."""
        opened = [*self.database.open_ones(), *([self.committing] if self.committing else [])]
        return [int(each.get_server_pid()) for each in opened if not each.is_closed()]

    def end(self) -> None:
        """Let go of them."""
        for each in (*self.database.open_ones(), self.committing):
            if each is not None:
                each.terminate()


class _Session(CommitSession):
    """What a committer writes by, on a connection that was used before."""

    def __init__(self, database: Database, connections: _Connections) -> None:
        super().__init__(database)
        self._connections = connections

    async def open(self) -> None:
        kept, self._connections.committing = self._connections.committing, None
        if self._connection is None and kept is not None:
            self._connection = kept
            kept.add_log_listener(self._on_log)
        await super().open()

    async def close(self) -> None:
        connection = self._connection
        if connection is None or connection.is_closed() or connection.is_in_transaction():
            await super().close()
            return
        connection.remove_log_listener(self._on_log)
        self._connection, self._connections.committing = None, connection


class Kept:
    """A migrated database that one test after the other uses."""

    def __init__(self, postgres: EmbeddedPostgres, admin: asyncpg.Connection, template: str) -> None:
        self._postgres = postgres
        self._admin = admin
        self._template = template
        self._name = ""
        self._emptier: Any = None
        # By the size of their pools; those in use, too, are among the others.
        self._free: defaultdict[int, list[_Connections]] = defaultdict(list)
        self._is_clean = True

    @property
    def dsn(self) -> str:
        """Where it is."""
        return self._postgres.dsn(self._name)

    async def begin(self) -> None:
        """Have an empty database."""
        if not self._name:
            name = f"kept_{uuid4().hex}"
            await self._admin.execute(f"CREATE DATABASE {name} TEMPLATE {self._template} STRATEGY file_copy")
            self._name, self._is_clean = name, True
            self._emptier = await asyncpg.connect(self.dsn)

    async def empty(self) -> None:
        """Remove whatever is in it; or it altogether, where a store of the test did not let go of its connections."""
        if not self._is_clean:
            await self.end()
            return
        pids = [pid for free in self._free.values() for each in free for pid in each.pids()]
        async with asyncio.timeout(PATIENCE):
            await self._emptier.execute(_END_OTHERS, pids)
            await self._emptier.fetch(_EMPTY)

    async def end(self) -> None:
        """Remove it."""
        for free in self._free.values():
            for each in free:
                each.end()
        self._free.clear()
        if self._emptier is not None:
            await self._emptier.close()
            self._emptier = None
        if self._name:
            await self._admin.execute(f"DROP DATABASE {self._name} WITH (FORCE)")
            self._name = ""

    @asynccontextmanager
    async def repository(self, pool_size: int) -> AsyncIterator[PostgresRepository]:
        """A store that keeps callers waiting for as long as tests wait for anything, closed at the end."""
        free = self._free[pool_size]
        connections = free.pop() if free else await self._connect(pool_size)
        database = copy(connections.database)
        notifications = Notifications(database)
        writer = Writer(database, PATIENCE)
        writer._session = _Session(database, connections)
        committer = Committer(writer, notifications.announce, max_queue=10_000, unknown_timeout=PATIENCE)
        repository = PostgresRepository(database, committer, notifications)
        await committer.open()
        try:
            yield repository
        finally:
            await repository.close()
            if await connections.database.are_free():
                free.append(connections)
            else:
                self._is_clean = False
                connections.end()

    async def _connect(self, pool_size: int) -> _Connections:
        database = _Lent(self.dsn)
        await database.open(pool_size)
        return _Connections(database)
