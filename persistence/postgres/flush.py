"""One transaction that writes a batch: a few statements over sets, whatever the number of executions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg

from persistence.errors import (
    ExecutionNotFoundError,
    PersistenceError,
    RequestIdReusedError,
    WorkflowNotFoundError,
)
from persistence.model import CommitResult, Created
from persistence.postgres.batch import Creation, Group, Outcome, Row, Unit, columns
from persistence.postgres.records import EXECUTION_COLUMNS, execution

_Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

# The lock keeps a workflow from being deleted beside a creation that would then have missed the cancelling.
_LIVE_WORKFLOWS = """
SELECT w.org_id, w.id FROM unnest($1::text[], $2::uuid[]) AS u(org_id, id)
JOIN workflows w ON w.org_id = u.org_id AND w.id = u.id
WHERE w.delete_time IS NULL FOR KEY SHARE OF w"""

_INSERT_REQUESTS = """
INSERT INTO execution_requests (org_id, request_id, execution_id, content_hash, create_time)
SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[], $4::bytea[], $5::timestamptz[])
ON CONFLICT DO NOTHING RETURNING execution_id"""

_KNOWN_REQUESTS = f"""
SELECT r.org_id AS request_org, r.request_id AS request, r.content_hash, r.execution_id,
       {", ".join(f"e.{column}" for column in EXECUTION_COLUMNS.split(", "))}
FROM unnest($1::text[], $2::text[]) AS u(org_id, request_id)
JOIN execution_requests r ON r.org_id = u.org_id AND r.request_id = u.request_id
LEFT JOIN executions e ON e.org_id = r.org_id AND e.id = r.execution_id"""  # noqa: S608 - our own columns

_INSERT_EXECUTIONS = f"""
INSERT INTO executions ({EXECUTION_COLUMNS})
SELECT u.org_id, u.id, u.owner, u.workflow_id, u.workflow_name, u.revision, u.state, u.create_time, u.timeout,
       u.priority, u.tags::text[], u.metadata::jsonb, u.correlation_id, u.request_id, u.scheduled_time, u.start_time,
       u.end_time, u.deadline_time, u.progress, u.steps_total, u.steps_completed, u.steps_failed, u.steps_skipped,
       u.steps_running, u.steps_cancelled, u.last_seq, u.failure::jsonb, u.cancel_time, u.cancel_by, u.cancel_reason,
       u.incarnation, u.epoch, u.wake_time
FROM unnest($1::text[], $2::uuid[], $3::text[], $4::uuid[], $5::text[], $6::int[], $7::text[], $8::timestamptz[],
            $9::float8[], $10::int[], $11::text[], $12::text[], $13::text[], $14::text[], $15::timestamptz[],
            $16::timestamptz[], $17::timestamptz[], $18::timestamptz[], $19::int[], $20::int[], $21::int[],
            $22::int[], $23::int[], $24::int[], $25::int[], $26::int8[], $27::text[], $28::timestamptz[],
            $29::text[], $30::text[], $31::uuid[], $32::int8[], $33::timestamptz[])
     AS u({EXECUTION_COLUMNS})
ON CONFLICT DO NOTHING RETURNING id"""  # noqa: S608 - our own columns

_INSERT_PAYLOADS = """
INSERT INTO execution_payloads (org_id, execution_id, input, result)
SELECT u.org_id, u.id, u.input::jsonb, u.result::jsonb
FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[]) AS u(org_id, id, input, result)"""

_UPDATE_EXECUTIONS = """
UPDATE executions e SET
    state = u.state, last_seq = u.last_seq, progress = u.progress,
    steps_total = u.total, steps_completed = u.completed, steps_failed = u.failed, steps_skipped = u.skipped,
    steps_running = u.running, steps_cancelled = u.cancelled,
    start_time = u.start_time, end_time = u.end_time, deadline_time = u.deadline_time, failure = u.failure::jsonb,
    incarnation = CASE WHEN NOT u.released THEN e.incarnation END,
    wake_time = CASE
        WHEN NOT u.released OR u.end_time IS NOT NULL THEN NULL
        -- A wish that the owner gave up without having seen must not wait for a timer.
        WHEN e.cancel_time IS NOT NULL AND NOT u.cancel_seen THEN clock_timestamp()
        ELSE coalesce(u.wake_time, clock_timestamp()) END
FROM unnest($1::text[], $2::uuid[], $3::uuid[], $4::int8[], $5::int8[], $6::int8[], $7::text[], $8::bool[],
            $9::bool[], $10::bool[], $11::int[], $12::int[], $13::int[], $14::int[], $15::int[], $16::int[],
            $17::int[], $18::timestamptz[], $19::timestamptz[], $20::timestamptz[], $21::timestamptz[], $22::text[])
     AS u(org_id, id, incarnation, epoch, base_seq, last_seq, state, cancel_seen, ends_otherwise, released, total,
          completed, failed, skipped, running, cancelled, progress, start_time, end_time, deadline_time, wake_time,
          failure)
