"""The faults that take something away that everybody needs: connections, locks, disk, the right time, readers."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import struct
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import grpc.aio

from flowkeep.requests import execute_request
from flowkeep.v1.execution_service_pb2 import WatchExecutionRequest
from flowkeep.v1.execution_service_pb2_grpc import ExecutionServiceStub
from tests.e2e.process import run_command
from tests.faults.caller import Caller, History
from tests.faults.cluster import TTL, Cluster
from tests.faults.kinds import Plain, Scene, VoidError


class Exhausted(Plain):
    """K14: no connection is free, a row is locked by a session that is stopped, or by one that idles."""

    name, meaning = "K14", "pool exhausted; row lock held by a stopped backend; idle in transaction"
    settings: Mapping[str, str] = {"FLOWKEEP_DATABASE_POOL": "2"}

    async def run(self, scene: Scene) -> None:
        """See Kind."""
        troubles = [self._flood, self._stopped_lock, self._idle_lock]
        number = scene.draw.randrange(len(troubles))
        while not scene.is_over:
            await scene.land("exhausted")
            await troubles[number % len(troubles)](scene)
            number += 1
            await scene.pause(0.5, 1.5)

    async def _flood(self, scene: Scene) -> None:
        """Many more reads at a time than there are connections."""
        victim = scene.victim()
        caller = Caller("flood", scene.cluster.replicas, History())
        end = asyncio.get_running_loop().time() + 2 * TTL

        async def read() -> None:
            while asyncio.get_running_loop().time() < end:
                await caller.list(victim)

        await asyncio.gather(*(read() for _ in range(16)))

    async def _stopped_lock(self, scene: Scene) -> None:
        """A session that holds the lock of a row in flight is stopped for a while."""
        connection = await scene.cluster.postgres.connect()
        try:
            if await self._lock(scene, connection):
                os.kill(connection.get_server_pid(), signal.SIGSTOP)
                try:
                    await asyncio.sleep(2 * TTL)
                finally:
                    os.kill(connection.get_server_pid(), signal.SIGCONT)
        finally:
            connection.terminate()

    async def _idle_lock(self, scene: Scene) -> None:
        """A session holds the lock and does nothing."""
        connection = await scene.cluster.postgres.connect()
        try:
            if await self._lock(scene, connection):
                await asyncio.sleep(3 * TTL)
        finally:
            connection.terminate()

    async def _lock(self, scene: Scene, connection: asyncpg.Connection[asyncpg.Record]) -> bool:
        in_flight = await scene.cluster.owned()
        if not in_flight:
            return False
        await connection.execute("BEGIN")
        await connection.execute("SELECT 1 FROM executions WHERE id = $1 FOR UPDATE", scene.draw.choice(in_flight))
        return True


_NO_SPACE = "No space left on device"


class DiskFull(Plain):
    """K15: the disk of Postgres fills up and is freed again."""

    name, meaning = "K15", "disk full on a 256 MiB tmpfs, then freed"

    def __init__(self) -> None:
        self.postgres_folder: Path | None = None

    def notes(self, cluster: Cluster) -> Mapping[str, object]:
        """See Kind."""
        return {"Postgres had no space": cluster.postgres.log.count(_NO_SPACE)}

    async def prepare(self) -> Mapping[str, str]:
        """See Kind."""
        folder = Path(tempfile.mkdtemp(prefix="flowkeep-disk-", dir="/tmp"))
        done = await run_command("mount", "-t", "tmpfs", "-o", "size=256m,mode=711", "tmpfs", str(folder))
        if done.code != 0:
            shutil.rmtree(folder)
            raise VoidError(f"a tmpfs of our own cannot be mounted here: {done.err.strip()}")
        self.postgres_folder = folder
        return {}

    async def clean_up(self) -> None:
        """See Kind."""
        folder, self.postgres_folder = self.postgres_folder, None
        if folder is not None:
            await run_command("umount", str(folder))
            shutil.rmtree(folder)

    async def run(self, scene: Scene) -> None:
        """See Kind."""
        assert self.postgres_folder is not None
        ballast = self.postgres_folder / "ballast"
        postgres = scene.cluster.postgres
        while not scene.is_over:
            await scene.land("disk full")
            try:
                await asyncio.to_thread(_fill, ballast)
                await scene.pause(1.5, 3.0)
            finally:
                ballast.unlink(missing_ok=True)
                if postgres.has_gone:
                    await postgres.start()
            await postgres.ready()
            scene.accepting()
            await scene.pause(2.5, 4.0)
        if _NO_SPACE not in postgres.log:
            raise VoidError("Postgres never noticed that the disk was full")


def _fill(ballast: Path) -> None:
    """Write until nothing more fits, with blocks that get smaller."""
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 16, 1 << 12):
            with suppress(OSError):
                while True:
                    file.write(b"\0" * size)


class Skewed(Plain):
    """K16: each replica has another time, up to five minutes wrong, and it jumps."""

    name, meaning = "K16", "replica clocks +-300 s and jumping"
    RANGE = 300.0

    def __init__(self) -> None:
        self._folder: Path | None = None

    async def prepare(self) -> Mapping[str, str]:
        """See Kind."""
        compiler = shutil.which("cc")
        if compiler is None:
            raise VoidError("there is no C compiler for the library that shifts clocks")
        self._folder = Path(tempfile.mkdtemp(prefix="flowkeep-clock-"))
        library = self._folder / "clock.so"
        source = Path(__file__).with_name("clock.c")
        done = await run_command(compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl")
        if done.code != 0:
            raise VoidError(f"the library that shifts clocks cannot be built: {done.err.strip()[:500]}")
        self.set_clock("", 0.0)
        return {"LD_PRELOAD": str(library), "CHAOS_CLOCKS": str(self._folder)}

    async def clean_up(self) -> None:
        """See Kind."""
        if self._folder is not None:
            shutil.rmtree(self._folder)

    def set_clock(self, process: str, offset: float) -> None:
        """Shift the clock of a process by its id; of all that have no shift of their own when it is empty."""
        assert self._folder is not None
        beside = self._folder / f"{process or 'default'}.new"
        beside.write_bytes(struct.pack("q", int(offset * 1e9)))
        beside.rename(self._folder / (process or "default"))

    async def run(self, scene: Scene) -> None:
        """See Kind."""
        replicas = scene.cluster.replicas
        try:
            while not scene.is_over:
                victim = scene.victim()
                await scene.land("clock", victim)
                self.set_clock(str(victim.server.pid), scene.draw.uniform(-self.RANGE, self.RANGE))
                await scene.pause(0.5, 2.0)
        finally:
            for replica in replicas:
                self.set_clock(str(replica.server.pid), 0.0)


class Stuck(Plain):
    """K18: most watchers read nothing, or five messages a second."""

    name, meaning = "K18", "many watchers stuck or slow"
    settings: Mapping[str, str] = {"FLOWKEEP_WATCH_PATIENCE": "3.0"}
    COUNT = 150

    async def run(self, scene: Scene) -> None:
        """See Kind."""
        history = History()
        caller = Caller("bulk", scene.cluster.replicas, history)
        watching: list[asyncio.Task[None]] = []
        try:
            while not scene.is_over:
                await scene.land("stuck watchers")
                replica = scene.victim()
                call = await caller.execute(replica, execute_request("bulk", {"number": 0}), "bulk 0")
                room = self.COUNT - sum(not task.done() for task in watching)
                if call.execution_id:
                    watching += self._watch(scene, call.execution_id, min(room, 30))
                await scene.pause(0.5, 1.5)
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)

    def _watch(self, scene: Scene, execution_id: str, count: int) -> Sequence[asyncio.Task[None]]:
        replicas = scene.cluster.replicas
        stubs = [ExecutionServiceStub(replica.channel()) for replica in replicas]
        return [
            asyncio.create_task(_idle(scene.draw.choice(stubs), execution_id, 0.2 if number % 2 else 0.0, scene.draw))
            for number in range(max(0, count))
        ]


async def _idle(stub: Any, execution_id: str, pause: float, draw: random.Random) -> None:
    """Open a stream and read a message now and then, or never."""
    call = stub.WatchExecution(WatchExecutionRequest(execution_id=execution_id))
    try:
        await asyncio.sleep(draw.uniform(0.0, 0.2))
        while pause:
            await asyncio.sleep(pause)
            async with asyncio.timeout(5.0):
                if await call.read() is grpc.aio.EOF:
                    return
        await asyncio.Event().wait()
    except (grpc.aio.AioRpcError, TimeoutError):
        return
    finally:
        call.cancel()
