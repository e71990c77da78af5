"""Workers of a chaos run: processes of the Python client behind a proxy, and one that says old results again."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc

from flowkeep.v1 import worker_service_pb2 as pb
from flowkeep.v1.worker_service_pb2_grpc import WorkerServiceStub
from flowkeep.worker.functions import functions
from tests.e2e.process import environment
from tests.faults.harness.cluster import Replica
from tests.faults.harness.proxy import Proxy
from tests.faults.harness.records import Replay
from tests.faults.harness.remote import remote
from tests.folders import ROOT
from tests.patience import PATIENCE

_HANDLERS = Path(__file__).with_name("remote.py")
_SILENT = "was heard"
"""Stands in what a server tells a worker that it has lost."""


class WorkerProcess:
    """`python -m flowkeep.worker`, which reaches one replica through a proxy."""

    def __init__(self, name: str, replica: Replica, way: Proxy, folder: Path, capacity: int = 8) -> None:
        self.name = name
        self.replica = replica
        self.way = way
        self._log = folder / f"{name}.log"
        self._capacity = capacity
        self._process: asyncio.subprocess.Process | None = None

    @property
    def log(self) -> str:
        """What all its processes have logged."""
        return self._log.read_text()

    async def start(self) -> None:
        """Begin a new process, which is another worker to the server."""
        options = ("--server", f"127.0.0.1:{self.way.port}", "--capacity", str(self._capacity), "--name", self.name)
        command = (sys.executable, "-m", "flowkeep.worker", str(_HANDLERS), *options, "--grace", "2")
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdout=log, stderr=log, env=environment({"PYTHONPATH": str(ROOT)})
            )

    async def kill(self) -> None:
        """Kill it and return when it is gone."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def end(self) -> None:
        """Let it stop in order, or kill it when that takes too long."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._process.wait()
        await self.kill()

    async def connected(self) -> None:
        """Return when its replica has it."""
        async with asyncio.timeout(PATIENCE), grpc.aio.insecure_channel(self.replica.server.target) as channel:
            stub: Any = WorkerServiceStub(channel)
            while True:
                with suppress(grpc.aio.AioRpcError):  # its database may be slow to answer for a while
                    found = (await stub.ListWorkers(pb.ListWorkersRequest())).workers
                    if any(each.name == self.name and each.server for each in found):
                        return
                await asyncio.sleep(0.1)


class Forgetful:
    """A worker that says nothing of its attempts until they are lost, comes back, and says then that they are done."""

    def __init__(self, replica: Replica, capacity: int = 3) -> None:
        self.replays: list[Replay] = []
        (function,) = functions([remote]).values()
        self._register = pb.Register(
            worker_id=str(uuid4()),
            name=f"forgetful at {replica.name}",
            capacity=capacity,
            handlers=[function.message()],
        )
        self._replica = replica
        self._held: list[pb.Attempt] = []

    async def run(self) -> None:
        """Go on until cancelled."""
        async with grpc.aio.insecure_channel(self._replica.server.target) as channel:
            stub: Any = WorkerServiceStub(channel)
            while True:
                async with self._stream(stub) as call:
                    self._held = await self._life(call)

    @asynccontextmanager
    async def _stream(self, stub: Any) -> AsyncIterator[Any]:
        call = stub.Work()
        try:
            yield call
        finally:
            call.cancel()

    async def _life(self, call: Any) -> list[pb.Attempt]:
        """Say again what is held, take what is given, be silent, and return what was lost thereby."""
        given: list[pb.Attempt] = []
        try:
            register = pb.Register()
            register.CopyFrom(self._register)
            register.attempts.extend(self._held)
            await call.write(pb.WorkRequest(register=register))
            for attempt in self._held:
                output = json.dumps({"attempt": attempt.attempt}).encode()
                await call.write(pb.WorkRequest(completed=pb.AttemptCompleted(attempt=attempt, output=output)))
            while (said := await call.read()) is not grpc.aio.EOF:
                if said.HasField("assignment"):
                    given.append(said.assignment.attempt)
                elif said.HasField("settled"):
                    self._settled(said.settled)
        except grpc.aio.AioRpcError as error:
            if _SILENT in (error.details() or ""):
                return given
            await asyncio.sleep(0.2)
        return []  # whether they were lost is not known

    def _settled(self, said: pb.AttemptSettled) -> None:
        which = said.attempt
        self.replays.append(Replay(which.execution_id, which.step_path, which.attempt, said.is_recorded, said.message))
