"""Whether no more runs at a time than may: I13, which is ST9."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from tests.faults.checks.attempts import CLOCKS_MOVE, Begun, begun, epoch_at, pauses, taken_over, writes_by_execution
from tests.faults.checks.violations import ENDS_OF_STEPS, Violation
from tests.faults.harness.records import Record, Row

SEEN = timedelta(seconds=0.05)
"""Within which the world outside has seen that a caller went away."""
_ENDS = frozenset({*ENDS_OF_STEPS, "step_waiting", "step_retrying"})


def check_caps(record: Record) -> Iterator[Violation]:
    """I13: calls of the current owner never exceed the cap, and those of a former one end within a lease's length."""
    calls: dict[str, list[Begun]] = defaultdict(list)
    for call in begun(record):
        calls[call.effect.execution_id].append(call)
    for row in record.rows.values():
        cap = record.caps.get(row.workflow)
        if cap is not None:
            yield from _history(row, cap)
            if record.kind not in CLOCKS_MOVE:
                yield from _bodies(record, row, cap, calls[row.execution_id])


def _history(row: Row, cap: int) -> Iterator[Violation]:
    running: set[str] = set()
    for event in row.events:
        if event.kind == "step_started":
            running.add(event.path)
        elif event.kind in _ENDS:
            running.discard(event.path)
        if len(running) > cap:
            text = f"steps {sorted(running)} run at a time at event {event.seq}, {cap} may"
            yield Violation("I13", row.execution_id, text)
            return


def _bodies(record: Record, row: Row, cap: int, calls: Sequence[Begun]) -> Iterator[Violation]:
    writes = writes_by_execution(record).get(row.execution_id, ())
    for call in calls:
        moment = call.effect.time
        epoch = epoch_at(writes, moment)
        current = [other for other in calls if other.epoch == epoch and _is_running(other, moment)]
        if call.epoch == epoch and len(current) > cap:
            steps = sorted((other.effect.step, other.effect.attempt) for other in current)
            yield Violation("I13", row.execution_id, f"calls {steps} of epoch {epoch} at a time, {cap} may")
        lost = taken_over(writes, call.epoch)
        end = call.effect.ended
        if lost is not None and end is not None and end > _latest(record, call, lost):
            late = (end - lost).total_seconds()
            text = f"step {call.effect.step}: the call of epoch {call.epoch} went on for {late:.3f} s after its loss"
            yield Violation("I13", row.execution_id, text)


def _is_running(call: Begun, moment: datetime) -> bool:
    end = call.effect.ended
    return call.effect.time <= moment and (end is None or end > moment + SEEN)


def _latest(record: Record, call: Begun, lost: datetime) -> datetime:
    """Return when a call whose owner lost the execution has to be over: after the length of a lease, pauses aside."""
    length = max((lease.until - lease.time for lease in record.leases), default=timedelta())
    due = lost + length
    for pause in pauses(record).get(call.replica, ()):
        if pause.begin <= due <= pause.end + length:
            due = max(due, pause.end + length)
    return due
