"""When an execution need not be in memory."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from service.engine.clock import later
from service.engine.durations import TEN_YEARS
from service.engine.planning.state import State


def parked_until(state: State, now: datetime, park_after: float) -> datetime | None:
    """Return until when an execution need not be in memory, None when it must.

    It need not where only a distant timer moves it, or a handler that this process lacks: whoever has it claims it,
    and a timer wakes whoever claims then, however soon that is.
    """
    if state.state.is_end or state.ending is not None or not state.is_idle:
        return None
    wake = state.next_wake
    if state.is_paused or (state.is_held_back and state.start_time is None):
        wake = wake or later(now, TEN_YEARS)  # nothing but a message, or the resume of its workflow, moves it
    if wake is not None and not awaited(state) and (wake - now).total_seconds() < park_after:
        return None
    return wake


def awaited(state: State) -> Iterable[str]:
    """Return the handlers for which somebody would drive the execution on."""
    return () if state.is_paused else state.awaited
