"""One transaction that writes a batch: a few statements over sets, whatever the number of executions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg

from persistence import failpoints
from persistence.errors import (
    ExecutionNotFoundError,
    PersistenceError,
    RequestIdReusedError,
    WorkflowNotFoundError,
)
from persistence.model import CommitResult, Created, Execution
from persistence.postgres.commit import columns
from persistence.postgres.commit.single import created, write_at_once
from persistence.postgres.commit.statements import (
    INSERT_EVENTS,
    INSERT_EXECUTIONS,
    INSERT_PAYLOADS,
    INSERT_REQUESTS,
    INSERT_SHARED,
    KNOWN_REQUESTS,
    LIVE_WORKFLOWS,
    SET_RESULTS,
    UPDATE_EXECUTIONS,
    UPSERT_STEPS,
)
from persistence.postgres.commit.units import Creation, Group, Outcome, Unit, is_written, missing_payloads
from persistence.postgres.connection import Session
from persistence.postgres.mending import execution

_Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def flush(connection: _Connection, units: Sequence[Unit]) -> Mapping[Unit, Outcome]:
    """Write the units in one transaction and return what became of each; only after the commit.

    Whatever it raises, the transaction is not known to be committed; if a PersistenceError or an error of the
    server on a connection that lives, it is rolled back.
    """
    await failpoints.reach("flush.before_begin")
    outcomes = None if failpoints.are_in_transaction() else await write_at_once(connection, units)
    if outcomes is not None:
        await failpoints.reach("flush.after_commit_before_ack")
        return outcomes
    await connection.execute("BEGIN")
    try:
        outcomes = await _write(connection, units)
        await failpoints.reach("flush.before_commit")
    except (PersistenceError, asyncpg.PostgresError, UnicodeError):
        if not connection.is_closed():
            await connection.execute("ROLLBACK")
        raise
    except BaseException:
        connection.terminate()  # nothing must be written in what is left of the transaction
        raise
    answer = await connection.execute("COMMIT")
    if answer != "COMMIT":
        raise PersistenceError("the database rolled the transaction back")
    await failpoints.reach("flush.after_commit_before_ack")
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
    await failpoints.reach("flush.mid_batch")
    await _write_payloads(connection, written, [g for g in groups if outcomes[g] is CommitResult.COMMITTED])
    if missing := missing_payloads(unit for unit, outcome in outcomes.items() if is_written(outcome)):
        await connection.execute(INSERT_SHARED, columns.joined(missing))
    await _write_steps(connection, steps)
    if events:
        await connection.execute(INSERT_EVENTS, columns.joined(events))
    if written:
        await failpoints.reach("exec.after_insert_before_commit")
    return outcomes


async def _advance(connection: _Connection, groups: list[Group]) -> set[UUID]:
    # In order of ids, so that no two transactions wait for each other.
    changes = [group.row for group in sorted(groups, key=lambda group: group.last.execution_id)]
    return {row[0] for row in await connection.fetch(UPDATE_EXECUTIONS, columns.joined(changes))}


async def _write_steps(connection: _Connection, step_rows: list[bytes]) -> None:
    if not step_rows:
        return
    answer = await connection.execute(UPSERT_STEPS, columns.joined(step_rows))
    if int(answer.rsplit(" ", 1)[1]) != len(step_rows):
        raise PersistenceError("refused: a step has ended and is never overwritten")


async def _write_payloads(connection: _Connection, written: list[Creation], groups: list[Group]) -> None:
    if written:
        await connection.execute(INSERT_PAYLOADS, columns.joined(creation.payload_row for creation in written))
    results = [group.result_row for group in groups if group.result_row is not None]
    if results:
        await connection.execute(SET_RESULTS, columns.joined(results))


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
            outcomes[creation] = created(creation)
        elif creation.suspect:
            outcomes[creation] = created(creation)
        else:
            raise PersistenceError(f"refused: there is an execution {creation.execution.id} already")
    others = [creation for creation in creations if creation not in fresh]
    if others:
        outcomes |= await _repeated(connection, others)
    return outcomes, written


async def _live_workflows(connection: _Connection, creations: list[Creation]) -> set[tuple[str, UUID]]:
    keys = sorted({(c.execution.org, c.execution.workflow_id) for c in creations})
    return {(row[0], row[1]) for row in await connection.fetch(LIVE_WORKFLOWS, *zip(*keys, strict=True))}


async def _reserve(connection: _Connection, creations: list[Creation]) -> dict[Creation, None]:
    """Take the request ids; return the creations that are new, those without a request id among them."""
    first: dict[tuple[str, str], Creation] = {}
    for creation in creations:
        if creation.execution.request_id:
            first.setdefault((creation.execution.org, creation.execution.request_id), creation)
    taken: set[Any] = set()
    if first:
        # In order of request ids, so that no two transactions wait for each other.
        requests = [columns.request_row(first[key].new) for key in sorted(first)]
        taken = {row[0] for row in await connection.fetch(INSERT_REQUESTS, columns.joined(requests))}
    return {c: None for c in creations if not c.execution.request_id or c.execution.id in taken}


async def _insert(connection: _Connection, creations: list[Creation]) -> set[UUID]:
    if not creations:
        return set()
    made = columns.joined(creation.row for creation in creations)
    return {row[0] for row in await connection.fetch(INSERT_EXECUTIONS, made)}


async def find_request(
    session: Session, org: str, request_id: str, content_hashes: Collection[bytes]
) -> Execution | None:
    """Return the execution that a request id started. Raises RequestIdReusedError, ExecutionNotFoundError."""
    known = await session.fetchrow(KNOWN_REQUESTS, [org], [request_id])
    if known is None:
        return None
    if known["content_hash"] not in content_hashes:
        raise RequestIdReusedError(request_id)
    if known["id"] is None:
        raise ExecutionNotFoundError(known["execution_id"])
    return execution(known)


async def _repeated(connection: _Connection, creations: list[Creation]) -> dict[Unit, Outcome]:
    keys = [(c.execution.org, c.execution.request_id) for c in creations]
    found = await connection.fetch(KNOWN_REQUESTS, *zip(*keys, strict=True))
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