WHERE e.org_id = u.org_id AND e.id = u.id
  AND e.incarnation = u.incarnation AND e.epoch = u.epoch AND e.last_seq = u.base_seq
  AND (u.cancel_seen OR e.cancel_time IS NULL OR NOT u.ends_otherwise)
RETURNING e.id"""

_UPSERT_STEPS = """
INSERT INTO steps AS s (org_id, execution_id, path, handler, state, attempt, failures, progress, input, output, failure,
    failed_attempts, end_time, assigned, skip_reason, start_time, attempt_time, wake_time, end_seq, worker)
SELECT u.org_id, u.execution_id, u.path, u.handler, u.state, u.attempt, u.failures, u.progress, u.input::jsonb,
       u.output::jsonb, u.failure::jsonb, u.failed_attempts::jsonb, u.end_time, u.assigned::jsonb, u.skip_reason,
       u.start_time, u.attempt_time, u.wake_time, u.end_seq, u.worker
FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::int[], $7::int[], $8::int[], $9::text[],
            $10::text[], $11::text[], $12::text[], $13::timestamptz[], $14::text[], $15::text[], $16::timestamptz[],
            $17::timestamptz[], $18::timestamptz[], $19::int8[], $20::text[])
     AS u(org_id, execution_id, path, handler, state, attempt, failures, progress, input, output, failure,
          failed_attempts, end_time, assigned, skip_reason, start_time, attempt_time, wake_time, end_seq, worker)
ON CONFLICT (org_id, execution_id, path) DO UPDATE SET
    handler = excluded.handler, state = excluded.state, attempt = excluded.attempt, failures = excluded.failures,
    progress = excluded.progress, input = excluded.input, output = excluded.output, failure = excluded.failure,
    failed_attempts = excluded.failed_attempts, end_time = excluded.end_time, assigned = excluded.assigned,
    skip_reason = excluded.skip_reason, start_time = excluded.start_time, attempt_time = excluded.attempt_time,
    wake_time = excluded.wake_time, end_seq = excluded.end_seq, worker = excluded.worker
