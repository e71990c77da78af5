"""Every kind of fault by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.faults import (
    kinds,
    kinds_clock,
    kinds_connections,
    kinds_database,
    kinds_disk,
    kinds_versions,
    kinds_watchers,
)
from tests.faults.kinds import Kind

KINDS: Mapping[str, Callable[[], Kind]] = {
    "K1": kinds.Killed,
    "K2": lambda: kinds.Stopped("K2", "SIGSTOP 2.5 TTL, then CONT", 2.5, (0.5, 1.5)),
    "K3": lambda: kinds.Stopped("K3", "SIGSTOP pulses of 0.3 TTL", 0.3, (0.5, 1.0)),
    "K4": kinds.Blocked,
    "K5": lambda: kinds_database.Crashed("K5", "Postgres immediate stop, 0-2 s down", immediate=True, longest=2.0),
    "K6": lambda: kinds_database.Crashed("K6", "Postgres fast restart", immediate=False, longest=0.0),
    "K7": kinds_database.BackendKilled,
    "K8": kinds_database.Terminated,
    "K9": kinds_database.Partitioned,
    "K10": kinds_database.CommitsLost,
    "K11": kinds_database.Slow,
    "K12": kinds.Cut,
    "K13": kinds.Outside,
    "K14": kinds_connections.Exhausted,
    "K15": kinds_disk.DiskFull,
    "K16": kinds_clock.Skewed,
    "K17": kinds_versions.Rolled,
    "K18": kinds_watchers.Stuck,
}
