"""The usual case of a flush in one statement: nothing is fenced, no request id known, and one round trip does it all.

The statement demands that all of it comes true, and else undoes itself by dividing by zero; then the batch is written
step by step, which tells one outcome from another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg
from msgspec.structs import replace

from persistence import failpoints
from persistence.postgres.commit import columns
from persistence.postgres.commit.encoding import joined
from persistence.postgres.commit.statements import single
from persistence.postgres.commit.units import Creation, Group, Outcome, Unit, missing_payloads, part_rows
from persistence.postgres.connection import Connection
from persistence.transition import CommitResult, Created


async def write_single(connection: Connection, units: Sequence[Unit]) -> dict[Unit, Outcome] | None:
    """Write the units as one statement and return their outcomes; None when nothing was written.

    Raises what the driver raises: after an error of the server nothing was written, after another it is unknown.
    """
    creations = [unit for unit in units if isinstance(unit, Creation)]
    groups = sorted((unit for unit in units if isinstance(unit, Group)), key=lambda group: group.last.execution_id)
    if any(creation.in_doubt or creation.is_held_back or creation.new.takes for creation in creations):
        return None  # it may be there already, and the workflow may be paused no more; what it takes is counted
    values = _of_transitions(creations, groups)
    if creations:
        values |= _of_creations(creations)
    if missing := missing_payloads(units):
        values["shared"] = joined(missing)
    parts = part_rows(creations, groups)
    values |= {name: joined(rows) for name, rows in parts.items()}
    statement = single(creates=bool(creations), shares=bool(missing), parts=tuple(parts))
    try:
        await _execute(connection, statement.text, statement.arguments(values))
    except asyncpg.DivisionByZeroError:
        return None
    outcomes: dict[Unit, Outcome] = dict.fromkeys(groups, CommitResult.COMMITTED)
    return outcomes | {creation: created(creation) for creation in creations}


def created(creation: Creation) -> Created:
    """Return the answer to a creation that was written."""
    made = creation.execution
    return Created.anew(creation.new, made if isinstance(made.tags, tuple) else replace(made, tags=tuple(made.tags)))


async def _execute(connection: Connection, statement: str, arguments: Sequence[Any]) -> None:
    if not failpoints.is_armed("flush.mid_batch"):
        await connection.execute(statement, *arguments)
        return
    answer = asyncio.ensure_future(connection.execute(statement, *arguments))
    answer.add_done_callback(lambda done: done.cancelled() or done.exception())
    await asyncio.sleep(0)  # it is on its way from here on
    await failpoints.reach("flush.mid_batch")
    await answer


def _of_transitions(creations: Sequence[Creation], groups: Sequence[Group]) -> dict[str, Any]:
    items: Sequence[Creation | Group] = [*creations, *groups]
    steps = [row for item in items for row in item.step_rows]
    return {
        "steps": joined(steps),
        "step_count": len(steps),
        "history": joined([row for item in items for row in item.history_rows]),
        "changes": joined([group.row for group in groups]),
        "change_count": len(groups),
    }


def _of_creations(creations: Sequence[Creation]) -> dict[str, Any]:
    workflows = sorted({creation.workflow for creation in creations})
    # In order of request ids, so that no two transactions wait for each other.
    asked = sorted(
        (creation for creation in creations if creation.execution.request_id),
        key=lambda creation: creation.key,
    )
    return {
        "workflow_orgs": [org for org, _, _ in workflows],
        "workflow_ids": [workflow_id for _, workflow_id, _ in workflows],
        "workflow_revisions": [revision for _, _, revision in workflows],
        "requests": joined([columns.REQUEST.encode(creation.new) for creation in asked]),
        "request_count": len(asked),
        "executions": joined([creation.row for creation in creations]),
        "execution_count": len(creations),
        "inputs": joined([creation.input_row for creation in creations]),
    }