WHERE s.end_time IS NULL OR (s.state = 'COMPLETED' AND excluded.state = 'COMPENSATED')"""

_INSERT_EVENTS = """
INSERT INTO events (org_id, execution_id, seq, transition_seq, kind, time, body)
SELECT * FROM unnest($1::text[], $2::uuid[], $3::int8[], $4::int8[], $5::text[], $6::timestamptz[], $7::bytea[])"""

_SET_RESULTS = """
UPDATE execution_payloads p SET result = u.result::jsonb
FROM unnest($1::text[], $2::uuid[], $3::text[]) AS u(org_id, id, result)
WHERE p.org_id = u.org_id AND p.execution_id = u.id"""


async def flush(connection: _Connection, units: Sequence[Unit]) -> Mapping[Unit, Outcome]:
    """Write the units in one transaction and return what became of each; only after the commit.

    Whatever it raises, the transaction is not known to be committed; if a PersistenceError or an error of the
    server on a connection that lives, it is rolled back.
    """
    await connection.execute("BEGIN")
    try:
        outcomes = await _write(connection, units)
    except (PersistenceError, asyncpg.PostgresError, UnicodeError):
        if not connection.is_closed():
            await connection.execute("ROLLBACK")
        raise
    answer = await connection.execute("COMMIT")
    if answer != "COMMIT":
        raise PersistenceError("the database rolled the transaction back")
    return outcomes


async def _write(connection: _Connection, units: Sequence[Unit]) -> dict[Unit, Outcome]:
    creations = [unit for unit in units if isinstance(unit, Creation)]
    groups = [unit for unit in units if isinstance(unit, Group)]
    outcomes: dict[Unit, Outcome] = {}
    written: list[Creation] = []
    steps: list[Row] = []
    events: list[Row] = []
    if creations:
        outcomes, written = await _create(connection, creations)
        for creation in written:
            steps += creation.step_rows
            events += creation.event_rows
    if groups:
        moved = await _advance(connection, groups)
        for group in groups:
            if group.last.execution_id in moved:
                outcomes[group] = CommitResult.COMMITTED
                steps += group.steps.values()
                events += group.event_rows
            else:
                outcomes[group] = CommitResult.FENCED
    await _write_payloads(connection, written, [g for g in groups if outcomes[g] is CommitResult.COMMITTED])
    await _write_steps(connection, steps)
    if events:
        await connection.execute(_INSERT_EVENTS, *columns(events))
    return outcomes


async def _advance(connection: _Connection, groups: list[Group]) -> set[UUID]:
    # In order of ids, so that no two transactions wait for each other.
    rows = sorted((group.row() for group in groups), key=lambda row: row[1])
    return {row[0] for row in await connection.fetch(_UPDATE_EXECUTIONS, *columns(rows))}


async def _write_steps(connection: _Connection, rows: list[Row]) -> None:
    if not rows:
        return
    answer = await connection.execute(_UPSERT_STEPS, *columns(rows))
    if int(answer.rsplit(" ", 1)[1]) != len(rows):
        raise PersistenceError("refused: a step has ended and is never overwritten")


async def _write_payloads(connection: _Connection, written: list[Creation], groups: list[Group]) -> None:
    if written:
        await connection.execute(_INSERT_PAYLOADS, *columns([creation.payload_row for creation in written]))
    results = [(g.last.org, g.last.execution_id, g.result) for g in groups if g.result is not None]
    if results:
        await connection.execute(_SET_RESULTS, *columns(results))


async def _create(connection: _Connection, creations: list[Creation]) -> tuple[dict[Unit, Outcome], list[Creation]]:
    """Insert what is new; return the outcome of each creation and those whose other rows are to be written."""
    live = await _live_workflows(connection, creations)
    wanted = [creation for creation in creations if (creation.execution.org, creation.execution.workflow_id) in live]
    fresh = await _reserve(connection, wanted)
    outcomes: dict[Unit, Outcome] = {}
    written: list[Creation] = []
    inserted = await _insert(connection, [creation for creation in wanted if creation in fresh])
    for creation in fresh:
        if creation.execution.id in inserted:
            written.append(creation)
            outcomes[creation] = _created(creation)
        elif creation.suspect:
            outcomes[creation] = _created(creation)
        else:
            raise PersistenceError(f"refused: there is an execution {creation.execution.id} already")
    others = [creation for creation in creations if creation not in fresh]
    if others:
        outcomes |= await _repeated(connection, others)
    return outcomes, written


async def _live_workflows(connection: _Connection, creations: list[Creation]) -> set[tuple[str, UUID]]:
    keys = sorted({(c.execution.org, c.execution.workflow_id) for c in creations})
    return {(row[0], row[1]) for row in await connection.fetch(_LIVE_WORKFLOWS, *columns(keys))}


async def _reserve(connection: _Connection, creations: list[Creation]) -> dict[Creation, None]:
    """Take the request ids; return the creations that are new, those without a request id among them."""
    first: dict[tuple[str, str], Creation] = {}
    for creation in creations:
        if creation.execution.request_id:
            first.setdefault((creation.execution.org, creation.execution.request_id), creation)
    taken: set[Any] = set()
    if first:
        # In order of request ids, so that no two transactions wait for each other.
        rows = [(*key, c.execution.id, c.new.content_hash, c.execution.create_time) for key, c in sorted(first.items())]
        taken = {row[0] for row in await connection.fetch(_INSERT_REQUESTS, *columns(rows))}
    return {c: None for c in creations if not c.execution.request_id or c.execution.id in taken}


async def _insert(connection: _Connection, creations: list[Creation]) -> set[UUID]:
    if not creations:
        return set()
    rows = [creation.row for creation in creations]
    return {row[0] for row in await connection.fetch(_INSERT_EXECUTIONS, *columns(rows))}


async def _repeated(connection: _Connection, creations: list[Creation]) -> dict[Unit, Outcome]:
    keys = [(c.execution.org, c.execution.request_id) for c in creations]
    rows = await connection.fetch(_KNOWN_REQUESTS, *columns(keys))
    known = {(row["request_org"], row["request"]): row for row in rows}
    return {c: _answer(c, known.get(key)) for c, key in zip(creations, keys, strict=True)}


def _answer(creation: Creation, known: asyncpg.Record | None) -> Outcome:
    if known is None or not creation.execution.request_id:
        return WorkflowNotFoundError(str(creation.execution.workflow_id))
    if known["content_hash"] != creation.new.content_hash:
        return RequestIdReusedError(creation.execution.request_id)
    if known["id"] is None:
        return ExecutionNotFoundError(known["execution_id"])
    is_ours = creation.suspect and known["execution_id"] == creation.execution.id
    return Created(execution(known), is_ours)


def _created(creation: Creation) -> Created:
    made = creation.execution
    return Created(made if isinstance(made.tags, tuple) else replace(made, tags=tuple(made.tags)), True)
