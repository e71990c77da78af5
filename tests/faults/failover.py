"""How long the service stood still after a fault, by the clock of Postgres: CONTRACT 2.5."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from tests.faults.records import Landing, Record, Write

MOVED = {"kill": "kill -9", "stop": "SIGSTOP 2.5 TTL", "terminate": "SIGTERM", "partition": "partition"}
"""Faults after which others go on with the executions of a victim."""


def moved_after(record: Record, landing: Landing) -> list[float]:
    """Return the seconds from a fault until each execution that the victim owned moved again, by another owner."""
    first: dict[str, Write] = {}
    epochs: dict[str, int] = {}
    for write in sorted(record.writes, key=lambda write: write.id):
        if write.time <= landing.time:
            epochs[write.execution_id] = write.epoch
        elif write.execution_id not in first and write.epoch > epochs.get(write.execution_id, write.epoch):
            first[write.execution_id] = write
    return [
        (first[execution_id].time - landing.time).total_seconds()
        for execution_id in landing.in_flight
        if execution_id in first and first[execution_id].replica != landing.victim
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
    return [f"{name}: {_figures(values)}" for name, values in sorted(times.items()) if values]


def _figures(values: list[float]) -> str:
    values = sorted(values)
    p50, p99 = (values[min(len(values) - 1, int(share * len(values)))] for share in (0.50, 0.99))
    return f"n={len(values)} p50={p50:.2f} s p99={p99:.2f} s max={values[-1]:.2f} s"
