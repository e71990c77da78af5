"""Workers of other teams and their handlers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

import asyncpg
import msgspec

from persistence.postgres.connection import Database
from persistence.workers import FORGOTTEN, ConnectedWorker, WorkerHandler

_KEEP = """
INSERT INTO worker_handlers (org_id, name, description, params_schema, effect, version, seen_time)
SELECT $1, u.name, u.description, u.params_schema::jsonb, u.effect, u.version, clock_timestamp()
FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
    AS u(name, description, params_schema, effect, version)
ORDER BY u.name
ON CONFLICT (org_id, name) DO UPDATE SET description = excluded.description, params_schema = excluded.params_schema,
    effect = excluded.effect, version = excluded.version, seen_time = excluded.seen_time"""
_FORGET = "DELETE FROM worker_handlers WHERE org_id = $1 AND seen_time < clock_timestamp() - $2::interval"
_COLUMNS = "name, description, params_schema::text AS params_schema, effect, version, seen_time"
_LIST = f"SELECT {_COLUMNS} FROM worker_handlers WHERE org_id = $1 ORDER BY name"  # noqa: S608 - our own columns
_FIND = f"SELECT {_COLUMNS} FROM worker_handlers WHERE org_id = $1 AND name = ANY ($2) ORDER BY name"  # noqa: S608

_ANNOUNCE = """
WITH given AS (
    SELECT * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int[], $9::int[],
        $10::bool[], $11::timestamptz[], $12::timestamptz[])
        AS u(org_id, subject, worker_id, name, version, handlers, capacity, running, is_draining, connect_time,
            heartbeat_time)),
gone AS (
    DELETE FROM workers w USING (
        SELECT o.ctid FROM workers o
        WHERE (o.incarnation = $1 AND NOT EXISTS (
                SELECT FROM given g
                WHERE g.org_id = o.org_id AND g.subject = o.subject AND g.worker_id = o.worker_id))
            OR (o.incarnation <> $1 AND NOT EXISTS (
                SELECT FROM replicas r WHERE r.incarnation = o.incarnation AND r.lease_until > clock_timestamp()))
        FOR UPDATE SKIP LOCKED) d
    WHERE w.ctid = d.ctid)
INSERT INTO workers (incarnation, org_id, subject, worker_id, name, version, handlers, capacity, running, is_draining,
    connect_time, heartbeat_time)
SELECT $1, g.org_id, g.subject, g.worker_id, g.name, g.version, g.handlers::jsonb, g.capacity, g.running, g.is_draining,
    g.connect_time, g.heartbeat_time
FROM given g
ON CONFLICT (incarnation, org_id, subject, worker_id) DO UPDATE SET name = excluded.name, version = excluded.version,
    handlers = excluded.handlers, capacity = excluded.capacity, running = excluded.running,
    is_draining = excluded.is_draining, connect_time = excluded.connect_time,
    heartbeat_time = excluded.heartbeat_time"""
_WORKERS = """
SELECT w.org_id, w.subject, w.worker_id, w.name, w.version, w.handlers::text AS handlers, w.capacity, w.running,
    w.is_draining, w.connect_time, w.heartbeat_time, r.name AS server, w.incarnation
FROM workers w JOIN replicas r ON r.incarnation = w.incarnation
WHERE w.org_id = $1 AND r.lease_until > clock_timestamp()
ORDER BY w.name, w.worker_id, w.subject, r.name"""


class PostgresWorkers:
    """Implements WorkerRepository."""

    _database: Database

    async def keep_worker_handlers(self, org: str, handlers: Sequence[WorkerHandler]) -> None:
        """See WorkerRepository."""
        columns = (
            [each.name for each in handlers],
            [each.description for each in handlers],
            [msgspec.json.encode(each.params_schema).decode() for each in handlers],
            [each.effect for each in handlers],
            [each.version for each in handlers],
        )
        async with self._database.session() as session, session.transaction():
            await session.execute(_KEEP, org, *columns)
            await session.execute(_FORGET, org, FORGOTTEN)

    async def find_worker_handlers(self, org: str, names: Collection[str]) -> Sequence[WorkerHandler]:
        """See WorkerRepository."""
        async with self._database.session() as session:
            return list(map(_handler, await session.fetch(_FIND, org, list(names))))

    async def list_worker_handlers(self, org: str) -> Sequence[WorkerHandler]:
        """See WorkerRepository."""
        async with self._database.session() as session:
            return list(map(_handler, await session.fetch(_LIST, org)))

    async def announce_workers(self, incarnation: UUID, workers: Sequence[ConnectedWorker]) -> None:
        """See WorkerRepository."""
        columns = (
            [each.org for each in workers],
            [each.subject for each in workers],
            [each.worker_id for each in workers],
            [each.name for each in workers],
            [each.version for each in workers],
            [msgspec.json.encode(list(each.handlers)).decode() for each in workers],
            [each.capacity for each in workers],
            [each.running for each in workers],
            [each.is_draining for each in workers],
            [each.connect_time for each in workers],
            [each.heartbeat_time for each in workers],
        )
        async with self._database.session() as session:
            await session.execute(_ANNOUNCE, incarnation, *columns)

    async def list_workers(self, org: str) -> Sequence[ConnectedWorker]:
        """See WorkerRepository."""
        async with self._database.session() as session:
            return [_worker(row) for row in await session.fetch(_WORKERS, org)]


def _handler(row: asyncpg.Record) -> WorkerHandler:
    schema = msgspec.json.decode(row["params_schema"])
    return WorkerHandler(row["name"], row["description"], schema, row["effect"], row["version"], row["seen_time"])


def _worker(row: asyncpg.Record) -> ConnectedWorker:
    return ConnectedWorker(
        row["org_id"],
        row["subject"],
        row["worker_id"],
        row["name"],
        row["version"],
        msgspec.json.decode(row["handlers"]),
        row["capacity"],
        row["running"],
        row["is_draining"],
        row["connect_time"],
        row["heartbeat_time"],
        row["server"],
        row["incarnation"],
    )
