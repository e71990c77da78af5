"""Workers of other teams and their handlers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from persistence.model import StepState
from persistence.postgres.connection import Database
from persistence.workers import (
    FORGOTTEN,
    FORGOTTEN_ATTEMPT,
    AwaitedWorker,
    ConnectedWorker,
    Holding,
    Standing,
    WorkerAttempt,
    WorkerHandler,
)

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

_KEEP_AWAITED = """
INSERT INTO awaited_workers (org_id, handler, digest, wishes, seen_time)
VALUES ($1, $2, encode(sha256(convert_to($3, 'UTF8')), 'hex'), $3, clock_timestamp())
ON CONFLICT (org_id, handler, digest) DO UPDATE SET seen_time = excluded.seen_time"""
_FORGET_AWAITED = """
DELETE FROM awaited_workers a WHERE a.org_id = $1 AND a.seen_time < clock_timestamp() - $2::interval
    AND NOT EXISTS (SELECT FROM executions e
        WHERE e.awaits IS NOT NULL AND e.awaits ? concat_ws(E'\t', a.org_id, a.handler, a.wishes))"""
_LIST_AWAITED = """
SELECT org_id, handler, a.wishes
FROM awaited_workers a JOIN unnest($1::text[], $2::text[]) AS u(org_id, handler) USING (org_id, handler)"""

_ANNOUNCE = """
WITH given AS (
    SELECT * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int[], $9::int[],
        $10::bool[], $11::timestamptz[], $12::timestamptz[], $13::text[])
        AS u(org_id, subject, worker_id, name, version, handlers, capacity, running, is_draining, connect_time,
            heartbeat_time, labels)),
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
    connect_time, heartbeat_time, labels)
SELECT $1, g.org_id, g.subject, g.worker_id, g.name, g.version, g.handlers::jsonb, g.capacity, g.running, g.is_draining,
    g.connect_time, g.heartbeat_time, g.labels::jsonb
FROM given g
ON CONFLICT (incarnation, org_id, subject, worker_id) DO UPDATE SET name = excluded.name, version = excluded.version,
    handlers = excluded.handlers, capacity = excluded.capacity, running = excluded.running,
    is_draining = excluded.is_draining, connect_time = excluded.connect_time,
    heartbeat_time = excluded.heartbeat_time, labels = excluded.labels"""
_WORKERS = """
SELECT w.org_id, w.subject, w.worker_id, w.name, w.version, w.handlers::text AS handlers, w.capacity, w.running,
    w.is_draining, w.connect_time, w.heartbeat_time, r.name AS server, w.incarnation, w.labels::text AS labels
FROM workers w JOIN replicas r ON r.incarnation = w.incarnation
WHERE w.org_id = $1 AND r.lease_until > clock_timestamp()
ORDER BY w.name, w.worker_id, w.subject, r.name"""

_KEYS = "org_id, execution_id, path, iteration, attempt"
_GIVEN = "unnest($2::text[], $3::uuid[], $4::text[], $5::int[], $6::int[], $7::bytea[])"
# Of rows that somebody wrote by hand no more is expected than that they fail nothing.
_CODE = """
CASE WHEN jsonb_typeof(s.failed_attempts) = 'array' THEN (
    SELECT f->'failure'->>'code' FROM jsonb_array_elements(s.failed_attempts) f
    WHERE f->>'attempt' = g.attempt::text LIMIT 1) END"""
_HOLD = f"""
WITH given AS (
    SELECT * FROM {_GIVEN} WITH ORDINALITY AS g({_KEYS}, report, place)),
found AS MATERIALIZED (
    SELECT g.*, s.state, s.now = g.attempt AS is_newest, s.state = 'RUNNING' AND s.now = g.attempt AS is_running,
        coalesce({_CODE}, CASE WHEN s.now = g.attempt THEN s.failure->>'code' END, '') AS code
    FROM given g LEFT JOIN LATERAL (
        SELECT s.state, s.attempt AS now, s.failure, s.failed_attempts FROM steps s
        WHERE s.execution_id = g.execution_id AND s.org_id = g.org_id AND s.path = g.path AND s.iteration = g.iteration
        OFFSET 0) s ON true),
kept AS (
    INSERT INTO worker_attempts AS h ({_KEYS}, incarnation, seen_time, report, stop)
    SELECT {_KEYS}, $1, clock_timestamp(), report, '' FROM found WHERE is_running
    ORDER BY execution_id, org_id, path, iteration, attempt
    ON CONFLICT (execution_id, org_id, path, iteration, attempt) DO UPDATE SET incarnation = excluded.incarnation,
        seen_time = excluded.seen_time,
        report = CASE WHEN excluded.report = '' THEN h.report ELSE excluded.report END
    WHERE h.incarnation = $1 OR $8
    RETURNING {_KEYS}, stop, CASE WHEN $8 THEN report ELSE '' END AS report)
