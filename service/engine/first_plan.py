"""The first commit of an execution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from persistence.model import Event as StoredEvent
from persistence.model import Execution
from persistence.transition import Waiting
from service.engine.definition import Definition
from service.engine.planning import happenings, planner
from service.engine.planning.planner import Plan
from service.engine.row import row
from service.engine.running.parking import parked_until
from service.engine.running.runner import Runner


class FirstPlan(NamedTuple):
    """The row of an execution as it is inserted, and what goes with it.

    `waiting` is the row in its place where it may not start, with what goes with its acceptance alone; None where it
    does not start in any case.
    """

    execution: Execution
    plan: Plan
    waiting: tuple[Execution, Plan] | None = None

    def waits(self, events: Sequence[StoredEvent]) -> Waiting | None:
        """Return what is kept where it may not start; `events` are those of the plan, as they are stored."""
        if self.waiting is None:
            return None
        execution, accepted = self.waiting
        return Waiting(execution, accepted.steps, events[: len(accepted.events)], accepted.state.signals)


def first_plan(runner: Runner, execution: Execution, definition: Definition, accepted: Plan) -> FirstPlan:
    """Return what an execution is inserted as: with room, its start rides in the same commit.

    `accepted` is what follows from its acceptance alone.
    """
    now = execution.create_time
    if execution.scheduled_time is not None or not runner.has_place(execution.org, execution.owner):
        wake = execution.scheduled_time or now
        return FirstPlan(row(execution, accepted, None, wake), accepted)
    latest = runner.context.clock.latest()
    started = planner.apply(definition, accepted.state, happenings.Started(now), latest=latest)
    runner.turns.spend(execution.workflow_id, started.work)
    both = replace(started, events=accepted.events + started.events, steps=accepted.steps + started.steps)
    parked = None if started.is_partial else parked_until(started.state, now, runner.context.settings.park_after)
    owner = None if parked is not None or started.state.state.is_end else runner.incarnation
    return FirstPlan(row(execution, both, owner, parked), both, (row(execution, accepted, None, now), accepted))
