"""Whether nothing begins that must not: ST10, ST11, CA3."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tests.faults.checks.attempts import (
    CLOCKS_MOVE,
    Begun,
    begun,
    pauses,
    still,
    taken_over,
    write_of,
    writes_by_execution,
)
from tests.faults.checks.violations import Violation
from tests.faults.harness.records import Lease, Outcome, Pause, Record, Write

AT_ONCE = timedelta(seconds=0.1)
"""Within which an owner stops that has lost an execution."""
HEARD = timedelta(seconds=1)
"""Within which a live owner has heard of a cancel, pauses of its process aside."""
FENCE = 0.7
"""Share of its lease after which an owner begins nothing more, if it could not renew."""
_DEAF = frozenset(
    {"stop", "block", "kill", "terminate", "partition", "crash", "restart", "backend killed", "slow", "disk full"}
    | {"pool exhausted", "rows locked", "idle in transaction", "connections taken", "migrate"}
)
_DEAF_AFTER = timedelta(seconds=3)


@dataclass(frozen=True)
class _Late:
    """A call that came after its owner had to be still."""

    call: Begun
    due: datetime
    paused: Sequence[Pause]

    @property
    def is_explained(self) -> bool:
        """Whether a pause lies between the start, after which the owner looks at its lease, and the call."""
        return any(
            self.call.started <= pause.begin and self.due <= pause.end and self.call.arrived <= pause.end + AT_ONCE
            for pause in self.paused
        )

    def violation(self, rule: str, event: str) -> Violation:
        """Return what to say of it."""
        effect, seconds = self.call.effect, (self.call.arrived - self.due).total_seconds()
        text = f"attempt {effect.attempt} of epoch {self.call.epoch} called {seconds:.3f} s after {self.call.replica}"
        return Violation(rule, effect.execution_id, f"step {effect.step}: {text} {event}")


def check_losers(record: Record) -> Iterator[Violation]:
    """ST10: who lost an execution makes no call for it 100 ms later, a pause of its process aside."""
    for late in _after_loss(record):
        if not late.is_explained:
            yield late.violation("ST10", "had lost it")


def check_fences(record: Record) -> Iterator[Violation]:
    """ST11: no call begins later than its owner's lease allows, a pause between check and call aside."""
    for late in _after_fence(record):
        if not late.is_explained:
            yield late.violation("ST11", "had to stop by itself")


def explained(record: Record) -> int:
    """Return how many calls came too late and are no violation, since a pause of their process tells why."""
    calls = {
        (late.call.effect.execution_id, late.call.effect.step, late.call.effect.attempt, late.call.effect.time)
        for late in (*_after_loss(record), *_after_fence(record))
        if late.is_explained
    }
    return len(calls)


def check_cancelled(record: Record) -> Iterator[Violation]:
    """CA3: after an acknowledged Cancel a live owner starts nothing later than 1 s, and a new owner nothing.

    An attempt starts at the time of its event, which may be kept later, or with its call if that came later.
    """
    if record.kind in CLOCKS_MOVE or record.clock is None:
        return
    written, paused = writes_by_execution(record), pauses(record)
    called = {(each.effect.execution_id, each.effect.step, each.effect.attempt): each.arrived for each in begun(record)}
    for call in record.calls:
        if call.method != "Cancel" or call.outcome is not Outcome.OK or call.execution_id not in record.rows:
            continue
        acked = record.clock + timedelta(seconds=call.returned)
        writes = written.get(call.execution_id, ())
        for event in record.rows[call.execution_id].events:
            if event.kind == "reopened":
                break  # what is cancelled goes on when somebody retries it
            write = write_of(writes, event)
            if event.kind != "step_started" or write is None or write.time <= acked:
                continue
            claimed = next(each.time for each in writes if each.epoch == write.epoch)
            started = max(event.time, called.get((call.execution_id, event.path, event.attempt), event.time))
            after = f"{(max(started, acked) - acked).total_seconds():.3f} s after the Cancel"
            if claimed > acked:
                text = f"step {event.path} was started {after} by {write.replica}, which claimed it after it"
                yield Violation("CA3", call.execution_id, text)
            elif _lived(paused.get(write.replica, ()), acked, started) > HEARD and not _was_deaf(record, write, acked):
                yield Violation("CA3", call.execution_id, f"step {event.path} was started {after} by {write.replica}")


def _after_loss(record: Record) -> Iterator[_Late]:
    if record.kind in CLOCKS_MOVE:
        return
    written, paused, rejected = writes_by_execution(record), pauses(record), _rejections(record)
    for call in begun(record):
        execution_id = call.effect.execution_id
        lost = taken_over(written[execution_id], call.epoch)
        told = next((time for time in rejected.get((call.replica, execution_id), ()) if time >= call.started), None)
        due = min((time for time in (lost, told) if time is not None), default=None)
        if due is not None and call.arrived > due + AT_ONCE:
            yield _Late(call, due, paused.get(call.replica, ()))


def _after_fence(record: Record) -> Iterator[_Late]:
    if record.kind in CLOCKS_MOVE:
        return
    paused, leases = pauses(record), defaultdict[str, list[Lease]](list)
    for lease in record.leases:
        leases[lease.incarnation].append(lease)
    for call in begun(record):
        fence = _fence(leases[call.incarnation], call.arrived)
        if fence is not None and call.arrived > fence + AT_ONCE:
            yield _Late(call, fence, paused.get(call.replica, ()))


def _rejections(record: Record) -> Mapping[tuple[str, str], Sequence[datetime]]:
    """Return when each replica heard that a write of an execution was fenced."""
    times: dict[tuple[str, str], list[datetime]] = defaultdict(list)
    for replica, log in record.logs.items():
        for line in log.splitlines():
            if '"transition not committed"' not in line:
                continue
            entry = json.loads(line)
            if entry["result"] == "FENCED":
                times[replica, entry["execution_id"]].append(datetime.fromisoformat(entry["timestamp"]))
    return times


def _fence(leases: Sequence[Lease], moment: datetime) -> datetime | None:
    """Return when an incarnation had to stop, by its last lease before a moment."""
    last = max((lease for lease in leases if lease.time <= moment), key=lambda lease: lease.time, default=None)
    return None if last is None else last.time + FENCE * max(last.until - last.time, timedelta())


def _lived(paused: Sequence[Pause], begin: datetime, end: datetime) -> timedelta:
    """Return for how long a process had the chance to hear something."""
    return end - begin - still(paused, begin, end)


def _was_deaf(record: Record, write: Write, acked: datetime) -> bool:
    return any(
        landing.kind in _DEAF
        and landing.victim in (write.replica, "postgres")
        and landing.time <= write.time
        and (landing.until or landing.time) + _DEAF_AFTER >= acked
        for landing in record.landings
    )
