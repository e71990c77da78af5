"""The fault that takes away what sessions need: connections, and the rows that they write."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import asyncpg

from tests.faults.checks.owners import POOL_TAKEN, ROWS_LOCKED
from tests.faults.harness.caller import Caller, History
from tests.faults.harness.cluster import Cluster
from tests.faults.harness.database import Connection
from tests.faults.kinds.kind import Plain, Scene

_ROWS = 5
_AT_A_TIME = 25


class Exhausted(Plain):
    """K14: no connection is free, or rows are locked by a session that is stopped, or idles in a transaction."""

    name = "K14"
    meaning = "pool exhausted, Postgres's connections all taken, rows locked by a stopped session, idle for 6 TTL"
    settings: Mapping[str, str] = {"FLOWKEEP_DATABASE_POOL": "2"}

    def __init__(self) -> None:
        self._most = 0

    def notes(self, cluster: Cluster) -> Mapping[str, object]:
        """See Kind."""
        return {"sessions taken away from Postgres": self._most}

    async def run(self, scene: Scene) -> None:
        """See Kind."""
        troubles = [self._flood, self._stopped, self._taken]
        number = scene.draw.randrange(len(troubles))
        idle = asyncio.create_task(self._idle(scene))
        try:
            while not scene.is_over:
                await troubles[number % len(troubles)](scene)
                number += 1
            await idle
        finally:
            idle.cancel()
            await asyncio.gather(idle, return_exceptions=True)

    async def _flood(self, scene: Scene) -> None:
        """Many more reads at a time than the replica has connections."""
        victim = scene.victim()
        landing = await scene.land(POOL_TAKEN, victim)
        caller = Caller("flood", scene.cluster.replicas, History())
        end = asyncio.get_running_loop().time() + 2 * scene.cluster.ttl

        async def read() -> None:
            while asyncio.get_running_loop().time() < end:
                await caller.list(victim)

        await asyncio.gather(*(read() for _ in range(16)))
        scene.over(landing)
        await scene.pause(0.3, 0.8)

    async def _stopped(self, scene: Scene) -> None:
        """A session that holds locks is stopped for a while."""
        async with self._locks(scene) as session:
            landing = await scene.land(ROWS_LOCKED)
            os.kill(session.get_server_pid(), signal.SIGSTOP)
            try:
                await asyncio.sleep(2 * scene.cluster.ttl)
            finally:
                os.kill(session.get_server_pid(), signal.SIGCONT)
        scene.over(landing)
        await scene.pause(0.3, 0.8)

    async def _idle(self, scene: Scene) -> None:
        """A session holds locks in a transaction in which nothing happens, again and again, beside everything else."""
        while not scene.is_over:
            async with self._locks(scene):
                landing = await scene.land("idle in transaction")
                await asyncio.sleep(6 * scene.cluster.ttl)
            scene.over(landing)
            await scene.pause(0.3, 0.8)

    async def _taken(self, scene: Scene) -> None:
        """All connections that Postgres has are taken, and replicas that lose one of theirs find no other."""
        postgres = scene.cluster.postgres
        landing = await scene.land("connections taken")
        taken = await self._take(scene)
        try:
            own = [session.get_server_pid() for session in taken]
            rows = await taken[0].fetch(
                "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> ALL ($1)"
                " AND starts_with(usename, 'replica')",
                own,
            )
            for row in scene.draw.sample(rows, len(rows) // 3):
                await taken[0].execute("SELECT pg_terminate_backend($1)", row["pid"])
                taken += [session for session in [await _one(scene)] if session is not None]
            self._most = max(self._most, len(taken))
            await asyncio.sleep(2 * scene.cluster.ttl)
        finally:
            for session in taken:
                session.terminate()
        scene.over(landing)
        await postgres.ready()
        await scene.pause(2.0, 2.5)

    async def _take(self, scene: Scene) -> list[Connection]:
        """Return new sessions, with which Postgres has no place for any other."""
        taken: list[Connection] = []
        while True:
            found = await asyncio.gather(*(_one(scene) for _ in range(_AT_A_TIME)))
            taken += [session for session in found if session is not None]
            if None in found:
                return taken

    @asynccontextmanager
    async def _locks(self, scene: Scene) -> AsyncIterator[Connection]:
        """Hold the locks of some rows in flight inside."""
        while True:
            try:
                session = await scene.cluster.postgres.connect()
            except (asyncpg.TooManyConnectionsError, OSError):
                await asyncio.sleep(0.1)
                continue
            break
        try:
            await session.execute("BEGIN")
            await session.execute(
                "SELECT FROM executions WHERE end_time IS NULL ORDER BY random() LIMIT $1 FOR UPDATE SKIP LOCKED", _ROWS
            )
            yield session
        finally:
            session.terminate()


async def _one(scene: Scene) -> Connection | None:
    try:
        return await scene.cluster.postgres.connect()
    except asyncpg.TooManyConnectionsError:
        return None
