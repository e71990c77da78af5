"""Every kind of fault by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.faults.kinds import clock, connections, database, disk, processes, versions, watchers, workers
from tests.faults.kinds.kind import Kind

KINDS: Mapping[str, Callable[[], Kind]] = {
    "K1": processes.Killed,
    "K2": lambda: processes.Stopped("K2", "SIGSTOP 2.5 TTL, then CONT", 2.5, (0.5, 1.5)),
    "K3": lambda: processes.Stopped("K3", "SIGSTOP pulses of 0.3 TTL", 0.3, (0.5, 1.0)),
    "K4": processes.Blocked,
    "K5": lambda: database.Crashed("K5", "Postgres immediate stop, 0-2 s down", immediate=True, longest=2.0),
    "K6": lambda: database.Crashed("K6", "Postgres fast restart", immediate=False, longest=0.0),
    "K7": database.BackendKilled,
    "K8": database.Terminated,
    "K9": database.Partitioned,
    "K10": database.CommitsLost,
    "K11": database.Slow,
    "K12": processes.Cut,
    "K13": processes.Outside,
    "K14": connections.Exhausted,
    "K15": disk.DiskFull,
    "K16": clock.Skewed,
    "K17": versions.Rolled,
    "K18": watchers.Stuck,
    "K19": workers.Lost,
}
