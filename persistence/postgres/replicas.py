"""Leases of replica processes, by the clock of the database."""

from __future__ import annotations

from uuid import UUID

import asyncpg

from persistence.errors import ExecutionNotFoundError
from persistence.model import Scope
from persistence.postgres import mending
from persistence.postgres.claims import RUNS, release
from persistence.postgres.connection import Database
from persistence.postgres.notifications import Notifications, notify
from persistence.postgres.records import EXECUTION_COLUMNS, IS_READABLE, selected
from persistence.postgres.revisions import expected_revision
from persistence.processes import Driving, Lease, News, Queue

_LEASE = """clock_timestamp() AS time,
    EXISTS (SELECT FROM replicas o WHERE o.incarnation <> $1 AND o.lease_until > clock_timestamp()) AS has_others"""
_REGISTER = f"""
INSERT INTO replicas (incarnation, name, register_time, lease_until, revision)
VALUES ($1, $2, clock_timestamp(), clock_timestamp() + make_interval(secs => $3), $4)
ON CONFLICT (incarnation) DO UPDATE SET lease_until = excluded.lease_until
RETURNING {_LEASE}"""  # noqa: S608 - our own columns
# Long after anything could have referred to them.
_FORGET = """
DELETE FROM replicas
WHERE lease_until < clock_timestamp() - interval '7 days' AND register_time < clock_timestamp() - interval '7 days'"""
_RENEW = f"""
UPDATE replicas SET lease_until = clock_timestamp() + make_interval(secs => $2)
WHERE incarnation = $1 AND lease_until > CASE WHEN $3 THEN '-infinity' ELSE clock_timestamp() END
RETURNING {_LEASE}"""  # noqa: S608 - our own columns
# Not only over, but not to be taken up again.
_END = "UPDATE replicas SET lease_until = '-infinity' WHERE incarnation = $1"
_END_OTHERS = """
UPDATE replicas SET lease_until = '-infinity' WHERE incarnation <> $1 AND lease_until > '-infinity'"""

_DISOWN = """
UPDATE executions SET incarnation = NULL, wake_time = clock_timestamp(), deaths = least(deaths + 1, 32767)
WHERE id = $1 AND incarnation = $2 AND epoch = $3"""

# Those that wait behind it are not read: each half of the count goes along the index of what may be claimed.
_FREE = """SELECT FROM executions o WHERE o.incarnation IS NULL AND o.end_time IS NULL AND o.org_id = e.org_id
            AND o.wake_time <= clock_timestamp()"""
_SERVERS = f"(SELECT count(*) FROM replicas r WHERE {RUNS})"  # noqa: S608 - our own conditions
_WHO_DRIVES = f"""
SELECT clock_timestamp() AS time, {_SERVERS} AS servers, coalesce(r.name, '') AS server,
    CASE WHEN r.lease_until {IS_READABLE} THEN r.lease_until END AS lease_until,
    CASE WHEN e.incarnation IS NULL AND e.end_time IS NULL AND e.wake_time <= clock_timestamp() THEN (
        SELECT count(*) FROM (
            ({_FREE} AND o.priority > e.priority LIMIT $4)
            UNION ALL
            ({_FREE} AND o.priority = e.priority AND (o.wake_time, o.id) < (e.wake_time, e.id) LIMIT $4)) b)
        ELSE 0 END AS before
FROM executions e LEFT JOIN replicas r ON r.incarnation = e.incarnation
WHERE e.org_id = $1 AND e.id = $2 AND ($3::text IS NULL OR e.owner = $3)"""  # noqa: S608 - our own conditions

