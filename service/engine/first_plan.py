"""The first commit of an execution."""

from __future__ import annotations

import dataclasses

from persistence.model import Execution
from service.engine.definition import Definition
from service.engine.planning import happenings, planner
from service.engine.planning.planner import Plan
from service.engine.row import row
from service.engine.running.parking import parked_until
from service.engine.running.runner import Runner


def first_plan(runner: Runner, execution: Execution, definition: Definition, accepted: Plan) -> tuple[Execution, Plan]:
    """Return the row as it is inserted, and what goes with it: with room, the start rides in the same commit.

    `accepted` is what follows from its acceptance alone.
    """
    now = execution.create_time
    if execution.scheduled_time is not None or not runner.has_place(execution.org, execution.owner):
        wake = execution.scheduled_time or now
        return row(execution, accepted, None, wake), accepted
    latest = runner.context.clock.latest()
    started = planner.apply(definition, accepted.state, happenings.Started(now), latest=latest)
    runner.turns.spend(execution.workflow_id, started.work)
    both = dataclasses.replace(started, events=accepted.events + started.events, steps=accepted.steps + started.steps)
    parked = None if started.is_partial else parked_until(started.state, now, runner.context.settings.park_after)
    owner = None if parked is not None or started.state.state.is_end else runner.incarnation
    return row(execution, both, owner, parked), both
