"""The store as a whole."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from secrets import token_bytes
from typing import Self

from persistence.errors import UnavailableError
from persistence.model import Execution
from persistence.postgres.alone import PostgresAlone
from persistence.postgres.bulks import PostgresBulks
from persistence.postgres.claims import PostgresClaims
from persistence.postgres.commit.committer import Committer
from persistence.postgres.commit.condemning import PostgresCondemning
from persistence.postgres.commit.requests import find_request
from persistence.postgres.commit.writer import Writer
from persistence.postgres.connection import Database, translating
from persistence.postgres.durability import tell_durability
from persistence.postgres.events import PostgresEvents
from persistence.postgres.executions import PostgresExecutions
from persistence.postgres.health import try_to_write
from persistence.postgres.leases import PostgresLeases, leases_apart
from persistence.postgres.messages import PostgresMessages
from persistence.postgres.notifications import Notifications
from persistence.postgres.partitions import ensure_partitions
from persistence.postgres.people import PostgresTasks
from persistence.postgres.reaping import PostgresReaping
from persistence.postgres.reopening import PostgresReopening
from persistence.postgres.replicas import PostgresReplicas
from persistence.postgres.revisions import check_schema
from persistence.postgres.user_notifications import PostgresUserNotifications
from persistence.postgres.workers import PostgresWorkers
from persistence.postgres.workflow_breakpoints import PostgresWorkflowBreakpoints
from persistence.postgres.workflow_pauses import PostgresWorkflowPauses
from persistence.postgres.workflows import PostgresWorkflows
from persistence.processes import News
from persistence.repository import SECRET_BYTES
from persistence.transition import CommitResult, Created, NewExecution, Transition

_READ = "SELECT value FROM secrets WHERE name = $1"
_KEEP = """
INSERT INTO secrets (name, value, create_time) VALUES ($1, $2, clock_timestamp()) ON CONFLICT (name) DO NOTHING"""


class PostgresRepository(
    PostgresWorkflows,
    PostgresWorkflowPauses,
    PostgresWorkflowBreakpoints,
    PostgresReaping,
    PostgresExecutions,
    PostgresMessages,
    PostgresReopening,
    PostgresAlone,
    PostgresTasks,
    PostgresEvents,
    PostgresClaims,
    PostgresCondemning,
    PostgresReplicas,
    PostgresUserNotifications,
    PostgresWorkers,
    PostgresBulks,
):
    """Implements Repository on Postgres 15 or later. Make it by `open`."""

    def __init__(self, database: Database, committer: Committer, notifications: Notifications) -> None:
        super().__init__()
        self._database = database
        self._committer = committer
        self._notifications = notifications

    @classmethod
    async def open(
        cls,
        dsn: str,
        *,
        pool_size: int = 10,
        max_queue: int = 10_000,
        command_timeout: float = 3.5,
        acquire_timeout: float = 1.0,
        unknown_timeout: float = 4.0,
    ) -> Self:
        """Connect to a migrated database and make missing partitions.

        A call gets its answer within `acquire_timeout` and `command_timeout`, a creation within `unknown_timeout`, so
        that no caller waits for more than 5 s (CONTRACT 2.5). `dsn` is a libpq URI, over TCP or a unix socket. Opens
        `pool_size` connections at most and three beside them: for the committer, for the lease, and for listening.
        Raises SchemaError when the schema is not the expected one, UnavailableError when the database does not answer.
        """
        await check_schema(dsn)
        database = Database(dsn, command_timeout=command_timeout, acquire_timeout=acquire_timeout)
        notifications = Notifications(database)
        writer = Writer(database, unknown_timeout)
        committer = Committer(writer, notifications.announce, max_queue=max_queue, unknown_timeout=unknown_timeout)
        repository = cls(database, committer, notifications)
        try:
            await database.open(pool_size)
            async with database.session() as session:
                await tell_durability(session)
                await ensure_partitions(session)
            async with translating():
                await committer.open()
        except BaseException:
            await repository.close()
            raise
        return repository

    def create(self, new: NewExecution) -> Future[Created]:
        """See Journal."""
        if new.alone_in is not None:
            return asyncio.ensure_future(self.create_alone(new, new.alone_in))
        return self._committer.create(new)

    def submit(self, transition: Transition) -> Future[CommitResult]:
        """See Journal."""
        return self._committer.submit(transition)

    async def find_request(self, org: str, request_id: str, content_hashes: Collection[bytes]) -> Execution | None:
        """See Journal."""
        async with self._database.session() as session:
            return await find_request(session, org, request_id, content_hashes)

    async def listen(self, heard: Callable[[News], None]) -> None:
        """See Signals."""
        await self._notifications.listen(heard)

    def leases_apart(self) -> AbstractAsyncContextManager[PostgresLeases]:
        """See Repository."""
        return leases_apart(self._database.dsn, self._notifications)

    async def secret(self, name: str) -> bytes:
        """See Repository."""
        async with self._database.session() as session:
            if (kept := await session.fetchval(_READ, name)) is None:
                await session.execute(_KEEP, name, token_bytes(SECRET_BYTES))
                kept = await session.fetchval(_READ, name)
            return bytes(kept)

    async def ping(self) -> None:
        """See Repository."""
        try:
            async with asyncio.timeout(2.0), self._database.session() as session:
                await session.execute("SELECT 1")
                if self._committer.trouble is not None:
                    await try_to_write(session)
                    self._committer.recovered()
        except TimeoutError as error:
            raise UnavailableError("the database does not answer within 2 s") from error

    async def close(self) -> None:
        """See Repository."""
        await self._committer.close()
        await self._database.close()
