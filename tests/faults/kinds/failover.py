"""A series of faults of each kind that CONTRACT 2.5 gives a time for, on one cluster, one after the other."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from flowkeep.requests import execute_request
from persistence.model import SUSPECT_DEATHS
from tests.faults.harness.caller import Caller, History
from tests.faults.harness.cluster import Replica
from tests.faults.harness.programs import INPUT_SCHEMA, Program, programs
from tests.faults.harness.proxy import BLACKHOLE, CLEAR
from tests.faults.harness.records import Call, Outcome, StepFacts
from tests.faults.kinds.kind import Plain, Scene

_LASTING = 24
_OTHERS = 8
_LEAST = 3
"""Executions that a replica has to drive before it is hit."""
_LOOK = 0.05
_LOAD_SECONDS, _ANSWER_SECONDS = 30.0, 60.0


def lasting_workload(draw: random.Random, url: str) -> list[Program]:
    """Return programs of which most take some seconds, so that there is always something in flight."""
    return [*programs(draw, _OTHERS, url), *(_lasting(draw, f"lasting_{number}") for number in range(_LASTING))]


def _lasting(draw: random.Random, name: str) -> Program:
    ids = ["s0", "s1", "s2"]
    steps = [
        {
            "id": step_id,
            "handler": "chaos_toil",
            "params": {"seconds": round(draw.uniform(0.7, 1.3), 3), "number": "${ input.number }"},
        }
        for step_id in ids
    ]
    definition = {"name": name, "timeout": 120, "input_schema": INPUT_SCHEMA, "steps": steps}
    return Program(definition, {step_id: StepFacts("chaos_toil") for step_id in ids})


class Series(Plain):
    """Makes `counts` faults of each kind; the scene's end does not matter."""

    meaning = "faults with a promised time, one after the other"
    is_steered = False  # what is paused goes on when it is resumed, and says nothing of who takes it over

    def __init__(self, name: str, counts: Mapping[str, int]) -> None:
        self.name = name
        self.seconds: dict[str, list[float]] = defaultdict(list)
        """What was clocked beside what the record tells."""
        self.counts = counts
        """How many faults of each kind it makes."""
        self._turn = 0
        self._faults: Mapping[str, Callable[[Scene, Caller], Awaitable[None]]] = {
            "kill": self._kill,
            "terminate": self._terminate,
            "stop": self._stop,
            "crash": self._crash,
            "partition": self._partition,
        }

    async def run(self, scene: Scene) -> None:
        """See Kind."""
        caller = Caller("clock", scene.cluster.replicas, History())
        for kind, count in self.counts.items():
            for _ in range(count):
                await self._faults[kind](scene, caller)

    async def _kill(self, scene: Scene, caller: Caller) -> None:
        victim = await self._victim(scene)
        await caller.list(victim)  # or there would be no connection to lose
        await scene.land("kill", victim)
        owners = await _owners(scene, victim)
        await victim.kill9()
        await victim.restart()
        self.seconds["reconnected"].append(await _answered(lambda: caller.list(victim)))
        await _taken_over(scene, owners)

    async def _terminate(self, scene: Scene, caller: Caller) -> None:
        victim = await self._victim(scene)
        await scene.land("terminate", victim)
        owners = await _owners(scene, victim)
        begun = asyncio.get_running_loop().time()
        await victim.terminate()
        self.seconds["gone"].append(asyncio.get_running_loop().time() - begun)
        await victim.restart()
        await _taken_over(scene, owners)

    async def _stop(self, scene: Scene, caller: Caller) -> None:
        victim = await self._victim(scene)
        await scene.land("stop", victim)
        owners = await _owners(scene, victim)
        victim.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(2.5 * scene.cluster.ttl)
        finally:
            woken = datetime.now(UTC)
            victim.signal(signal.SIGCONT)
        scene.over()
        self.seconds["registered anew"].append(await _registered(scene, victim, woken))
        await _taken_over(scene, owners)

    async def _crash(self, scene: Scene, caller: Caller) -> None:
        await self._victim(scene)
        await scene.land("crash")
        postgres = scene.cluster.postgres
        await postgres.stop(immediate=True)
        try:
            await asyncio.sleep(scene.draw.uniform(0.0, 2.0))
        finally:
            await postgres.start()
        scene.accepting()
        await self._each_answers(scene, caller)

    async def _partition(self, scene: Scene, caller: Caller) -> None:
        victim = await self._victim(scene)
        await scene.land("partition", victim)
        owners = await _owners(scene, victim)
        victim.database.turn(BLACKHOLE)
        try:
            await _taken_over(scene, owners)
            await asyncio.sleep(0.5 * scene.cluster.ttl)
        finally:
            victim.database.turn(CLEAR)
        scene.over()
        self.seconds["healed"].append(await _answered(lambda: _execute(caller, victim)))

    async def _victim(self, scene: Scene) -> Replica:
        """Return the next replica in turn when it drives some executions and the last faults have been got over."""
        self._turn += 1
        victim = scene.cluster.replicas[self._turn % len(scene.cluster.replicas)]

        async def is_busy() -> bool:
            # What has lost too many owners is driven apart, later than promised for others.
            suspects = await scene.cluster.postgres.query(
                "SELECT FROM executions WHERE end_time IS NULL AND deaths >= $1 LIMIT 1", SUSPECT_DEATHS - 1
            )
            return not suspects and len(await scene.cluster.owned(victim)) >= _LEAST

        await _until(is_busy, _LOAD_SECONDS)
        return victim

    async def _each_answers(self, scene: Scene, caller: Caller) -> None:
        """Return when each replica accepts executions."""
        await asyncio.gather(
            *(_answered(lambda to=replica: _execute(caller, to)) for replica in scene.cluster.replicas)  # type: ignore[misc]
        )


