"""Who began each call that arrived outside, when he had the right to, and when his process did nothing at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tests.faults.harness.records import Effect, Event, Pause, Record, Write

BLOCKER = "chaos_block"
"""The handler that blocks the event loop of its replica, at its first attempt."""
COMMIT = timedelta(seconds=0.05)
"""What lies at most between a write, as its trigger saw it, and its owner's going on, on a machine that is well."""

CLOCK_OF_POSTGRES = "clock of postgres"
"""The fault that sets it back, by `SETBACK` seconds, until it is over."""
SETBACK = 60.0
STARVED = timedelta(seconds=0.2)
"""How much later than the harness the other processes of a machine may get to run again."""
LEARNT = timedelta(seconds=1)
"""Within which replicas have learnt what Postgres's clock says now."""
CLOCKS_MOVE = frozenset({"K16"})
"""Kinds in which the times of Postgres, of the logs and of the harness have nothing to do with each other."""


@dataclass(frozen=True)
class Begun:
    """A call, and the owner whose start of the attempt is in the history: he alone may have made it."""

    effect: Effect
    arrived: datetime
    """When at the earliest."""
    started: datetime
    """When, by Postgres, the start was written."""
    replica: str
    incarnation: str
    epoch: int


def begun(record: Record) -> Iterator[Begun]:
    """Give every call that is in the history of an execution."""
    written, stalls = writes_by_execution(record), _joined(record.stalls)
    starts: dict[tuple[str, str, int], Write] = {}
    for row in record.rows.values():
        for event in row.events:
            if event.kind == "step_started":
                write = write_of(written.get(row.execution_id, ()), event)
                if write is not None:
                    starts[row.execution_id, event.path, event.attempt] = write
    for effect in record.effects:
        write = starts.get((effect.execution_id, effect.step, effect.attempt))
        if write is None:
            continue  # ST6 tells
        owner = write.old_incarnation or write.incarnation or ""
        yield Begun(effect, _arrived(effect, stalls), write.time, write.replica, owner, write.epoch)


def writes_by_execution(record: Record) -> Mapping[str, Sequence[Write]]:
    """Return the writes of each execution in their order."""
    writes: dict[str, list[Write]] = defaultdict(list)
    for write in sorted(record.writes, key=lambda write: write.id):
        writes[write.execution_id].append(write)
    return writes


def write_of(writes: Sequence[Write], event: Event) -> Write | None:
    """Return the write that added an event."""
    return next((write for write in writes if write.last_seq >= event.seq), None)


def taken_over(writes: Sequence[Write], epoch: int) -> datetime | None:
    """Return when somebody claimed the execution after this epoch."""
    return next((write.time for write in writes if write.epoch > epoch), None)


def epoch_at(writes: Sequence[Write], moment: datetime) -> int:
    """Return the epoch of an execution at a moment."""
    return max((write.epoch for write in writes if write.time <= moment), default=0)


def real(record: Record, moment: datetime) -> datetime:
    """Return when a moment of Postgres's clock was by the clock of the machine."""
    setback = timedelta(seconds=SETBACK)
    for landing in record.landings:
        if landing.kind != CLOCK_OF_POSTGRES or landing.until is None:
            continue
        if landing.time - setback <= moment <= landing.until - setback + COMMIT:
            return moment + setback
    return moment


def is_set_forward(record: Record, begin: datetime, end: datetime) -> bool:
    """Whether the clock of Postgres was put right between two of its moments, or a while before them."""
    begin, end = real(record, begin), real(record, end)
    found = (landing.until for landing in record.landings if landing.kind == CLOCK_OF_POSTGRES)
    return any(until is not None and begin - LEARNT <= until <= end for until in found)


def pauses(record: Record) -> Mapping[str, Sequence[Pause]]:
    """Return when each replica did nothing: it was stopped, its event loop was blocked, or the machine was too busy.

    Of the last the harness tells, which is a process as they are, and stood still itself.
    """
    starved = [Pause(stall.begin, stall.end + STARVED) for stall in _joined(record.stalls)]
    found = {name: list(starved) for name in record.incarnations.values()}
    for landing in record.landings:
        if landing.kind == "stop" and landing.until is not None:
            found.setdefault(landing.victim, []).append(Pause(landing.time, landing.until))
    written = writes_by_execution(record)
    for row in record.rows.values():
        facts = record.programs.get(row.workflow, {})
        for event in row.events:
            if event.kind != "step_started" or event.attempt != 1 or event.path not in facts:
                continue
            write = write_of(written.get(row.execution_id, ()), event)
            if facts[event.path].handler == BLOCKER and write is not None:
                length = timedelta(seconds=facts[event.path].seconds)
                found.setdefault(write.replica, []).append(Pause(write.time + COMMIT, write.time + COMMIT + length))
    return found


def still(found: Sequence[Pause], begin: datetime, end: datetime) -> timedelta:
    """Return for how long of a time a process did nothing, by its pauses."""
    length, seen = timedelta(), begin
    for pause in sorted(found, key=lambda pause: pause.begin):
        seen = max(seen, pause.begin)
        length += max(min(pause.end, end) - seen, timedelta())
        seen = max(seen, pause.end)
    return length


def _joined(stalls: Sequence[Pause]) -> Sequence[Pause]:
    """Return the stalls, in one where hardly anything lies between them."""
    joined: list[Pause] = []
    for stall in sorted(stalls, key=lambda stall: stall.begin):
        if joined and stall.begin <= joined[-1].end + 2 * COMMIT:
            joined[-1] = Pause(joined[-1].begin, max(joined[-1].end, stall.end))
        else:
            joined.append(stall)
    return joined


def _arrived(effect: Effect, stalls: Sequence[Pause]) -> datetime:
    stall = next((stall for stall in stalls if stall.begin <= effect.time <= stall.end + COMMIT), None)
    return stall.begin if stall is not None else effect.time