SELECT coalesce(f.is_running, false) AS is_running, coalesce(f.is_newest, false) AS is_newest, f.state, f.code, k.stop,
    k.report
FROM found f LEFT JOIN kept k USING ({_KEYS}) ORDER BY f.place"""  # noqa: S608 - our own columns
_DROP = f"""
DELETE FROM worker_attempts h USING (
    SELECT o.ctid FROM worker_attempts o
    WHERE (o.incarnation = $1 AND ({_KEYS}) IN (
            SELECT * FROM unnest($2::text[], $3::uuid[], $4::text[], $5::int[], $6::int[])))
        OR o.seen_time < clock_timestamp() - $7::interval
    FOR UPDATE SKIP LOCKED) d
WHERE h.ctid = d.ctid"""  # noqa: S608 - our own columns
_STOP = f"""
UPDATE worker_attempts h SET stop = u.stop
FROM unnest($1::text[], $2::uuid[], $3::text[], $4::int[], $5::int[], $6::text[]) AS u({_KEYS}, stop)
WHERE (h.org_id, h.execution_id, h.path, h.iteration, h.attempt)
    = (u.org_id, u.execution_id, u.path, u.iteration, u.attempt) AND h.stop <> u.stop"""  # noqa: S608 - our own columns
_HOLDERS = f"""
SELECT {_KEYS}, h.incarnation, h.report, EXISTS (
    SELECT FROM replicas r WHERE r.incarnation = h.incarnation AND r.lease_until > clock_timestamp()) AS is_live
FROM worker_attempts h
JOIN unnest($1::text[], $2::uuid[], $3::text[], $4::int[], $5::int[]) AS u({_KEYS})
USING ({_KEYS})"""  # noqa: S608 - our own columns


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

    async def keep_awaited_worker(self, awaited: AwaitedWorker) -> None:
        """See WorkerRepository."""
        async with self._database.session() as session, session.transaction():
            await session.execute(_KEEP_AWAITED, *awaited)
            await session.execute(_FORGET_AWAITED, awaited.org, FORGOTTEN)

    async def list_awaited_workers(self, handlers: Collection[tuple[str, str]]) -> Sequence[AwaitedWorker]:
        """See WorkerRepository."""
        columns = [org for org, _ in handlers], [name for _, name in handlers]
        async with self._database.session() as session:
            return sorted(AwaitedWorker(*row) for row in await session.fetch(_LIST_AWAITED, *columns))

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
            [msgspec.json.encode(each.labels).decode() for each in workers],
        )
        async with self._database.session() as session:
            await session.execute(_ANNOUNCE, incarnation, *columns)

    async def list_workers(self, org: str) -> Sequence[ConnectedWorker]:
        """See WorkerRepository."""
        async with self._database.session() as session:
            return [_worker(row) for row in await session.fetch(_WORKERS, org)]

    async def hold_attempts(
        self, incarnation: UUID, attempts: Sequence[tuple[WorkerAttempt, bytes]], *, take: bool
    ) -> Sequence[Standing]:
        """See WorkerRepository."""
        keys, reports = _columns(attempt for attempt, _ in attempts), [report for _, report in attempts]
        async with self._database.session() as session:
            rows = await session.fetch(_HOLD, incarnation, *keys, reports, take)
        return list(map(_standing, rows))

    async def drop_attempts(self, incarnation: UUID, attempts: Sequence[WorkerAttempt]) -> None:
        """See WorkerRepository."""
        async with self._database.session() as session:
            await session.execute(_DROP, incarnation, *_columns(attempts), FORGOTTEN_ATTEMPT)

    async def find_attempts(self, stops: Mapping[WorkerAttempt, str]) -> Mapping[WorkerAttempt, Holding]:
        """See WorkerRepository."""
        stopped = {attempt: stop for attempt, stop in stops.items() if stop}
        async with self._database.session() as session:
            if stopped:
                await session.execute(_STOP, *_columns(stopped), list(stopped.values()))
            rows = await session.fetch(_HOLDERS, *_columns(stops))
        return {
            WorkerAttempt(row["org_id"], row["execution_id"], row["path"], row["iteration"], row["attempt"]): Holding(
                row["incarnation"], row["report"], row["is_live"]
            )
            for row in rows
        }


def _columns(attempts: Iterable[WorkerAttempt]) -> list[list[Any]]:
    rows = list(attempts)
    return [[row[index] for row in rows] for index in range(5)]


def _standing(row: asyncpg.Record) -> Standing:
    is_held = row["stop"] is not None
    state = StepState(row["state"]) if row["state"] in set(StepState) else None
    return Standing(
        row["is_running"], row["is_newest"], is_held, state, row["code"], row["stop"] or "", row["report"] or b""
    )


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
        msgspec.json.decode(row["labels"]),
    )