async def _execute(caller: Caller, replica: Replica) -> Call:
    return await caller.execute(replica, execute_request("lasting_0", {"number": 0}), "lasting_0 0")


async def _answered(call: Callable[[], Awaitable[Call]]) -> float:
    """Return after how many seconds a call that is made again and again succeeded."""
    loop = asyncio.get_running_loop()
    begun = loop.time()

    async def is_done() -> bool:
        return (await call()).outcome is Outcome.OK

    await _until(is_done, _ANSWER_SECONDS)
    return loop.time() - begun


async def _owners(scene: Scene, replica: Replica) -> list[Any]:
    """Return the incarnations of a replica so far: those that it may lose executions of."""
    rows = await scene.cluster.postgres.query(
        "SELECT incarnation FROM chaos.incarnations WHERE replica = $1", replica.name
    )
    return [row["incarnation"] for row in rows]


async def _taken_over(scene: Scene, owners: list[Any]) -> None:
    """Return when nothing belongs to these incarnations any more, or long after it should."""

    async def is_so() -> bool:
        return not await scene.cluster.postgres.query(
            "SELECT FROM executions WHERE incarnation = ANY ($1) LIMIT 1", owners
        )

    await _until(is_so, 2 * scene.cluster.ttl + 10.0)


async def _until(is_so: Callable[[], Awaitable[bool]], patience: float) -> None:
    """Return when it is so, or patience is over."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while not await is_so():
        if loop.time() >= deadline:
            return
        await asyncio.sleep(_LOOK)


async def _registered(scene: Scene, replica: Replica, woken: datetime) -> float:
    """Return after how many seconds a replica that was woken had a new incarnation."""
    statement = "SELECT min(time) AS time FROM chaos.incarnations WHERE replica = $1 AND time > $2"
    async with asyncio.timeout(3 * scene.cluster.ttl + 10.0):
        while True:
            (row,) = await scene.cluster.postgres.query(statement, replica.name, woken)
            if row["time"] is not None:
                return float((row["time"] - woken).total_seconds())
            await asyncio.sleep(_LOOK)
