"""What transitions make of the rows of executions, and which may not."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from persistence.memory.json import copied
from persistence.memory.tables import fresh_ending
from persistence.model import Execution
from persistence.transition import Transition


def is_fenced(row: Execution, transition: Transition) -> bool:
    """Whether a transition is not of the owner, does not follow, or ends what was sent something it has not seen."""
    is_ours = (row.org, row.incarnation, row.epoch, row.last_seq) == (
        transition.org,
        transition.incarnation,
        transition.epoch,
        transition.base_seq,
    )
    return not is_ours or (transition.is_bound and row.mail > transition.mail_seen)


def after(row: Execution, transition: Transition, now: datetime) -> Execution:
    """Return the row of an execution as a transition leaves it."""
    is_released = transition.release or transition.state.is_end
    return replace(
        row,
        state=transition.state,
        counts=transition.counts,
        progress=transition.progress,
        last_seq=transition.last_seq,
        start_time=transition.start_time,
        end_time=transition.end_time,
        held_back=row.held_back and transition.start_time is None,
        deadline_time=transition.deadline_time,
        failure=copied(transition.failure),
        ending=fresh_ending(transition.ending),
        pause=transition.pause,
        breakpoints=transition.breakpoints,
        incarnation=None if is_released else row.incarnation,
        deaths=0 if transition.survived else row.deaths,
        bytes=transition.bytes,
        usage=transition.usage,
        wake_time=_wake_time(row, transition, now),
    )


def _wake_time(row: Execution, transition: Transition, now: datetime) -> datetime | None:
    if transition.state.is_end or not transition.release:
        return None
    # What the owner gave up without having seen must not wait for the timer.
    has_unseen = row.mail > transition.mail_seen
    return now if has_unseen or transition.wake_time is None else transition.wake_time
