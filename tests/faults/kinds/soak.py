"""The faults of a soak, on all replicas but one, and the samples of what is used meanwhile."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from uuid import uuid4

import psutil

from persistence.postgres.claims import _CLAIM
from tests.faults.harness.cluster import Cluster
from tests.faults.harness.programs import Program, programs
from tests.faults.harness.records import Sample
from tests.faults.harness.usage import Meter, usage
from tests.faults.kinds.database import Crashed, Partitioned, Terminated
from tests.faults.kinds.kind import Kind, Plain, Scene
from tests.faults.kinds.processes import Killed, Stopped

_STEPS = 3
_PROGRAMS = 16
_TERMINATED = 5
"""Sessions of which one is terminated each second."""
_FAULTS: Sequence[Callable[[], Kind]] = (
    Killed,
    lambda: Crashed("crash", "Postgres immediate stop, 0-2 s down", immediate=True, longest=2.0),
    Terminated,
    Partitioned,
    lambda: Stopped("stop", "SIGSTOP 1.5 TTL, then CONT", 1.5, (0.0, 0.0)),
)
_DEAD_TUPLES = """
SELECT split_part(relname, '_', 1) AS name, sum(n_dead_tup) AS count FROM pg_stat_user_tables
WHERE relname ~ '^(executions|steps)_' OR relname = 'replicas' GROUP BY 1"""
_SESSIONS = "SELECT usename, count(*) AS count FROM pg_stat_activity WHERE usename LIKE 'replica%' GROUP BY usename"


def soak_workload(draw: random.Random, url: str) -> list[Program]:
    """Return programs of three steps."""
    return [program for program in programs(draw, 20 * _PROGRAMS, url) if len(program.steps) == _STEPS][:_PROGRAMS]


class Soak(Plain):
    """One fault each `interval` seconds; the first replica is only hit through Postgres."""

    name, meaning = "soak", "faults of five kinds in turn, on two of three replicas"

    def __init__(self, interval: float, every: float) -> None:
        self.samples: list[Sample] = []
        self._interval = interval
        self._every = every

    async def run(self, scene: Scene) -> None:
        """See Kind."""
        sampling = asyncio.create_task(self._sample(scene.cluster))
        try:
            await self._make_faults(scene)
        finally:
            sampling.cancel()
        with suppress(asyncio.CancelledError):  # whatever else ended it has left the soak without eyes
            await sampling

    async def _make_faults(self, scene: Scene) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        order: list[Callable[[], Kind]] = []
        while not scene.is_over:
            due = max(due + self._interval, loop.time() + 0.2 * self._interval)
            await scene.pause(due - loop.time(), due - loop.time())
            if scene.is_over:
                return
            # All of them before one comes again, each time in another order.
            order = order or scene.draw.sample(_FAULTS, len(_FAULTS))
            await self._make_one(order.pop()(), scene)

    async def _make_one(self, kind: Kind, scene: Scene) -> None:
        hit = replace(scene.cluster, replicas=scene.cluster.replicas[1:])
        seconds = _TERMINATED if isinstance(kind, Terminated) else 0.001  # others end after their first fault
        until = asyncio.get_running_loop().time() + seconds
        await kind.run(Scene(hit, scene.draw, until, scene.landings))

    async def _sample(self, cluster: Cluster) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        psutil.cpu_percent()
        own, meter = psutil.Process(), Meter()
        own.cpu_percent()
        while True:
            await asyncio.sleep(self._every)
            values = {
                **meter.busy({"busy % replica": cluster.replicas[0].server.pid, **_postgres(cluster)}),
                "busy % harness": own.cpu_percent(),
                "busy % machine": psutil.cpu_percent(),
                "harness MiB": own.memory_info().rss / (1 << 20),
                **await _replica(cluster),
                **await _store(cluster),
            }
            self.samples.append(Sample(loop.time() - begun, values))


def _postgres(cluster: Cluster) -> dict[str, int]:
    return {} if cluster.postgres.has_gone else {"busy % Postgres": cluster.postgres.pid}


async def _replica(cluster: Cluster) -> dict[str, float]:
    steady = cluster.replicas[0]
    used = await usage(steady, cluster.world)
    if used is None:
        return {}
    return {
        "memory MiB": used.memory / (1 << 20),
        "descriptors": used.descriptors,
        "threads": used.threads,
        "tasks": sum(used.tasks.values()),
    }


async def _store(cluster: Cluster) -> dict[str, float]:
    postgres = cluster.postgres
    sessions = {row["usename"]: row["count"] for row in await postgres.query(_SESSIONS)}
    values: dict[str, float] = {
        "connections": sessions.get(cluster.replicas[0].name, 0),
        "connections of all": sum(sessions.values()),
        "in flight": len(await cluster.owned()),
    }
    for row in await postgres.query(_DEAD_TUPLES):
        values[f"dead tuples of {row['name']}"] = float(row["count"])
    # Of somebody who has no lease, so that it takes nothing.
    (row,) = await postgres.query(f"EXPLAIN (ANALYZE, FORMAT JSON) {_CLAIM}", uuid4(), 1, 1, [], [], [])
    (plan,) = json.loads(row[0])
    return {**values, "claim ms": plan["Execution Time"]}
