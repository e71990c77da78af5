"""The other case of a flush: a few statements over sets, each of whose answers tells one outcome from another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from persistence import failpoints
from persistence.errors import PersistenceError, WorkflowNotFoundError
from persistence.postgres.commit import columns, statements
from persistence.postgres.commit.breakpoints import Live, lock_breakpoints
from persistence.postgres.commit.encoding import joined
from persistence.postgres.commit.requests import repeated
from persistence.postgres.commit.single import created
from persistence.postgres.commit.units import (
    Creation,
    Group,
    Outcome,
    Unit,
    WorkflowKey,
    is_written,
    missing_payloads,
    part_rows,
)
from persistence.postgres.connection import Session
from persistence.transition import CommitResult


async def write_stepwise(connection: Session, units: Sequence[Unit]) -> dict[Unit, Outcome]:
    """Write the units in the transaction that has begun, a statement for each table, and return what becomes of each.

    Raises PersistenceError when one of them can only be refused, and what the driver raises.
    """
    creations = [unit for unit in units if isinstance(unit, Creation)]
    groups = [unit for unit in units if isinstance(unit, Group)]
    outcomes: dict[Unit, Outcome] = {}
    written: list[Creation] = []
    steps: list[bytes] = []
    history: list[bytes] = []
    if creations:
        outcomes, written = await _create(connection, creations)
        for creation in written:
            steps += creation.step_rows
            history += creation.history_rows
    if groups:
        moved = await _advance(connection, groups)
        for group in groups:
            if group.last.execution_id in moved:
                outcomes[group] = CommitResult.COMMITTED
                steps += group.step_rows
                history += group.history_rows
            else:
                outcomes[group] = CommitResult.FENCED
    await failpoints.reach("flush.mid_batch")
    committed = [group for group in groups if outcomes[group] is CommitResult.COMMITTED]
    if written:
        await connection.execute(statements.INSERT_INPUTS.text, joined(creation.input_row for creation in written))
    for name, rows in part_rows(written, committed).items():
        await connection.execute(statements.PARTS[name].text, joined(rows))
    if missing := missing_payloads(unit for unit, outcome in outcomes.items() if is_written(outcome)):
        await connection.execute(statements.INSERT_SHARED.text, joined(missing))
    await _write_steps(connection, steps)
    if history:
        await connection.execute(statements.INSERT_HISTORY.text, joined(history))
    return outcomes


async def _advance(connection: Session, groups: list[Group]) -> set[UUID]:
    # In order of ids, so that no two transactions wait for each other.
    changes = [group.row for group in sorted(groups, key=lambda group: group.last.execution_id)]
    return {row[0] for row in await connection.fetch(statements.UPDATE_EXECUTIONS.text, joined(changes))}


async def _write_steps(connection: Session, step_rows: list[bytes]) -> None:
    if not step_rows:
        return
    answer = await connection.execute(statements.UPSERT_STEPS.text, joined(step_rows))
    if int(answer.rsplit(" ", 1)[1]) != len(step_rows):
        raise PersistenceError("refused: a step has ended and is never overwritten")


async def _create(connection: Session, creations: list[Creation]) -> tuple[dict[Unit, Outcome], list[Creation]]:
    """Insert what is new; return the outcome of each creation and those whose other rows are to be written."""
    reserved = await _reserve(connection, creations)
    live = await _live_workflows(connection, creations)
    counted = await lock_breakpoints(connection, live, creations)
    fresh = {creation: None for creation in reserved if creation.workflow in live and counted.take(creation)}
    refused = [creation for creation in reserved if creation not in fresh]
    if refused:
        keys = [each.execution.org for each in refused], [each.execution.request_id for each in refused]
        await connection.execute(statements.GIVE_BACK_REQUESTS.text, *keys)
        # Until the transaction ends nobody else gets what it gave back, so nothing is waited for out of order.
        given_back = set(zip(*keys, strict=True))
        heirs = [each for each in creations if each.workflow in live and each.key in given_back]
        fresh |= await _reserve(connection, [each for each in heirs if each not in refused and not counted.has(each)])
    outcomes: dict[Unit, Outcome] = {each: counted.refusal(each, live) for each in refused}
    written: list[Creation] = []
    for creation in fresh:
        creation.hold_back(live[creation.workflow].is_paused)
    inserted = await _insert(connection, list(fresh))
    for creation in fresh:
        if creation.execution.id in inserted:
            written.append(creation)
            outcomes[creation] = created(creation)
        elif creation.in_doubt:
            outcomes[creation] = created(creation)
        else:
            raise PersistenceError(f"refused: there is an execution {creation.execution.id} already")
    await counted.write(connection, written)
    others = [creation for creation in creations if creation not in outcomes]
    if others:
        answers = await repeated(connection, others)
        # What the same request id had reserved was refused, and so nothing was made under it.
        missed = {each for each, answer in answers.items() if isinstance(answer, WorkflowNotFoundError)}
        outcomes |= answers | {each: counted.refusal(each, live) for each in others if each in missed}
    return outcomes, written


async def _live_workflows(connection: Session, creations: Iterable[Creation]) -> dict[WorkflowKey, Live]:
    """Lock the workflows that are there, and return how each takes new executions.

    After the request ids, as whoever changes one under a request id does.
    """
    keys = sorted({creation.workflow for creation in creations})
    if not keys:
        return {}
    found = await connection.fetch(statements.LIVE_WORKFLOWS.text, *zip(*keys, strict=True))
    return {(org, workflow_id, revision): Live(*how) for org, workflow_id, revision, *how in found}


async def _reserve(connection: Session, creations: list[Creation]) -> dict[Creation, None]:
    """Take the request ids; return the creations that are new, those without a request id among them."""
    first: dict[tuple[str, str], Creation] = {}
    for creation in creations:
        if creation.execution.request_id:
            first.setdefault(creation.key, creation)
    taken: set[Any] = set()
    if first:
        # In order of request ids, so that no two transactions wait for each other.
        requests = [columns.REQUEST.encode(first[key].new) for key in sorted(first)]
        taken = {row[0] for row in await connection.fetch(statements.INSERT_REQUESTS.text, joined(requests))}
    return {c: None for c in creations if not c.execution.request_id or c.execution.id in taken}


async def _insert(connection: Session, creations: list[Creation]) -> set[UUID]:
    if not creations:
        return set()
    made = joined(creation.row for creation in creations)
    return {row[0] for row in await connection.fetch(statements.INSERT_EXECUTIONS.text, made)}
