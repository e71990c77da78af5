"""A worker in the bare messages of the contract, which says exactly what a test lets it say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import grpc

from flowkeep.v1 import worker_service_pb2 as pb
from flowkeep.v1.handler_pb2 import Handler
from flowkeep.v1.worker_service_pb2_grpc import WorkerServiceStub
from tests.patience import PATIENCE


class RawWorker:
    """One stream of a worker."""

    def __init__(self, call: Any, worker_id: str) -> None:
        self.call = call
        self.worker_id = worker_id
        self.registered = pb.Registered()
        self._saying = asyncio.Lock()

    async def say(self, **message: Any) -> None:
        """Send one request, behind those that are on their way: a stream takes one at a time."""
        async with self._saying:
            await self.call.write(pb.WorkRequest(**message))

    async def hear(self, kind: str) -> Any:
        """Return the next message of a kind; answers to heartbeats are passed over, others are not."""
        async with asyncio.timeout(PATIENCE):
            while True:
                said = await self.call.read()
                assert said is not grpc.aio.EOF, "the stream ended"
                found = said.WhichOneof("message")
                if found == kind:
                    return getattr(said, kind)
                assert found == "heartbeat", said

    async def complete(self, attempt: pb.Attempt, output: Any = None) -> None:
        """Say that an attempt has succeeded."""
        await self.say(completed=pb.AttemptCompleted(attempt=attempt, output=json.dumps(output).encode()))

    async def fail(self, attempt: pb.Attempt, code: str = "BROKEN", **fields: Any) -> None:
        """Say that an attempt has failed."""
        await self.say(failed=pb.AttemptFailed(attempt=attempt, code=code, **fields))

    async def nothing_but_heartbeats(self, count: int = 2) -> None:
        """Return when the server has answered so many heartbeats and said nothing else."""
        for _ in range(count):
            await self.say(heartbeat=pb.Heartbeat())
            await self.hear("heartbeat")


def bare(attempt: pb.Attempt) -> pb.Attempt:
    """The attempt as all but its assignment name it, without the token."""
    return pb.Attempt(
        execution_id=attempt.execution_id,
        step_path=attempt.step_path,
        iteration=attempt.iteration,
        attempt=attempt.attempt,
    )


def handlers(*names: str, **fields: Any) -> list[Handler]:
    """Handlers of these names that take any params."""
    return [Handler(name=name, **fields) for name in names]


def register(*names: str, **fields: Any) -> pb.Register:
    """What a worker with these handlers says first."""
    given = {"worker_id": str(uuid4()), "capacity": 10, "handlers": handlers(*names), **fields}
    return pb.Register(**given)


@asynccontextmanager
async def working(
    channel: grpc.aio.Channel, *names: str, metadata: Sequence[tuple[str, str]] = (), **fields: Any
) -> AsyncIterator[RawWorker]:
    """A worker that is registered; its stream breaks at the end."""
    said = register(*names, **fields)
    call = WorkerServiceStub(channel).Work(metadata=metadata)
    worker = RawWorker(call, said.worker_id)
    try:
        await worker.say(register=said)
        worker.registered = await worker.hear("registered")
        yield worker
    finally:
        call.cancel()


async def refused(channel: grpc.aio.Channel, *requests: pb.WorkRequest) -> grpc.aio.AioRpcError:
    """The error that a stream with these requests ends with."""
    call = WorkerServiceStub(channel).Work()
    try:
        async with asyncio.timeout(PATIENCE):
            for request in requests:
                await call.write(request)
            while await call.read() is not grpc.aio.EOF:
                pass
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the stream was not refused")
