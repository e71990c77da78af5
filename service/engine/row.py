"""The row of an execution, as its creation keeps it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from msgspec.structs import replace

from persistence.model import Execution
from service.engine.planning.planner import Plan


def row(execution: Execution, plan: Plan, incarnation: UUID | None, wake_time: datetime | None) -> Execution:
    """Return it after what follows from its first happenings, with its owner, or when to claim it."""
    after = plan.state
    return replace(
        execution,
        state=after.state,
        counts=after.counts,
        progress=after.progress,
        last_seq=after.last_seq,
        start_time=after.start_time,
        end_time=after.end_time,
        deadline_time=after.deadline_time,
        failure=after.failure.to_json() if after.failure else None,
        ending=after.ending.stored() if after.ending else None,
        pause=after.pause,
        breakpoints=after.breakpoints,
        incarnation=incarnation,
        wake_time=wake_time,
        bytes=after.bytes,
    )
