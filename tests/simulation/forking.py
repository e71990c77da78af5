"""A fork is made once and whole, runs nothing that it inherits, and shares nothing with its original (RE3, RE4)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any
from uuid import UUID

from persistence.memory.tables import ExecutionRow
from tests.simulation.folding import opened
from tests.simulation.operators import GIVEN

if TYPE_CHECKING:
    from tests.simulation.world import World


def check_forks(world: World) -> Iterator[str]:
    """Give forks that were lost or made twice, that run what they inherit, or differ from what was recorded."""
    rows = world.database.tables.executions
    yield from _made(world)
    for execution_id, row in rows.items():
        lineage = row.execution.lineage
        if lineage is None:
            continue
        inherited = _inherited(row)
        called = {call.path for call in world.history.calls if call.execution_id == execution_id}
        problems = [f"RE4: step {path} is inherited, and was called" for path in sorted(called & inherited.keys())]
        begun = {
            message.step_started.path
            for message in opened(row.events)
            if message.HasField("step_started") and not message.inherited
        }
        problems += [f"RE4: step {path} is inherited, and begins" for path in sorted(begun & _done_before(row))]
        source = rows[lineage.source]
        for path, output in inherited.items():
            recorded = [step.output for (of, _), step in source.steps.items() if of == path]
            if output not in (*recorded, GIVEN):
                problems.append(f"RE4: step {path} is inherited with an output that was not recorded")
        if shared := _payloads(row) & _payloads(source):
            problems.append(f"RE4: {len(shared)} payloads are shared with the original")
        yield from (f"{problem} ({execution_id})" for problem in problems)


def _made(world: World) -> Iterator[str]:
    """Give requests for forks that made another number of executions than they were told."""
    made: dict[str, list[UUID]] = defaultdict(list)
    for execution_id, row in world.database.tables.executions.items():
        if row.execution.lineage is not None:
            made[row.execution.request_id].append(execution_id)
    for answer in world.history.answers:
        if answer.kind != "fork":
            continue
        told = [answer.execution_id] if answer.outcome == "ok" else []
        if made[answer.detail] != told:
            yield f"RE3: {answer.detail} was told of {told}, and made {made[answer.detail]}"


def _inherited(row: ExecutionRow) -> Mapping[str, Any]:
    """Return the outputs of the steps that a fork inherits, by their paths."""
    return {path: row.steps[path, 1].output for path in sorted(_done_before(row))}


def _done_before(row: ExecutionRow) -> set[str]:
    """Return the steps that have ended by the events that a fork inherits."""
    found = set[str]()
    for message in opened(row.events):
        kind = message.WhichOneof("kind") or ""
        if message.inherited and kind in ("step_completed", "step_skipped", "step_failed"):
            found.add(getattr(message, kind).path)
    return found


def _payloads(row: ExecutionRow) -> set[int]:
    """Return which objects that can be changed the payloads of an execution are, by where they lie in memory."""
    steps = ((step.input, step.output, step.assigned, step.failure) for step in row.steps.values())
    left, found = list(chain((row.input, row.result, row.vars), *steps)), set[int]()
    while left:
        value = left.pop()
        if isinstance(value, dict | list):
            found.add(id(value))
            left += value.values() if isinstance(value, dict) else value
    return found
