"""What is cancelled ends so unless it had ended, and nothing more of it begins (CA2 to CA4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from persistence.transition import CommitResult
from tests.simulation.clients import PATIENCE
from tests.simulation.history import Answer, Call
from tests.simulation.link import HELD
from tests.simulation.runs import Runs

if TYPE_CHECKING:
    from tests.simulation.world import World

CANCEL_PATIENCE = 1.0
"""Seconds after the acknowledgement of a cancel in which a live owner may still begin an attempt (CA3)."""


def check_cancels(world: World) -> Iterator[str]:
    """Give what was cancelled and ended otherwise, and what began or ran on after that."""
    rows, runs = world.database.tables.executions, Runs(world)
    for answer in world.history.answers:
        row = rows.get(answer.execution_id) if answer.execution_id else None
        if answer.kind == "cancel" and answer.outcome == "ok" and row is not None:
            ended_first = any(
                write.committed <= answer.time and write.events and write.events[-1].kind == "finished"
                for write in world.history.writes
                if write.execution_id == answer.execution_id and write.result is CommitResult.COMMITTED
            )
            if not runs.was_cancelled(row.execution.id) and not ended_first:
                yield f"CA2: {answer.execution_id} was cancelled and is {row.execution.state.value}"
            yield from _starts_after_cancel(world, answer, runs)


def _starts_after_cancel(world: World, answer: Answer, runs: Runs) -> Iterator[str]:
    """Check that a cancel stops what runs and lets nothing more begin, wherever nothing else was wrong."""
    scenario = world.scenario
    has_faults = scenario.busy_rate or scenario.lost_rate or scenario.late_rate
    by = answer.time + CANCEL_PATIENCE + (3.0 if has_faults else 0.0) + (HELD if scenario.held_rate else 0.0)
    for call in world.history.calls:
        if call.execution_id != answer.execution_id or _is_disturbed(world, call, answer.time):
            continue
        if runs.begins_between(call.execution_id, answer.time - PATIENCE, call.begun):
            continue  # what somebody has cancelled goes on when somebody retries it
        what = f"{call.execution_id} {call.path}"
        if call.begun > by:
            yield f"CA3: {what} began at {call.begun:.3f}, its cancel was acknowledged at {answer.time:.3f}"
        elif call.stopped is None and (end := call.ended or world.history.deaths[call.process]) > by:
            yield f"CA4: {what} ran to {end:.3f}, its cancel was acknowledged at {answer.time:.3f}"


def _is_disturbed(world: World, call: Call, since: float) -> bool:
    host = call.process.split(".")[0]
    until = call.ended or world.loop.time()
    return any(
        who in ("store", host) and begin <= until and end + 3.0 >= since
        for who, begin, end in world.history.disturbances
    )
