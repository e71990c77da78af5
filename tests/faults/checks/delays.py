"""How long after a commit its watchers knew: W11."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from tests.faults.checks.attempts import write_of, writes_by_execution
from tests.faults.checks.failover import figures
from tests.faults.checks.violations import Violation
from tests.faults.harness.records import Record, Stream

LIMITS = {"K8": 5.0}
"""Seconds by kind. CONTRACT promises 2.5 at p99 when notifications are lost; a shared machine may double it."""

RECOVERY = timedelta(seconds=3)
"""After which a replica that a fault hit serves as before."""


def check_delays(record: Record) -> Iterator[Violation]:
    """W11: where the promise holds, whoever was watching at the time of a commit is told of it in time."""
    limit = LIMITS.get(record.kind)
    if limit is None:
        return
    for stream, seq, seconds, has_come in _delays(record):
        if seconds > limit:
            text = f"{stream.client} on {stream.replica}: event {seq} {'came after' if has_come else 'had not come in'}"
            yield Violation("W11", stream.execution_id, f"{text} {seconds:.1f} s")


def told_after(record: Record) -> str:
    """Return the seconds from commits to watchers that were there already, in one line."""
    seconds = [seconds for _, _, seconds, has_come in _delays(record) if has_come]
    return figures(seconds) if seconds else "none"


def _delays(record: Record) -> Iterator[tuple[Stream, int, float, bool]]:
    """Give, for each event that was written while a stream was open, the seconds to its arrival, or for how long not.

    Not of streams that were open at a replica when a fault hit it itself, or soon after.
    """
    if record.clock is None:
        return
    written = writes_by_execution(record)
    times: dict[str, dict[int, datetime]] = {}
    for row in record.rows.values():
        writes = [(event.seq, write_of(written.get(row.execution_id, ()), event)) for event in row.events]
        times[row.execution_id] = {seq: write.time for seq, write in writes if write is not None}
    for stream in record.streams:
        opened = record.clock + timedelta(seconds=stream.opened)
        closed = record.clock + timedelta(seconds=stream.closed)
        if any(
            landing.victim == stream.replica
            and landing.time <= closed
            and (landing.until or landing.time) + RECOVERY >= opened
            for landing in record.landings
        ):
            continue
        arrived = {event[0]: message.arrived for message in stream.messages for event in message.events}
        for seq, time in times.get(stream.execution_id, {}).items():
            if time < opened or seq <= stream.after_seq:
                continue
            seen = record.clock + timedelta(seconds=arrived.get(seq, stream.closed))
            if seq in arrived or seen > time:
                yield stream, seq, (seen - time).total_seconds(), seq in arrived
