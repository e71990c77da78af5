"""The fault that clients are: they watch and do not read."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio

from flowkeep.channel import open_channel
from flowkeep.errors import from_rpc_error
from flowkeep.requests import execute_request
from flowkeep.v1.execution_service_pb2 import WatchExecutionRequest
from flowkeep.v1.execution_service_pb2_grpc import ExecutionServiceStub
from tests.faults.harness.caller import Caller, History
from tests.faults.harness.cluster import Cluster, Replica
from tests.faults.kinds.kind import Plain, Scene, VoidError


def _narrow(replica: Replica) -> grpc.aio.Channel:
    """Return a connection on which little travels that nobody reads; a usual one takes a megabyte in advance."""
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 65535),
    ]
    return open_channel(replica.target, False, options)


class Stuck(Plain):
    """K18: of 500 watchers 200 read nothing, or five messages a second, of executions that say a lot."""

    name, meaning = "K18", "200 of 500 watchers stuck or at 5 messages a second"
    settings: Mapping[str, str] = {"FLOWKEEP_WATCH_PATIENCE": "3.0"}
    watchers = 300
    STUCK = 200

    def __init__(self) -> None:
        self._ends: Counter[str] = Counter()
        self._open = self._most = 0
        self._execution_id = ""
        self._channels: list[grpc.aio.Channel] = []

    def notes(self, cluster: Cluster) -> Mapping[str, object]:
        """See Kind."""
        ends = ", ".join(f"{name} {count}" for name, count in self._ends.most_common())
        return {"stuck or slow at a time, at most": self._most, "ends of what was stuck or slow": ends}

    async def run(self, scene: Scene) -> None:
        """See Kind."""
        caller = Caller("bulk", scene.cluster.replicas, History())
        watching: list[asyncio.Task[None]] = []
        try:
            while not scene.is_over:
                call = await caller.execute(scene.victim(), execute_request("bulk", {"number": 0}), "bulk 0")
                self._execution_id = call.execution_id or self._execution_id
                if not watching and self._execution_id:
                    watching = self._watch(scene)
                await scene.land("stuck watchers")
                await scene.pause(2.0, 3.0)
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
            await asyncio.gather(*(channel.close() for channel in self._channels))
        if not any("SLOW_CONSUMER" in end for end in self._ends):
            raise VoidError("nobody was stuck for so long that the server noticed")

    def _watch(self, scene: Scene) -> list[asyncio.Task[None]]:
        tasks = []
        for number in range(self.STUCK):
            replica = scene.cluster.replicas[number % len(scene.cluster.replicas)]
            # What is stuck takes the room of its connection from all that share it, so each has its own.
            self._channels.append(_narrow(replica))
            stub = ExecutionServiceStub(self._channels[-1])
            tasks.append(asyncio.create_task(self._idle(scene, stub, is_slow=number % 2 == 1)))
        return tasks

    async def _idle(self, scene: Scene, stub: Any, *, is_slow: bool) -> None:
        """Open one stream after the other, and read it slowly, or nothing for a while, until cancelled."""
        await asyncio.sleep(scene.draw.uniform(0.0, 2.0))
        while True:
            call = stub.WatchExecution(WatchExecutionRequest(execution_id=self._execution_id))
            self._open += 1
            self._most = max(self._most, self._open)
            try:
                if not is_slow:
                    await asyncio.sleep(scene.draw.uniform(4.0, 8.0))
                # Who was stuck sees only now how it ended.
                async with asyncio.timeout(8.0 if is_slow else 2.0):
                    await self._read(call, 0.2 if is_slow else 0.0)
                code = await call.code()
                self._ends[code.name] += 1
            except TimeoutError:
                self._ends["LEFT"] += 1
            except grpc.aio.AioRpcError as failure:
                error = from_rpc_error(failure)
                self._ends[f"{error.code.name} {error.reason}".strip()] += 1
                await asyncio.sleep(scene.draw.uniform(0.1, 0.5))
            finally:
                self._open -= 1
                call.cancel()

    async def _read(self, call: Any, pause: float) -> None:
        async for _ in call:
            await asyncio.sleep(pause)
