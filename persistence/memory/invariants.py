"""What holds for every row: in Postgres these are constraints of the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import inf

from persistence import transition
from persistence.errors import PersistenceError
from persistence.memory.json import copied, text
from persistence.model import Event, Execution, ExecutionState, Message, Step, StepCounts, StepKey, StepState
from persistence.transition import Transition


def check_execution(row: Execution) -> None:
    """Raises PersistenceError when the row contradicts itself."""
    _hold(row.state.is_end == (row.end_time is not None), "an execution has an end time if and only if it has ended")
    _hold(row.ending is None or not row.state.is_end, "no end is decided for what has ended")
    _hold(
        row.ending is not None or row.state is not ExecutionState.CANCELLING, "what is cancelling has its end decided"
    )
    _hold(row.pause is None or row.state is ExecutionState.PAUSED, "only what is PAUSED says how")
    if row.state.is_end:
        _hold(row.incarnation is None and row.wake_time is None, "an ended execution has neither owner nor wake_time")
    else:
        _hold((row.incarnation is None) == (row.wake_time is not None), "an execution has either owner or wake_time")
    _hold(0 <= row.progress <= 100, "progress is a percentage")
    _hold(row.progress < 100 or row.state is ExecutionState.COMPLETED, "only a completed execution is at 100 percent")
    _hold(
        row.epoch >= 1 and row.run >= 1 and row.last_seq >= 0 and row.bytes >= 0 and 0 <= row.timeout < inf,
        "epoch, run, last_seq, bytes and timeout are numbers from 0",
    )
    _check_counts(row.counts)
    _check_times(row.create_time, row.scheduled_time, row.start_time, row.end_time, row.deadline_time, row.wake_time)
    check_text(row.org, row.owner, row.correlation_id)
    check_text(row.workflow_name, row.request_id, limit=128)


def check_message(message: Message) -> None:
    """Raises PersistenceError when it cannot be kept."""
    check_text(message.sender)
    _check_times(message.time)
    copied(message.body)


def check_letters(transition: Transition) -> None:
    """Raises PersistenceError unless the transition may send its letters."""
    for letter in transition.letters:
        check_message(letter.message)
        is_bound = letter.message.binds or letter.message.id == letter.execution_id
        _hold(not is_bound, "what binds is not sent by another execution")
    _hold(bool(transition.events) or not transition.letters, "a transition that sends something has an event")


def check_text(*values: str, limit: int = 256) -> None:
    """Raises PersistenceError when one is longer than its column, or holds what Postgres does not."""
    for value in values:
        _hold(len(text(value)) <= limit, f"a text has at most {limit} characters")


def check_events(events: Sequence[Event], base_seq: int) -> None:
    """Raises PersistenceError unless the events can be written at once behind `base_seq`."""
    transition.check_events(events, base_seq)
    _check_times(*(event.time for event in events))


def check_steps(kept: Mapping[StepKey, Step], touched: Sequence[Step]) -> None:
    """Raises PersistenceError when a step that has ended would change, other than by compensation."""
    _hold(len({step.key for step in touched}) == len(touched), "a transition holds a step once")
    for step in touched:
        _check_step(step)
        before = kept.get(step.key)
        if before is not None and before.state.is_end:
            is_undone = before.state is StepState.COMPLETED and step.state is StepState.COMPENSATED
            _hold(is_undone, f"step {step.path!r} has ended and is never overwritten")


def _check_step(step: Step) -> None:
    _hold(step.state.is_end == (step.end_time is not None), "a step has an end time if and only if it has ended")
    if step.state is not StepState.CANCELLED:
        _hold(
            (step.wait is not None) == (step.state is StepState.WAITING), "a step says what it waits for while it does"
        )
    _hold(
        step.iteration >= 1 and step.attempt >= 0 and step.failures >= 0 and 0 <= step.progress <= 100,
        "numbers of a step are in range",
    )
    _check_times(step.start_time, step.attempt_time, step.end_time)
    if step.wait is not None:
        _check_times(step.wait.start_time, step.wait.wake_time)
        text(step.wait.reason)
    check_text(step.path, limit=1024)
    check_text(step.handler, limit=128)
    check_text(step.skip_reason, limit=8192)
    check_text(step.worker)


def _check_times(*times: datetime | None) -> None:
    for time in times:
        if time is None or time.tzinfo is UTC:
            continue
        _hold(time.tzinfo is not None, "a time has a time zone")
        try:
            time.astimezone(UTC)
        except OverflowError:
            _hold(False, "a time lies in the years 1 to 9999")


def _check_counts(counts: StepCounts) -> None:
    parts = (counts.completed, counts.failed, counts.skipped, counts.running, counts.cancelled)
    _hold(min(parts) >= 0 and sum(parts) <= counts.total, "counts of steps are parts of their total")


def _hold(condition: bool, rule: str) -> None:
    if not condition:
        raise PersistenceError(f"refused: {rule}")
