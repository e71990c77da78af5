"""The faults that hit processes: replicas, their clients, and the world that handlers call."""

from __future__ import annotations

import asyncio
import signal

from flowkeep.requests import execute_request
from tests.faults.harness.caller import Caller, History
from tests.faults.kinds.kind import Plain, Scene


class Killed(Plain):
    """K1."""

    name, meaning = "K1", "kill -9 a replica every 2-5 s"

    async def run(self, scene: Scene) -> None:
        """See Kind."""
        while not scene.is_over:
            victim = scene.victim()
            await scene.land("kill", victim)
            await victim.kill9()
            await scene.pause(0.0, 1.5)
            await victim.restart()
            await scene.pause(2.0, 4.0)


class Stopped(Plain):
    """K2 and K3: a process that is stopped and goes on."""

    def __init__(self, name: str, meaning: str, share: float, pause: tuple[float, float]) -> None:
        self.name, self.meaning = name, meaning
        self.keeps_ownership = share < 0.5
        self._share = share
        self._pause = pause

    async def run(self, scene: Scene) -> None:
        """See Kind."""
        while not scene.is_over:
            victim = scene.victim()
            await scene.land("stop", victim)
            victim.signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(self._share * scene.cluster.ttl)
            finally:
                victim.signal(signal.SIGCONT)
            scene.over()
            await scene.pause(*self._pause)


class Blocked(Plain):
    """K4: a handler that blocks the event loop of its replica."""

    name, meaning = "K4", "event loop blocked 1.5 TTL"

    async def run(self, scene: Scene) -> None:
        """See Kind."""
        caller = Caller("blocker", scene.cluster.replicas, History())
        while not scene.is_over:
            victim = scene.victim()
            await scene.land("block", victim)
            await caller.execute(victim, execute_request("blocker", {"number": 0}), "blocker 0")
            await scene.pause(2.2 * scene.cluster.ttl, 3.0 * scene.cluster.ttl)


class Cut(Plain):
    """K12: the way between clients and a replica breaks."""

    name, meaning = "K12", "client-replica RST, cut at a random byte, GOAWAY"
    shields_clients = False

    async def run(self, scene: Scene) -> None:
        """See Kind."""
        while not scene.is_over:
            victim = scene.victim()
            assert victim.clients is not None
            trouble = scene.draw.choice(("reset", "cut", "goaway"))
            await scene.land(trouble, victim)
            if trouble == "reset":
                victim.clients.reset()
            elif trouble == "cut":
                victim.clients.cut_after(scene.draw.randint(1, 2000))
            else:
                victim.clients.send_away()
            await scene.pause(0.2, 0.8)


class Outside(Plain):
    """K13: the world that handlers call is killed, silent, or gives the answers of earlier calls."""

    name, meaning = "K13", "effect server killed, silent, or replaying an old answer"

    async def run(self, scene: Scene) -> None:
        """See Kind."""
        world = scene.cluster.world
        while not scene.is_over:
            await scene.land("world")
            trouble = scene.draw.choice(("killed", "silent", "confused"))
            try:
                if trouble == "killed":
                    await world.stop()
                if trouble == "silent":
                    world.speaks.clear()
                world.is_confused = trouble == "confused"
                await scene.pause(0.5, 2.0)
            finally:
                world.speaks.set()
                world.is_confused = False
                if trouble == "killed":
                    await world.start()
            await scene.pause(0.5, 1.5)
