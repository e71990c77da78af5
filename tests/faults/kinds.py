"""What a kind of fault is, and the faults that hit processes: replicas and their clients."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from flowkeep.requests import execute_request
from tests.faults.caller import Caller, History
from tests.faults.cluster import Cluster, Replica
from tests.faults.database import Postgres
from tests.faults.records import Landing

WATCHERS = 20


class VoidError(Exception):
    """The fault cannot be made here; the text says why."""


@dataclass
class Scene:
    """What a fault works on, and where it writes down what it hit."""

    cluster: Cluster
    draw: random.Random
    until: float
    """When the faults end, by the clock of the event loop."""
    landings: list[Landing] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """Whether no more fault is to begin."""
        return asyncio.get_running_loop().time() >= self.until

    async def pause(self, shortest: float, longest: float) -> None:
        """Let a while pass, but not beyond the end."""
        left = self.until - asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, min(self.draw.uniform(shortest, longest), left)))

    def victim(self) -> Replica:
        """Return a replica that runs."""
        return self.draw.choice([replica for replica in self.cluster.replicas if replica.is_up])

    async def land(self, kind: str, victim: Replica | None = None) -> int:
        """Write down that a fault hits now, and what is in flight there; returns its number."""
        in_flight = await self.cluster.owned(victim)
        name = victim.name if victim else "postgres"
        self.landings.append(Landing(kind, datetime.now(UTC), name, tuple(in_flight)))
        return len(self.landings) - 1

    def accepting(self) -> None:
        """Write down that Postgres takes connections again."""
        last = self.landings[-1]
        self.landings[-1] = replace(last, accepting=datetime.now(UTC))

    def over(self, number: int = -1) -> None:
        """Write down that a fault which lasted is over, the last one or that of a number."""
        self.landings[number] = replace(self.landings[number], until=datetime.now(UTC))


class Kind(Protocol):
    """One kind of fault."""

    name: str
    meaning: str
    settings: Mapping[str, str]
    follows: bool
    """Whether the proxies have to understand Postgres."""
    shields_clients: bool
    keeps_ownership: bool

    watchers: int
    """How many clients watch what goes on."""

    def make_postgres(self, folder: Path) -> Postgres:
        """Return a Postgres for the run, with its data in the folder or elsewhere; call it after `prepare`."""
        ...

    async def prepare(self) -> Mapping[str, str]:
        """Make what the replicas need, and return more settings. Raises VoidError."""
        ...

    async def run(self, scene: Scene) -> None:
        """Make faults until the scene is over, and heal them all, also when cancelled."""
        ...

    async def clean_up(self) -> None:
        """Take away what `prepare` made."""
        ...

    def notes(self, cluster: Cluster) -> Mapping[str, object]:
        """Return what is worth telling beside the verdict."""
        ...


class Plain:
    """What most kinds have in common: nothing to prepare."""

    name = ""
    meaning = ""
    settings: Mapping[str, str] = {}
    follows = False
    shields_clients = True
    keeps_ownership = False
    watchers = WATCHERS

    def make_postgres(self, folder: Path) -> Postgres:
        """See Kind."""
        return Postgres(folder)

    async def prepare(self) -> Mapping[str, str]:
        """See Kind."""
        return {}

    async def clean_up(self) -> None:
        """See Kind."""

    def notes(self, cluster: Cluster) -> Mapping[str, object]:
        """See Kind."""
        return {}


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
