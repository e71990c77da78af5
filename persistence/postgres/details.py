"""Reads executions with all that hangs on them, as far as it is to be shown."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
from msgspec.structs import replace

from persistence.model import EditedVariable, Execution, ExecutionDetail, ExecutionOutcome, ExecutionSteps, Step
from persistence.postgres import mending, records
from persistence.postgres.connection import Session
from persistence.postgres.step_payloads import EVERYTHING, FIRST, steps_within

_PAYLOAD = """
SELECT p.input, p.edit, p.vars, p.dry_run, e.result, e.edited_vars FROM executions e
LEFT JOIN execution_inputs p ON p.org_id = e.org_id AND p.execution_id = e.id
WHERE e.org_id = $1 AND e.id = $2"""
_OUTLINES = EVERYTHING.outlines(
    "SELECT * FROM steps WHERE org_id = $1 AND execution_id = $2", "position, items NULLS FIRST, path, iteration"
)
# The variables, which are among the payloads, are made of what steps far behind assigned as well.
_FIRST_OUTLINES = EVERYTHING.outlines(
    """SELECT s.* FROM steps s WHERE s.org_id = $1 AND s.execution_id = $2
           AND ($3 > 0 AND (s.assigned IS NOT NULL OR s.shared->'assigned' IS NOT NULL) OR (s.path, s.iteration) IN (
               SELECT path, max(iteration) FROM steps WHERE org_id = $1 AND execution_id = $2
               GROUP BY position, items, path ORDER BY position, items NULLS FIRST, path LIMIT $4))""",
    "position, items NULLS FIRST, path, iteration",
)
_OUTLINES_OF = EVERYTHING.outlines(
    """SELECT s.*, u.place FROM unnest($4::text[]) WITH ORDINALITY AS u(path, place), LATERAL (
           SELECT * FROM steps s WHERE s.org_id = $1 AND s.execution_id = $2 AND s.path = u.path
           AND ($5 = 0 OR s.iteration = $5) ORDER BY s.iteration DESC LIMIT 1) s""",
    "place",
)


async def detail_within(session: Session, execution: Execution, most: int, first: int | None) -> ExecutionDetail:
    """Return an execution with its payloads, and with those of its first steps, up to `most` characters of them.

    With `first` the steps are as ExecutionRepository has it.
    """
    payload = await session.fetchrow(_PAYLOAD, execution.org, execution.id)
    if first is not None and execution.counts.total > first:
        rows = await session.fetch(_FIRST_OUTLINES, execution.org, execution.id, min(most, FIRST), first)
    else:
        rows = await session.fetch(_OUTLINES, execution.org, execution.id, min(most, FIRST))
    found = await steps_within(session, execution, rows, most)
    await asyncio.sleep(0)  # others have their turn before a hundred thousand steps are sorted
    steps = sorted(found.steps, key=lambda step: step.key)
    return replace(detail(execution, payload, steps, found.unreadable), omitted=found.omitted)


async def chosen_within(
    session: Session, execution: Execution, paths: Sequence[str], most: int, iteration: int
) -> ExecutionSteps:
    """Return the steps with these paths, in their order, the first with payloads, up to `most` characters of them.

    They are as ExecutionRepository has it.
    """
    rows = await session.fetch(_OUTLINES_OF, execution.org, execution.id, min(most, FIRST), paths, iteration)
    found = await steps_within(session, execution, rows, most)
    mending.tell(execution.id, list(found.unreadable))
    return found


def outcome(row: asyncpg.Record) -> ExecutionOutcome:
    """Return the execution that a row holds, with its result."""
    execution = mending.execution(row)
    try:
        return ExecutionOutcome(execution, records.decoded(row["result"]))
    except Exception:
        mending.tell(execution.id, ["result"])
        return ExecutionOutcome(replace(execution, unreadable=(*execution.unreadable, "result")), None)


def without_details(execution: Execution) -> ExecutionDetail:
    """Return an execution of whose payloads and steps nothing can be read."""
    return ExecutionDetail(execution, {}, None, (), (*execution.unreadable, "input", "result", "steps"))


def detail(
    execution: Execution, payload: asyncpg.Record | None, steps: Sequence[Step], lost: Sequence[str]
) -> ExecutionDetail:
    """Return an execution with the row of its payloads and with steps, of which `lost` cannot be read."""
    given, result, edit, vars, unreadable = {}, None, None, dict[str, Any](), [*execution.unreadable, *lost]
    edited: Mapping[str, EditedVariable] = {}
    dry_run = None
    try:
        given = records.document(payload["input"] if payload else None)
    except Exception:
        unreadable.append("input")
    try:
        result = records.decoded(payload["result"]) if payload else None
    except Exception:
        unreadable.append("result")
    try:
        edit = records.edit(payload["edit"]) if payload else None
    except Exception:
        unreadable.append("edit")
    try:
        vars = records.document((payload and payload["vars"]) or "{}")
    except Exception:
        unreadable.append("vars")
    try:
        edited = records.edited(payload["edited_vars"]) if payload else {}
    except Exception:
        unreadable.append("edited_vars")
    try:
        dry_run = records.dry_run(payload["dry_run"]) if payload else None
    except Exception:
        unreadable.append("dry_run")
    if execution.is_dry_run != (dry_run is not None) and "dry_run" not in unreadable:
        unreadable.append("dry_run")  # without its mocks, a dry run would send what it is not to
    if unreadable:
        mending.tell(execution.id, unreadable)
    found = execution, given, result, tuple(steps), tuple(unreadable)
    return ExecutionDetail(*found, edit=edit, vars=vars, edited=edited, dry_run=dry_run)
