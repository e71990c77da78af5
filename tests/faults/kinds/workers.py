"""The faults that hit workers, which run handlers in processes of their own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from tests.faults.harness.cluster import Cluster
from tests.faults.harness.programs import Program
from tests.faults.harness.proxy import BLACKHOLE, CLEAR, fault_proxy
from tests.faults.harness.remote import for_workers
from tests.faults.harness.workers import Forgetful, WorkerProcess
from tests.faults.kinds.kind import Plain, Scene, VoidError

SILENCE = 3.0
"""Seconds without a word after which a worker is lost."""


class Lost(Plain):
    """K19: workers are killed or cut off, and beside them are some that say results again which they have lost."""

    name, meaning = "K19", "a worker killed, cut off for longer than it may be silent, or saying old results again"
    settings: Mapping[str, str] = {"FLOWKEEP_WORKER_HEARTBEAT_TIMEOUT": str(SILENCE)}

    def __init__(self) -> None:
        self._workers: list[WorkerProcess] = []
        self._forgetful: list[Forgetful] = []

    def workload(self, draw: random.Random, url: str) -> list[Program]:
        """See Kind."""
        return [for_workers(program, draw) for program in super().workload(draw, url)]

    @asynccontextmanager
    async def beside(self, cluster: Cluster) -> AsyncIterator[None]:
        """See Kind."""
        async with AsyncExitStack() as stack:
            draw = random.Random(self.name)
            for number, replica in enumerate(cluster.replicas):
                host, _, port = replica.server.target.rpartition(":")
                way = await stack.enter_async_context(fault_proxy((host, int(port)), draw))
                worker = WorkerProcess(f"worker_{number}", replica, way, cluster.folder)
                stack.push_async_callback(worker.end)
                await worker.start()
                self._workers.append(worker)
            self._forgetful = [Forgetful(replica) for replica in cluster.replicas]
            await asyncio.gather(*(worker.connected() for worker in self._workers))
            yield

    async def run(self, scene: Scene) -> None:
        """See Kind."""
        forgetting = [asyncio.create_task(each.run()) for each in self._forgetful]
        try:
            while not scene.is_over:
                worker = scene.draw.choice(self._workers)
                if scene.draw.random() < 0.6:
                    await self._kill(scene, worker)
                else:
                    await self._cut_off(scene, worker)
                await scene.pause(0.5, 2.0)
        finally:
            for task in forgetting:
                task.cancel()
            results = await asyncio.gather(*forgetting, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        if not any(each.replays for each in self._forgetful):
            raise VoidError("no worker has said an old result again")

    async def _kill(self, scene: Scene, worker: WorkerProcess) -> None:
        await scene.land("worker killed", worker.replica)
        await worker.kill()
        await scene.pause(0.0, 1.0)
        await worker.start()

    async def _cut_off(self, scene: Scene, worker: WorkerProcess) -> None:
        await scene.land("worker cut off", worker.replica)
        worker.way.turn(BLACKHOLE)
        try:
            await asyncio.sleep(1.5 * SILENCE)
        finally:
            worker.way.turn(CLEAR)
        scene.over()

    def notes(self, cluster: Cluster) -> Mapping[str, object]:
        """See Kind."""
        said = [replay.message.partition(":")[0] for each in self._forgetful for replay in each.replays]
        lost = sum(replica.server.log.count('"worker lost"') for replica in cluster.replicas)
        return {
            "workers lost": lost,
            "old results said again": len(said),
            "answers to them": ", ".join(sorted(set(said))),
        }

    def seen(self) -> Mapping[str, Any]:
        """See Kind."""
        return {
            "replays": tuple(replay for each in self._forgetful for replay in each.replays),
            "worker_logs": {worker.name: worker.log for worker in self._workers},
        }
