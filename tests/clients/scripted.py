"""A server that says to a worker what the test wants, for what a real one says at rare moments only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import grpc
from google.protobuf.duration_pb2 import Duration

from flowkeep.v1 import worker_service_pb2 as worker
from flowkeep.v1.worker_service_pb2_grpc import WorkerServiceServicer, add_WorkerServiceServicer_to_server
from tests.patience import PATIENCE

Kind = Literal["register", "heartbeat", "progress", "completed", "failed", "draining"]


@dataclass
class Stream:
    """One stream of a worker."""

    heard: asyncio.Queue[worker.WorkRequest | None] = field(default_factory=asyncio.Queue)
    told: asyncio.Queue[worker.WorkResponse | grpc.StatusCode] = field(default_factory=asyncio.Queue)
    authorization: str = ""
    """What the worker says to prove who it is."""

    async def hears(self, *kinds: Kind) -> Any:
        """Return the next thing of one of these kinds that the worker says; others are passed over."""
        async with asyncio.timeout(PATIENCE):
            while True:
                request = await self.heard.get()
                assert request is not None, f"the worker has ended the stream, and {kinds} did not come"
                kind = request.WhichOneof("message")
                if kind in kinds:
                    return getattr(request, str(kind))

    async def ends(self) -> None:
        """Return when the worker has said its last."""
        async with asyncio.timeout(PATIENCE):
            while await self.heard.get() is not None:
                pass

    def tell(self, **message: Any) -> None:
        """Say something to the worker."""
        self.told.put_nowait(worker.WorkResponse(**message))

    def cut(self, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        """Break the stream."""
        self.told.put_nowait(code)


class Server(WorkerServiceServicer):
    """The service, as the test plays it."""

    def __init__(self) -> None:
        self.target = ""
        self._streams: asyncio.Queue[Stream] = asyncio.Queue()

    async def stream(self, *unwanted: worker.Attempt) -> tuple[Stream, worker.Register]:
        """Return the next stream of the worker, registered, and what it said of itself."""
        async with asyncio.timeout(PATIENCE):
            stream = await self._streams.get()
        register = await stream.hears("register")
        # No worker is silent for too long because the machine is slow.
        often, late = Duration(nanos=50_000_000), Duration(seconds=int(PATIENCE))
        stream.tell(registered=worker.Registered(heartbeat_interval=often, heartbeat_timeout=late, unwanted=unwanted))
        return stream, register

    async def refuse(self, code: grpc.StatusCode) -> Stream:
        """Return the next stream of the worker, which is refused as soon as it has said what it is."""
        async with asyncio.timeout(PATIENCE):
            stream = await self._streams.get()
        await stream.hears("register")
        stream.cut(code)
        return stream

    async def Work(self, requests: AsyncIterator[worker.WorkRequest], context: Any) -> AsyncIterator[Any]:
        """Pass on what is said, both ways."""
        metadata = dict(context.invocation_metadata() or ())
        stream = Stream(authorization=str(metadata.get("authorization", "")))
        self._streams.put_nowait(stream)

        async def listen() -> None:
            async for request in requests:
                stream.heard.put_nowait(request)
            stream.heard.put_nowait(None)
            stream.told.put_nowait(worker.WorkResponse())

        listening = asyncio.create_task(listen())
        try:
            while not isinstance(response := await stream.told.get(), grpc.StatusCode):
                if not response.WhichOneof("message"):
                    return
                yield response
            await context.abort(response, "the test breaks the stream")
        finally:
            listening.cancel()

    async def ListWorkers(self, request: worker.ListWorkersRequest, context: Any) -> worker.ListWorkersResponse:
        """Know of none: no test asks."""
        return worker.ListWorkersResponse()


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    """A server that the test plays."""
    played = Server()
    server = grpc.aio.server()
    add_WorkerServiceServicer_to_server(played, server)
    played.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield played
    finally:
        await server.stop(None)
