"""Reads of executions what it takes to drive them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import inf
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from persistence.model import LOADED_AT_ONCE, UNREAD, Execution, ExecutionDetail, Step, StepKey, Wanted
from persistence.postgres import mending, records
from persistence.postgres.connection import Session
from persistence.postgres.details import detail
from persistence.postgres.step_payloads import FIRST, ROW, Reading, in_parts, length, steps_within, whole
from persistence.signals import Signal

# Key by key (OFFSET 0 keeps it so): a plan made while the tables were small would hash and read all of them.
# What is driven has no result yet.
_PAYLOADS = """
SELECT p.* FROM unnest($1::text[], $2::uuid[]) AS u(org_id, id), LATERAL (
    SELECT p.execution_id, p.input, p.edit, p.vars, p.dry_run, NULL AS result,
        (SELECT e.signals FROM executions e WHERE e.org_id = u.org_id AND e.id = u.id) AS signals,
        (SELECT e.edited_vars FROM executions e WHERE e.org_id = u.org_id AND e.id = u.id) AS edited_vars
    FROM execution_inputs p WHERE p.org_id = u.org_id AND p.execution_id = u.id OFFSET 0) p"""

_DRIVEN = Reading("output", "assigned", "failed_attempts", "failure")
_OUTPUTS = Reading("output", "failed_attempts", "failure")
_ASSIGNED = Reading("assigned")
_INPUTS = Reading("input")

_STEPS = _DRIVEN.outlines_of_each(
    "unnest($1::text[], $2::uuid[]) AS u(org_id, id)",
    "SELECT * FROM steps s WHERE s.org_id = u.org_id AND s.execution_id = u.id OFFSET 0",
    "s.end_time IS NOT NULL, s.position, s.path, s.iteration",
    "w.execution_id, w.path, w.iteration",
)
_CHOSEN = """
    SELECT s.*, u.place
    FROM unnest($4::text[], $5::int[]) WITH ORDINALITY AS u(path, iteration, place), LATERAL (
    SELECT * FROM steps s
    WHERE s.org_id = $1 AND s.execution_id = $2 AND s.path = u.path AND s.iteration = u.iteration OFFSET 0) s"""


async def details(session: Session, executions: Sequence[Execution]) -> list[ExecutionDetail]:
    """Return the executions to drive them, with one statement for the payloads and one for the steps of all of them."""
    if not executions:
        return []
    keys = [execution.org for execution in executions], [execution.id for execution in executions]
    payloads = {row["execution_id"]: row for row in await session.fetch(_PAYLOADS, *keys)}
    steps: dict[UUID, list[Step]] = defaultdict(list)
    omitted: dict[UUID, list[StepKey]] = defaultdict(list)
    lost: dict[UUID, list[str]] = defaultdict(list)
    signals = _signals(payloads.values(), lost)
    read = 0
    for row in await _shown(session, executions, await session.fetch(_STEPS, *keys, LOADED_AT_ONCE)):
        execution_id, step = row["execution_id"], mending.step(row, lost)
        if row["is_whole"]:
            steps[execution_id].append(replace(step, input=UNREAD))
        else:
            steps[execution_id].append(replace(step, input=UNREAD, output=UNREAD, assigned=UNREAD))
            omitted[execution_id].append(step.key)
        if (read := read + length(row) + ROW) > FIRST:  # others have their turn
            read = 0
            await asyncio.sleep(0)
    return [
        replace(
            detail(execution, payloads.get(execution.id), steps.get(execution.id, ()), lost.get(execution.id, ())),
            omitted=frozenset(omitted.get(execution.id, ())),
            signals=signals.get(execution.id, ()),
        )
        for execution in executions
    ]


def _signals(rows: Iterable[Any], lost: dict[UUID, list[str]]) -> dict[UUID, Sequence[Signal]]:
    """Return the signals that executions keep; what cannot be read is added to what of them is lost."""
    found: dict[UUID, Sequence[Signal]] = {}
    for row in rows:
        try:
            found[row["execution_id"]] = records.signals(row["signals"])
        except Exception:
            lost[row["execution_id"]].append("signals")
    return found


async def filled(session: Session, taken: ExecutionDetail, wanted: Wanted) -> ExecutionDetail:
    """Return an execution with what is wanted of its steps, read a few at a time."""
    steps, unreadable = dict[StepKey, Step](), list(taken.unreadable)
    async for part in in_parts(taken.steps):
        steps.update((step.key, step) for step in part)
    for reading, keys in (
        (_OUTPUTS, taken.omitted & wanted.outputs),
        (_ASSIGNED, taken.omitted & wanted.assigned),
        (_INPUTS, steps.keys() & wanted.inputs),
    ):
        if not keys:
            continue
        await asyncio.sleep(0)
        asked = map(list, zip(*sorted(keys), strict=True))
        rows = await session.fetch(_QUERIES[reading], taken.execution.org, taken.execution.id, FIRST, *asked)
        found = await steps_within(session, taken.execution, rows, inf, reading)
        async for part in in_parts(found.steps):
            for step in part:
                steps[step.key] = replace(steps[step.key], **{name: getattr(step, name) for name in reading.names})
        unreadable += found.unreadable
    if len(unreadable) > len(taken.unreadable):
        mending.tell(taken.execution.id, unreadable)
    return replace(taken, steps=tuple(steps.values()), unreadable=tuple(unreadable))


async def _shown(session: Session, executions: Sequence[Execution], rows: Sequence[Any]) -> Sequence[Any]:
    """Return the rows with the payloads that they share, where those are to be read at all."""
    loaded: list[Any] = []
    async for part in in_parts(rows):
        loaded += (row for row in part if row["is_whole"])
    read, shown = iter(await whole(session, executions, loaded, _DRIVEN)), list[Any]()
    async for part in in_parts(rows):
        shown += (next(read) if row["is_whole"] else row for row in part)
    return shown


_QUERIES = {reading: reading.outlines(_CHOSEN, "place") for reading in (_OUTPUTS, _ASSIGNED, _INPUTS)}