_IN_QUEUE = "o.org_id = $1 AND o.incarnation IS NULL AND o.end_time IS NULL AND o.wake_time <= clock_timestamp()"
_DEPTH = f"""
SELECT {_SERVERS} AS servers, (SELECT count(*) FROM (SELECT FROM executions o WHERE {_IN_QUEUE} LIMIT $2) f) AS depth"""  # noqa: S608
_QUEUE = f"""
WITH first AS MATERIALIZED (
    SELECT o.id, o.workflow_id, o.owner, o.priority, o.wake_time FROM executions o
    WHERE {_IN_QUEUE} ORDER BY o.priority DESC, o.wake_time, o.id LIMIT $5),
numbered AS (
    SELECT id, workflow_id, owner, row_number() OVER (ORDER BY priority DESC, wake_time, id) - 1 AS before FROM first)
SELECT n.before, {selected(EXECUTION_COLUMNS, "e.")}
FROM numbered n JOIN executions e ON e.org_id = $1 AND e.id = n.id
WHERE n.workflow_id = $2 AND ($3::text IS NULL OR n.owner = $3) ORDER BY n.before LIMIT $4"""  # noqa: S608

_SHORTEST_RENEWAL, _LONGEST_RENEWAL = 0.1, 2.0
"""Seconds that a renewal may take the server."""


class PostgresReplicas:
    """Implements ReplicaRepository."""

    _database: Database
    _notifications: Notifications

    async def register(self, incarnation: UUID, name: str, ttl: float) -> Lease:
        """See ReplicaRepository."""
        heard = self._notifications.heard
        async with self._database.session() as session:
            row = await session.fetchrow(_REGISTER, incarnation, name, ttl, expected_revision())
            await session.execute(_FORGET)
            await notify(session, News(frozenset()))  # so that the others know of this one
        assert row is not None  # noqa: S101 - a row is written in any case
        return self._lease(row, heard)

    async def renew(self, incarnation: UUID, ttl: float, *, lapsed: bool = False) -> Lease | None:
        """See ReplicaRepository. Runs on a connection of its own, which no other work can hold up."""
        # What the server has not done by then must not come later, when the process has taken its lease for lost.
        timeout = min(_LONGEST_RENEWAL, max(_SHORTEST_RENEWAL, ttl / 4))
        heard = self._notifications.heard
        row = await self._database.reserved(_RENEW, incarnation, ttl, lapsed, timeout=timeout)
        return None if row is None else self._lease(row, heard)

    async def retire(self, incarnation: UUID) -> None:
        """See ReplicaRepository."""
        async with self._database.session() as session:
            try:
                # First, or others could count a death for each; and apart, for the lease ends whatever becomes of it.
                await release(session, incarnation, None)
            finally:
                await session.execute(_END, incarnation)
            await notify(session, News(frozenset(), has_work=True))

    async def retire_others(self, incarnation: UUID) -> None:
        """See ReplicaRepository."""
        async with self._database.session() as session:
            await session.execute(_END_OTHERS, incarnation)

    async def disown(self, incarnation: UUID, execution_id: UUID, epoch: int) -> bool:
        """See ReplicaRepository."""
        async with self._database.session() as session, session.transaction():
            answer = await session.execute(_DISOWN, execution_id, incarnation, epoch)
            await notify(session, News(frozenset(), has_work=True))
            return str(answer).endswith(" 1")

    async def who_drives(self, scope: Scope, execution_id: UUID, most: int) -> Driving:
        """See ReplicaRepository."""
        async with self._database.searching(scope.org) as session:
            row = await session.fetchrow(_WHO_DRIVES, scope.org, execution_id, scope.owner, most)
        if row is None:
            raise ExecutionNotFoundError(execution_id)
        return Driving(row["time"], row["server"], row["lease_until"], min(row["before"], most), row["servers"])

    async def queue(self, scope: Scope, workflow_id: UUID, limit: int, most: int) -> Queue:
        """See ReplicaRepository."""
        async with self._database.searching(scope.org) as session:
            known = await session.fetchrow(_DEPTH, scope.org, most + 1)
            rows = await session.fetch(_QUEUE, scope.org, workflow_id, scope.owner, limit + 1, most)
        assert known is not None  # noqa: S101 - it counts
        waiting = [(mending.execution(row), row["before"]) for row in rows[:limit]]
        return Queue(waiting, known["depth"] <= most and len(rows) <= limit, known["servers"])

    def _lease(self, row: asyncpg.Record, heard: int) -> Lease:
        self._notifications.learn(row["has_others"], heard)
        return Lease(row["time"], row["has_others"])
