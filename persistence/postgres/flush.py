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
from persistence.model import CommitResult, Created, Execution
from persistence.postgres import rows
from persistence.postgres.batch import Creation, Group, Outcome, Unit
from persistence.postgres.connection import Session
from persistence.postgres.records import execution

_Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

# The lock keeps a workflow from being deleted beside a creation that would then have missed the cancelling.
_LIVE_WORKFLOWS = """
SELECT w.org_id, w.id FROM unnest($1::text[], $2::uuid[]) AS u(org_id, id)
JOIN workflows w ON w.org_id = u.org_id AND w.id = u.id
WHERE w.delete_time IS NULL FOR KEY SHARE OF w"""

_INSERT_REQUESTS = f"""
INSERT INTO execution_requests ({", ".join(rows.REQUEST)}) {rows.select(rows.REQUEST)}
ON CONFLICT DO NOTHING RETURNING execution_id"""

_KNOWN_REQUESTS = f"""
SELECT r.org_id AS request_org, r.request_id AS request, r.content_hash, r.execution_id,
       {", ".join(f"e.{column}" for column in rows.EXECUTION)}
FROM unnest($1::text[], $2::text[]) AS u(org_id, request_id)
JOIN execution_requests r ON r.org_id = u.org_id AND r.request_id = u.request_id
LEFT JOIN executions e ON e.org_id = r.org_id AND e.id = r.execution_id"""  # noqa: S608 - our own columns

_INSERT_EXECUTIONS = f"""
INSERT INTO executions ({", ".join(rows.EXECUTION)}) {rows.select(rows.EXECUTION)}
ON CONFLICT DO NOTHING RETURNING id"""

_INSERT_PAYLOADS = f"""
INSERT INTO execution_payloads ({", ".join(rows.PAYLOAD)}) {rows.select(rows.PAYLOAD)}"""

_SAME_NAMED = (
    "state", "last_seq", "steps_total", "steps_completed", "steps_failed", "steps_skipped", "steps_running",
    "steps_cancelled", "progress", "start_time", "end_time", "deadline_time", "failure",
)  # fmt: skip
_UPDATE_EXECUTIONS = f"""
UPDATE executions e SET {", ".join(f"{name} = u.{name}" for name in _SAME_NAMED)},
    incarnation = CASE WHEN NOT u.released THEN e.incarnation END,
    wake_time = CASE
        WHEN NOT u.released OR u.end_time IS NOT NULL THEN NULL
        -- A wish that the owner gave up without having seen must not wait for a timer.
        WHEN e.cancel_time IS NOT NULL AND NOT u.cancel_seen THEN clock_timestamp()
        ELSE coalesce(u.wake_time, clock_timestamp()) END
FROM ({rows.select(rows.CHANGE)}) u
WHERE e.org_id = u.org_id AND e.id = u.id
  -- Not `=`: the index of incarnations must never be chosen, it finds all that a replica drives.
  AND e.incarnation IS NOT DISTINCT FROM u.incarnation AND e.epoch = u.epoch AND e.last_seq = u.base_seq
  AND (u.cancel_seen OR e.cancel_time IS NULL OR NOT u.ends_otherwise)
RETURNING e.id"""  # noqa: S608 - our own columns

_STEP_KEY = ("org_id", "execution_id", "path")
_UPSERT_STEPS = f"""
INSERT INTO steps AS s ({", ".join(rows.STEP)}) {rows.select(rows.STEP)}
ON CONFLICT ({", ".join(_STEP_KEY)}) DO UPDATE SET
    {", ".join(f"{name} = excluded.{name}" for name in rows.STEP if name not in _STEP_KEY)}
WHERE s.end_time IS NULL OR (s.state = 'COMPLETED' AND excluded.state = 'COMPENSATED')"""

_INSERT_EVENTS = f"INSERT INTO events ({', '.join(rows.EVENT)}) {rows.select(rows.EVENT)}"

_SET_RESULTS = f"""
UPDATE execution_payloads p SET result = u.result FROM ({rows.select(rows.PAYLOAD)}) u
WHERE p.org_id = u.org_id AND p.execution_id = u.execution_id"""  # noqa: S608 - our own columns


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
    steps: list[bytes] = []
    events: list[bytes] = []
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
                steps += group.step_rows
                events += group.event_rows
            else:
                outcomes[group] = CommitResult.FENCED
    await _write_payloads(connection, written, [g for g in groups if outcomes[g] is CommitResult.COMMITTED])
    await _write_steps(connection, steps)
    if events:
        await connection.execute(_INSERT_EVENTS, rows.joined(events))
    return outcomes


async def _advance(connection: _Connection, groups: list[Group]) -> set[UUID]:
    # In order of ids, so that no two transactions wait for each other.
    changes = [group.row for group in sorted(groups, key=lambda group: group.last.execution_id)]
    return {row[0] for row in await connection.fetch(_UPDATE_EXECUTIONS, rows.joined(changes))}


async def _write_steps(connection: _Connection, step_rows: list[bytes]) -> None:
    if not step_rows:
        return
    answer = await connection.execute(_UPSERT_STEPS, rows.joined(step_rows))
    if int(answer.rsplit(" ", 1)[1]) != len(step_rows):
        raise PersistenceError("refused: a step has ended and is never overwritten")


async def _write_payloads(connection: _Connection, written: list[Creation], groups: list[Group]) -> None:
    if written:
        await connection.execute(_INSERT_PAYLOADS, rows.joined(creation.payload_row for creation in written))
    results = [group.result_row for group in groups if group.result_row is not None]
    if results:
        await connection.execute(_SET_RESULTS, rows.joined(results))


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
    return {(row[0], row[1]) for row in await connection.fetch(_LIVE_WORKFLOWS, *zip(*keys, strict=True))}


async def _reserve(connection: _Connection, creations: list[Creation]) -> dict[Creation, None]:
    """Take the request ids; return the creations that are new, those without a request id among them."""
    first: dict[tuple[str, str], Creation] = {}
    for creation in creations:
        if creation.execution.request_id:
            first.setdefault((creation.execution.org, creation.execution.request_id), creation)
    taken: set[Any] = set()
    if first:
        # In order of request ids, so that no two transactions wait for each other.
        requests = [rows.request_row(first[key].new) for key in sorted(first)]
        taken = {row[0] for row in await connection.fetch(_INSERT_REQUESTS, rows.joined(requests))}
    return {c: None for c in creations if not c.execution.request_id or c.execution.id in taken}


async def _insert(connection: _Connection, creations: list[Creation]) -> set[UUID]:
    if not creations:
        return set()
    made = rows.joined(creation.row for creation in creations)
    return {row[0] for row in await connection.fetch(_INSERT_EXECUTIONS, made)}


async def find_request(session: Session, org: str, request_id: str, content_hash: bytes) -> Execution | None:
    """Return the execution that a request id started. Raises RequestIdReusedError, ExecutionNotFoundError."""
    known = await session.fetchrow(_KNOWN_REQUESTS, [org], [request_id])
    if known is None:
        return None
    if known["content_hash"] != content_hash:
        raise RequestIdReusedError(request_id)
    if known["id"] is None:
        raise ExecutionNotFoundError(known["execution_id"])
    return execution(known)


async def _repeated(connection: _Connection, creations: list[Creation]) -> dict[Unit, Outcome]:
    keys = [(c.execution.org, c.execution.request_id) for c in creations]
    found = await connection.fetch(_KNOWN_REQUESTS, *zip(*keys, strict=True))
    known = {(row["request_org"], row["request"]): row for row in found}
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
