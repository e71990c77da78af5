"""Leases over connections of their own, so that a thread of their own can keep them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from persistence.postgres.connection import Database, Session, translating
from persistence.postgres.notifications import Notifications
from persistence.postgres.replicas import PostgresReplicas


class PostgresLeases(PostgresReplicas):
    """Implements ReplicaRepository for the event loop that it is made in. It tells `notifications` of others."""

    def __init__(self, database: Database, notifications: Notifications) -> None:
        self._database = database
        self._notifications = notifications


@asynccontextmanager
async def leases_apart(dsn: str, notifications: Notifications) -> AsyncIterator[PostgresLeases]:
    """Give leases that share no connection with anybody; they hold one between renewals."""
    database = _Lone(dsn)
    try:
        yield PostgresLeases(database, notifications)
    finally:
        await database.close()


class _Lone(Database):
    """Connects for each session: there are few beside the renewals, which have the reserved connection."""

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        async with translating():
            connection = await self.connect(timeout=2.0)
            try:
                yield connection
            finally:
                connection.terminate()
