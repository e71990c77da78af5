"""When an execution need not be in memory."""

from __future__ import annotations

from datetime import datetime

from service.engine.planning.state import State


def parked_until(state: State, now: datetime, park_after: float) -> datetime | None:
    """Return until when an execution need not be in memory, None when it must.

    It need not where only a distant timer moves it, or a handler that this process lacks: whoever has it claims it,
    and a timer wakes whoever claims then, however soon that is.
    """
    if state.state.is_end or state.ending is not None or not state.is_idle:
        return None
    wake = state.next_wake
    if wake is not None and not state.awaited and (wake - now).total_seconds() < park_after:
        return None
    return wake
