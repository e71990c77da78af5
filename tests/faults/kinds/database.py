"""The faults that hit Postgres, and the ways to it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from dataclasses import replace

from tests.faults.harness.cluster import Cluster
from tests.faults.harness.proxy import BLACKHOLE, CLEAR, Weather
from tests.faults.kinds.kind import Plain, Scene


class Crashed(Plain):
    """K5 and K6: Postgres goes and comes back."""

    def __init__(self, name: str, meaning: str, *, immediate: bool, longest: float) -> None:
        self.name, self.meaning = name, meaning
        self._immediate = immediate
        self._longest = longest

    async def run(self, scene: Scene) -> None:
        """See Kind."""
        postgres = scene.cluster.postgres
        while not scene.is_over:
            await scene.land("crash" if self._immediate else "restart")
            await postgres.stop(immediate=self._immediate)
            try:
                await asyncio.sleep(scene.draw.uniform(0, self._longest))
            finally:
                await postgres.start()
            scene.accepting()
            await scene.pause(1.5, 2.5)


class BackendKilled(Plain):
    """K7: one session dies of SIGKILL, on which Postgres recovers as a whole."""

    name, meaning = "K7", "SIGKILL one Postgres backend"

    async def run(self, scene: Scene) -> None:
        """See Kind."""
        postgres = scene.cluster.postgres
        while not scene.is_over:
            backends = await postgres.backends()
            await scene.land("backend killed")
            os.kill(scene.draw.choice(backends), signal.SIGKILL)
            await asyncio.sleep(0.1)
            await postgres.ready()
            scene.accepting()
            await scene.pause(2.0, 3.5)


class Terminated(Plain):
    """K8."""

    name, meaning = "K8", "pg_terminate_backend of random sessions, 1/s"

    async def run(self, scene: Scene) -> None:
        """See Kind."""
        postgres = scene.cluster.postgres
        while not scene.is_over:
            backends = await postgres.backends()
            await scene.land("terminated")
            if backends:
                await postgres.query("SELECT pg_terminate_backend($1)", scene.draw.choice(backends))
            await scene.pause(0.8, 1.2)


class Partitioned(Plain):
    """K9: one replica and Postgres do not hear each other, or one not the other, and no RST tells them."""

    name, meaning = "K9", "blackhole one replica - Postgres for 3 TTL, no RST"

    async def run(self, scene: Scene) -> None:
        """See Kind."""
        while not scene.is_over:
            victim = scene.victim()
            await scene.land("partition", victim)
            weather = scene.draw.choice((BLACKHOLE, BLACKHOLE, Weather(holds_up=True), Weather(holds_down=True)))
            victim.database.turn(weather)
            try:
                await asyncio.sleep(3 * scene.cluster.ttl)
            finally:
                victim.database.turn(CLEAR)
            scene.over()
            await scene.pause(0.3, 0.8)


class CommitsLost(Plain):
    """K10."""

    name, meaning = "K10", "5 % of the replies to commits lost"
    follows = True

    def notes(self, cluster: Cluster) -> Mapping[str, object]:
        """See Kind."""
        ways = [replica.database for replica in cluster.replicas]
        return {"lost replies": sum(way.lost for way in ways), "held replies": sum(way.held for way in ways)}

    async def run(self, scene: Scene) -> None:
        """See Kind."""
        ways = [replica.database for replica in scene.cluster.replicas]
        lossy = Weather(lost_commits=0.05)
        for way in ways:
            way.turn(lossy)
        try:
            while not scene.is_over:
                before = [way.lost + way.held for way in ways]
                held = scene.draw.choice(ways)
                held.turn(replace(lossy, held_commit=scene.draw.randint(1, 5)))
                await scene.pause(0.2, 1.5)  # some are held for longer than the lease
                if [way.lost + way.held for way in ways] != before:
                    await scene.land("commit lost")
                held.turn(lossy)
        finally:
            for way in ways:
                way.turn(CLEAR)


class Slow(Plain):
    """K11: the way to Postgres is slow, in three ways, twice each."""

    name, meaning = "K11", "slow way to Postgres: 60+-40 ms, 600+-400 ms, 10 kB/s"

    async def run(self, scene: Scene) -> None:
        """See Kind."""
        loop = asyncio.get_running_loop()
        weathers = 2 * [Weather(0.06, 0.04), Weather(0.6, 0.4), Weather(rate=10_000)]
        scene.draw.shuffle(weathers)
        share = (scene.until - loop.time()) / len(weathers)
        ways = [replica.database for replica in scene.cluster.replicas]
        try:
            for weather in weathers:
                slow = await scene.land("slow")
                for way in ways:
                    way.turn(weather)
                await asyncio.sleep(share)
                scene.over(slow)
        finally:
            for way in ways:
                way.turn(CLEAR)
