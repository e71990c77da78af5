"""What is paused begins nothing, and goes on with all that fell due (CA5): told by the events alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flowkeep.v1.event_pb2 import ExecutionEvent
from tests.simulation.folding import opened
from tests.simulation.timing import seconds

if TYPE_CHECKING:
    from tests.simulation.world import World

BEGIN = frozenset({"started", "step_started", "step_skipped"})
GONE_ON = frozenset({"step_started", "step_completed", "step_failed"})
GOES_ON = 10.0
"""Seconds after all faults in which what fell due while it was paused has gone on."""


def check_pauses(world: World) -> Iterator[str]:
    """Give what began while its execution was paused, what was forgotten, and pauses that were not kept."""
    kept: set[UUID | None] = {
        answer.execution_id for answer in world.history.answers if answer.kind == "pause" and answer.outcome == "ok"
    }
    for execution_id, row in world.database.tables.executions.items():
        messages = opened(row.events)
        problems = [*_begun(messages), *_forgotten(messages, world.scenario.healed_at)]
        told = {message.WhichOneof("kind") for message in messages}
        if execution_id in kept and not told & {"paused", "reopened"} and row.execution.state.value == "COMPLETED":
            problems.append("it was to be paused, completed, and says nothing of that")
        yield from (f"CA5: {problem} ({execution_id})" for problem in problems)


def check_halts(world: World) -> Iterator[str]:
    """Give what was created while its workflow was paused, and started before the resume."""
    created = {write.execution_id: write.committed for write in world.history.writes if write.base_seq == 0}
    for number, begin, end in world.history.halts:
        for write in world.history.writes:
            row = world.database.tables.executions.get(write.execution_id)
            is_of_it = row is not None and row.execution.workflow_id.int == number + 1
            is_within = begin <= created.get(write.execution_id, 0.0) and write.committed < end
            if is_of_it and is_within and any(event.kind == "started" for event in write.events):
                yield f"CA9: {write.execution_id} started while its workflow was paused"


def _begun(messages: list[ExecutionEvent]) -> Iterator[str]:
    is_paused = False
    for message in messages:
        kind = message.WhichOneof("kind") or ""
        is_paused = kind == "paused" or (is_paused and kind not in ("resumed", "cancelling", "finished"))
        if is_paused and kind in BEGIN:
            yield f"event {message.seq}, {kind}, comes while it is paused"


def _forgotten(messages: list[ExecutionEvent], healed_at: float) -> Iterator[str]:
    """Give what was due when its execution was resumed, and had not gone on when time was up long after that."""
    due: dict[str, float] = {}
    owed: dict[str, float] = {}
    for message in messages:
        kind, time = message.WhichOneof("kind") or "", seconds(message.time)
        body: Any = getattr(message, kind)
        match kind:
            case "step_waiting" if body.wait.HasField("timer"):
                due[body.path] = seconds(body.wait.wake_time)
            case "step_retrying":
                due[body.path] = seconds(body.retry_time)
            case "reopened":
                due, owed = {}, {}
            case "resumed":
                owed = {path: time for path, wake in due.items() if wake <= time}
            case "paused" | "cancelling":
                owed = {}
            case "finished" if body.failure.code == "EXECUTION_TIMEOUT":
                late = {path for path, since in owed.items() if time - max(since, healed_at) > GOES_ON}
                yield from (f"step {path} was due when it was resumed, and forgotten" for path in sorted(late))
        if kind in GONE_ON:
            due.pop(body.path, None)
            owed.pop(body.path, None)
