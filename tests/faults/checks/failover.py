"""How long the service stood still after a fault, by the clock of Postgres: CONTRACT 2.5."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from tests.faults.harness.records import Landing, Record, Write

MOVED = {"kill": "kill -9", "stop": "SIGSTOP 2.5 TTL", "terminate": "SIGTERM", "partition": "partition"}
"""Faults after which others go on with the executions of a victim."""


def moved_after(record: Record, landing: Landing) -> list[float]:
    """Return the seconds from a fault until each execution that the victim owned moved again, by another owner.

    Another owner is also the process that took the victim's place. What the victim had just put down itself, to wait
    for a timer, is not asked about; when it ends in order, putting down is how it hands over.
    """
    first: dict[str, Write] = {}
    last: dict[str, Write] = {}
    parked: set[str] = set()
    for write in sorted(record.writes, key=lambda write: write.id):
        execution_id = write.execution_id
        if write.time <= landing.time:
            last[execution_id] = write
        elif execution_id not in first and execution_id in last and write.epoch > last[execution_id].epoch:
            first[execution_id] = write
        elif execution_id not in first and write.incarnation is None and landing.kind != "terminate":
            parked.add(execution_id)
    return [
        (first[execution_id].time - landing.time).total_seconds()
        for execution_id in landing.in_flight
        if execution_id in first
        and execution_id not in parked
        and first[execution_id].incarnation != last[execution_id].incarnation
    ]


def written_after(record: Record, landing: Landing) -> float | None:
    """Return the seconds from the moment at which Postgres took connections until the first write of an execution."""
    if landing.accepting is None:
        return None
    times = (write.time for write in record.writes if write.time > landing.accepting)
    first = min(times, default=None)
    return None if first is None else (first - landing.accepting).total_seconds()


def report(records: Sequence[Record]) -> list[str]:
    """Return one line for each kind of fault that has a clock: how many, p50, p99 and the longest."""
    times: dict[str, list[float]] = defaultdict(list)
    for record in records:
        for landing in record.landings:
            if landing.kind in MOVED and not record.keeps_ownership:
                times[f"moved again after {MOVED[landing.kind]}"] += moved_after(record, landing)
            if (seconds := written_after(record, landing)) is not None:
                times[f"first write after Postgres was back ({landing.kind})"].append(seconds)
    return [f"{name}: {figures(values)}" for name, values in sorted(times.items()) if values]


def figures(values: list[float]) -> str:
    """Return how many there are, p50, p99 and the longest; there must be one."""
    p50, p99 = (percentile(values, share) for share in (0.50, 0.99))
    return f"n={len(values)} p50={p50:.2f} s p99={p99:.2f} s max={max(values):.2f} s"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of them is; there must be one."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
