"""A plan as it is written."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from persistence.model import UNREAD, Event, Execution
from persistence.transition import Transition
from service.engine.handlers.registry import awaits
from service.engine.planning.planner import Plan
from service.engine.planning.state import State
from service.engine.running.parking import awaited


def transition(
    owned: tuple[Execution, UUID],
    before: State,
    plan: Plan,
    events: Sequence[Event],
    mail_seen: int,
    parked_until: datetime | None,
    *,
    survived: bool,
) -> Transition:
    """Return what is written of a plan that follows on the state `before`.

    `owned` is the execution, and the incarnation that drives it. With `parked_until` the transition releases it.
    """
    (execution, incarnation), after = owned, plan.state
    return Transition(
        org=execution.org,
        execution_id=execution.id,
        incarnation=incarnation,
        epoch=execution.epoch,
        base_seq=before.last_seq,
        state=after.state,
        counts=after.counts,
        progress=after.progress,
        steps=plan.steps,
        events=events,
        start_time=after.start_time,
        end_time=after.end_time,
        deadline_time=after.deadline_time,
        failure=after.failure.to_json() if after.failure else None,
        ending=after.ending.stored() if after.ending else None,
        pause=after.pause,
        breakpoints=after.breakpoints,
        result=after.result,
        consumed=tuple(message.id for message in plan.consumed),
        mail_seen=mail_seen,
        tasks=plan.tasks,
        task_changes=plan.task_changes,
        release=parked_until is not None,
        wake_time=parked_until,
        awaits=awaits(execution.org, awaited(after)) if parked_until is not None else (),
        survived=survived,
        bytes=after.bytes,
        usage=after.usage,
        signals=UNREAD if after.signals is before.signals else after.signals,
        edited=UNREAD if after.edited is before.edited else after.edited,
        gives_up=plan.gives_up,
    )
