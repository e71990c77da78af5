"""Whether every history is sound in itself and agrees with the rows: I3 to I7, I14."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise

from tests.faults.checks.attempts import is_set_forward, real
from tests.faults.checks.violations import ENDS_OF_STEPS, FINAL, FINAL_STEPS, Violation
from tests.faults.harness.records import Event, Outcome, Record, Row, StepFacts, Write, path_of

ON_ITS_WAY = timedelta(seconds=30)
"""Within which what a server has decided is written, so that what it says of the time before can be right.

Where the way to Postgres is narrow (K11), a new execution's first transition took 10.8 s to get there.
"""


def check_numbers(record: Record) -> Iterator[Violation]:
    """I3: events are 1 to n without a gap, whole transitions, and n is what the row says."""
    for row in record.rows.values():
        seqs = [event.seq for event in row.events]
        if seqs != list(range(1, len(seqs) + 1)):
            yield Violation("I3", row.execution_id, f"its events are {seqs}")
        if row.last_seq != len(seqs):
            yield Violation("I3", row.execution_id, f"has {len(seqs)} events, and its row says {row.last_seq}")
        ends = {event.seq for event in row.events if event.seq == event.transition_seq}
        for before, after in pairwise(row.events):
            if before.seq not in ends and before.transition_seq != after.transition_seq:
                yield Violation("I3", row.execution_id, f"the transition of event {before.seq} is torn")
        if row.events and row.events[-1].seq not in ends:
            yield Violation("I3", row.execution_id, "its last transition is torn")


def check_ends(record: Record) -> Iterator[Violation]:
    """I4: one terminal event of each run, the last, exactly if the execution has ended."""
    for row in record.rows.values():
        finished = [event.seq for event in row.events if event.kind == "finished"]
        followed = [event.seq - 1 for event in row.events if event.kind == "reopened"]
        if row.state in FINAL and finished != [*followed, len(row.events)]:
            yield Violation("I4", row.execution_id, f"ended {row.state}, with terminal events at {finished}")
        if row.state not in FINAL and finished != followed:
            yield Violation("I4", row.execution_id, f"is {row.state}, with terminal events at {finished}")


def check_states(record: Record) -> Iterator[Violation]:
    """I5: the state that the events give is the one of the rows, and what Get says at the end."""
    for row in record.rows.values():
        state, steps = _folded(row)
        if state != row.state:
            yield Violation("I5", row.execution_id, f"its events give {state}, its row says {row.state}")
        kept = {step.path: step.state for step in row.steps}
        for path in steps.keys() | kept.keys():
            if steps.get(path) != kept.get(path, "PENDING" if path not in steps else None):
                text = f"step {path}: events give {steps.get(path)}, its row says {kept.get(path)}"
                yield Violation("I5", row.execution_id, text)
    for call in record.calls:
        if not call.is_final or call.outcome is not Outcome.OK or call.execution_id not in record.rows:
            continue
        row = record.rows[call.execution_id]
        kept = {path_of(name): state for name, state in sorted((step.path, step.state) for step in row.steps)}
        # Without a row a step has not started, and shows as cancelled when nothing can start any more.
        unstarted = "CANCELLED" if row.state in FINAL and row.state != "COMPLETED" else "PENDING"
        said = {path: state for path, state in call.step_states.items() if path in kept or state != unstarted}
        if (call.state, call.last_seq) != (row.state, row.last_seq) or said != kept:
            yield Violation("I5", row.execution_id, f"Get on {call.replica} says {call.state} {said}, kept is {kept}")


def check_records(record: Record) -> Iterator[Violation]:
    """I6, I7: one terminal record for a step, the one its row points at, and nothing of the step after it."""
    for row in record.rows.values():
        ended: dict[str, int] = {}
        for event in row.events:
            if not event.path:
                continue
            if event.path in ended and event.kind != "variables_assigned":
                rule = "I6" if event.kind in ENDS_OF_STEPS else "I7"
                text = f"step {event.path}: {event.kind} at {event.seq}, after its end at {ended[event.path]}"
                yield Violation(rule, row.execution_id, text)
            if event.kind in ENDS_OF_STEPS:
                ended.setdefault(event.path, event.seq)
        for step in row.steps:
            if step.state in FINAL_STEPS and step.end_seq != ended.get(step.path):
                text = (
                    f"step {step.path}: its row says it ended at {step.end_seq}, its events at {ended.get(step.path)}"
                )
                yield Violation("I6", row.execution_id, text)


def check_timers(record: Record) -> Iterator[Violation]:
    """I14: a wait ends, and a retry starts, not before its time by the clock of Postgres, or by the right one.

    Where the clock of Postgres is set back, who learnt its time before goes by the right one for a while.
    """
    written = _writes(record)
    for row in record.rows.values():
        facts = record.programs.get(row.workflow, {})
        waiting: dict[str, tuple[datetime, str]] = {}
        started: dict[str, datetime] = {}
        for event in row.events:
            time = _time_of(written.get(row.execution_id, ()), event)
            if time is None:
                continue
            if event.kind == "step_started":
                if event.path in waiting:
                    yield from _early(record, row, event, time, *waiting.pop(event.path))
                started[event.path] = time
            elif event.kind == "step_waiting" and event.wake_time is not None:
                fact = facts.get(path_of(event.path), StepFacts(""))
                if fact.handler == "wait_signal":
                    continue  # it goes on when a signal comes
                waiting[event.path] = (event.wake_time, "its wake time")
                seconds = fact.seconds
                length = timedelta(seconds=seconds)
                # Whatever the replica's clock says, this long must have passed by that of Postgres.
                begun = started.setdefault(event.path, _begun(event.wake_time - length, time))
                yield from _early_at_completion(record, row, event, written, begun, length)
            elif event.kind == "step_retrying" and event.wake_time is not None:
                waiting[event.path] = (event.wake_time, "its retry time")
            elif event.kind == "step_completed" and event.path in waiting:
                yield from _early(record, row, event, time, *waiting.pop(event.path))


def _begun(told: datetime, written: datetime) -> datetime:
    """Return when what the server waits for itself began: as its wake time tells, unless by a clock that is wrong."""
    return told if timedelta() <= written - told <= ON_ITS_WAY else written


def _early(record: Record, row: Row, event: Event, time: datetime, due: datetime, of: str) -> Iterator[Violation]:
    if _is_early(record, time, due):
        text = f"step {event.path}: {event.kind} at {time.time()}, before {of}, {due.time()}"
        yield Violation("I14", row.execution_id, text)


def _early_at_completion(
    record: Record, row: Row, waiting: Event, written: dict[str, list[Write]], started: datetime, length: timedelta
) -> Iterator[Violation]:
    due = started + length
    for event in row.events[waiting.seq :]:
        if event.path == waiting.path and event.kind == "step_completed":
            time = _time_of(written[row.execution_id], event)
            if time is None or is_set_forward(record, started, time):
                continue  # it began by another clock than it ended
            if _is_early(record, time, due):
                text = (
                    f"step {event.path}: waited {due - time} less than it had to, {length} from {started.time()}"
                    f" on, with the wake time {waiting.wake_time}"
                )
                yield Violation("I14", row.execution_id, text)


def _is_early(record: Record, time: datetime, due: datetime) -> bool:
    return time < due and real(record, time) < real(record, due)


def _writes(record: Record) -> dict[str, list[Write]]:
    written: dict[str, list[Write]] = defaultdict(list)
    for write in sorted(record.writes, key=lambda write: write.id):
        written[write.execution_id].append(write)
    return written


def _time_of(writes: list[Write] | tuple[()], event: Event) -> datetime | None:
    """Return when, by Postgres, the event was written."""
    return next((write.time for write in writes if write.last_seq >= event.seq), None)


def _folded(row: Row) -> tuple[str, dict[str, str]]:
    state, steps, has_started = "PENDING", dict[str, str](), False
    for event in row.events:
        if event.kind in ("started", "reopened"):
            state, has_started = "RUNNING", True
        elif event.kind == "paused":
            state = "PAUSED"
        elif event.kind == "resumed":
            state = "RUNNING" if has_started else "PENDING"
        elif event.kind == "cancelling":
            state = "CANCELLING"
        elif event.kind == "finished":
            state = event.state
        elif event.kind == "step_started":
            steps[event.path] = "RUNNING"
        elif event.kind in ("step_waiting", "step_retrying"):
            steps[event.path] = "WAITING"
        elif event.kind in ENDS_OF_STEPS:
            steps[event.path] = ENDS_OF_STEPS[event.kind]
    return state, steps
