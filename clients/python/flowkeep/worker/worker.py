"""The worker: connects, runs what it is given, and keeps what it has done until the server has it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc

from flowkeep.arguments import whole
from flowkeep.channel import Token, call_metadata, checked_target, checked_tls, open_channel
from flowkeep.durations import Span, to_seconds
from flowkeep.errors import from_rpc_error
from flowkeep.retry import Backoff
from flowkeep.v1 import worker_service_pb2 as pb
from flowkeep.v1.worker_service_pb2_grpc import WorkerServiceStub

if TYPE_CHECKING:
    from flowkeep.worker.attempts import Attempts

log = logging.getLogger("flowkeep.worker")

FATAL = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
"""What does not get better when the worker comes again."""

MAX_VERSION, MAX_LABELS, MAX_KEY, MAX_LABEL = 64, 32, 64, 128

LAST_WORDS = 5.0
"""Seconds that a worker which stops waits for its last results to be settled."""


class Worker:
    """Serves handlers to the server at `target`, in `capacity` attempts at a time.

    `handlers` are modules with functions decorated by `flowkeep.handlers.handler`, such functions, or a list of both.
    Async functions run on the event loop, others in threads. `token` and `tls` are those of `flowkeep.Client`.
    `version` is that of its code and `labels` what else tells it from others: by both, steps choose workers.

    When the connection breaks or the server restarts, attempts go on, and the worker comes back by itself. Results are
    kept until the server says that they are in its store.

    Raises TypeError and ValueError for handlers or settings that are not as they must be.
    """

    def __init__(
        self,
        target: str = "localhost:50051",
        *,
        handlers: Any,
        token: Token = None,
        tls: bool | grpc.ChannelCredentials = False,
        capacity: int = 10,
        name: str = "",
        version: str = "",
        labels: Mapping[str, str] | None = None,
        grace: Span = 30.0,
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        try:
            from flowkeep.worker.functions import functions
        except ImportError as error:
            raise ImportError(f"a worker needs pydantic: install flowkeep-client[worker] ({error})") from error
        if not 1 <= whole("capacity", capacity) <= 1_000:
            raise ValueError(f"capacity must be a whole number from 1 to 1,000, not {capacity!r}")
        self._target, self._tls, self._options = checked_target(target), checked_tls(tls), options
        if not callable(token):
            call_metadata(token)
        self._token = token
        self._functions = functions(handlers)
        self._capacity = capacity
        self._grace = to_seconds(grace)
        self.name = name or f"{socket.gethostname()}:{os.getpid()}"
        self.version = _checked_version(version)
        self.labels = _checked_labels(labels or {})
        self.worker_id = str(uuid4())
        self.connected = asyncio.Event()
        """Set while the server knows the worker."""
        self._outbox: deque[pb.WorkRequest] = deque()
        self._told = asyncio.Event()
        self._stopping = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._attempts: Attempts

    def stop(self) -> None:
        """Take no more attempts; `run` returns when those that run have ended, after the grace at the latest."""
        self._stopping.set()
        self._told.set()

    async def run(self, *, signals: bool = True) -> None:
        """Serve until `stop` is called, or, with `signals`, SIGTERM or SIGINT comes.

        Raises FlowkeepError when the server refuses the worker for good: it lacks the permission `workers.work`, or a
        handler of it cannot be served. What a `token` that is a function raises is raised before there ever was a
        connection; afterwards it is logged, and the function asked again.
        """
        from flowkeep.worker.attempts import Attempts

        self._attempts = Attempts(self._functions, self._capacity, self._say, self._changed)
        loop = asyncio.get_running_loop()
        caught = [number for number in (signal.SIGTERM, signal.SIGINT) if signals]
        for number in caught:
            with suppress(NotImplementedError, RuntimeError, ValueError):  # not in the main thread, or on Windows
                loop.add_signal_handler(number, self.stop)
        serving = loop.create_task(self._serve())
        try:
            stopping = loop.create_task(self._stopping.wait())
            await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not serving.done():
                await self._come_to_rest(serving)
            if serving.done() and not serving.cancelled():
                serving.result()
        finally:
            serving.cancel()
            await asyncio.wait((serving,))
            self._attempts.close()
            for number in caught:
                with suppress(NotImplementedError, RuntimeError, ValueError):
                    loop.remove_signal_handler(number)

    async def _come_to_rest(self, serving: asyncio.Task[None]) -> None:
        """Let what runs end, give back what does not, and wait until all of it is settled."""
        self._say(pb.WorkRequest(draining=pb.WorkerDraining()))
        await self._until_idle(serving, self._grace)
        for attempt in self._attempts.running:
            attempt.stop.set()
            if attempt.task is not None:
                attempt.task.cancel()
        await self._until_idle(serving, LAST_WORDS)

    async def _until_idle(self, serving: asyncio.Task[None], seconds: float) -> None:
        idle = asyncio.get_running_loop().create_task(self._idle.wait())
        await asyncio.wait((idle, serving), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()

    def _changed(self) -> None:
        if self._attempts.all:
            self._idle.clear()
        else:
            self._idle.set()

    def _say(self, request: pb.WorkRequest) -> None:
        from flowkeep.worker.attempts import MAX_PROGRESS

        if request.HasField("progress") and len(self._outbox) >= MAX_PROGRESS:
            return
        self._outbox.append(request)
        self._told.set()

    # --- streams

    async def _serve(self) -> None:
        """Keep a stream to the server open."""
        backoff = Backoff()
        async with open_channel(self._target, self._tls, self._options) as channel:
            stub: Any = WorkerServiceStub(channel)
            was_connected = False
            while True:
                try:
                    metadata = call_metadata(self._token)
                except Exception as missing:  # of a function that gives tokens: it is code of anybody
                    if not was_connected:
                        raise
                    pause = backoff.next()
                    log.warning("there is no token for %s (%r); next try in %.1f s", self._target, missing, pause)
                    await asyncio.sleep(pause)
                    continue
                try:
                    await self._stream(stub.Work(metadata=metadata), backoff)
                    pause = backoff.next()
                except grpc.aio.AioRpcError as failure:
                    error = from_rpc_error(failure)
                    if error.code in FATAL or (
                        error.code is grpc.StatusCode.UNAUTHENTICATED and not callable(self._token)
                    ):
                        raise error from failure
                    pause = backoff.after(error)
                    log.warning("not connected to %s: %s; next try in %.1f s", self._target, error, pause)
                except (TimeoutError, asyncio.InvalidStateError) as broken:
                    pause = backoff.next()
                    log.warning("the server does not answer (%s); next try in %.1f s", broken, pause)
                except asyncio.CancelledError:
                    task = asyncio.current_task()
                    if task is None or task.cancelling():
                        raise
                    pause = backoff.next()  # by the other side, such as a server that had no room to begin with it
                finally:
                    was_connected |= self.connected.is_set()
                    self.connected.clear()
                await asyncio.sleep(pause)

    async def _stream(self, call: Any, backoff: Backoff) -> None:
        """Serve one stream until it ends. Raises AioRpcError, and TimeoutError when the server is silent."""
        try:
            register = pb.Register(
                name=self.name[:128],
                worker_id=self.worker_id,
                handlers=[function.message() for function in self._functions.values()],
                capacity=self._capacity,
                version=self.version,
                labels=self.labels,
                attempts=self._attempts.named,
            )
            await call.write(pb.WorkRequest(register=register))
            async with asyncio.timeout(60.0):
                first = await call.read()
            if first is grpc.aio.EOF or not first.HasField("registered"):
                raise asyncio.InvalidStateError("the server did not answer the registration")
            backoff.reset()
            self._registered(first.registered)
            interval = max(0.05, first.registered.heartbeat_interval.ToTimedelta().total_seconds())
            patience = first.registered.heartbeat_timeout.ToTimedelta().total_seconds()
            await self._talk(call, interval, patience)
        finally:
            call.cancel()

    def _registered(self, said: pb.Registered) -> None:
        """Go on where the last stream broke: say again what is not settled, and stop what is no longer wanted."""
        self._attempts.org = said.org
        for attempt in said.unwanted:
            self._attempts.cancel(attempt, is_unwanted=True)
        self._outbox.clear()
        for each in self._attempts.all:
            if each.result is not None:
                self._say(each.result)
        if self._stopping.is_set():
            self._say(pb.WorkRequest(draining=pb.WorkerDraining()))
        self.connected.set()
        log.info("connected to %s (%s) with %d handlers", self._target, said.server, len(self._functions))

    async def _talk(self, call: Any, interval: float, patience: float) -> None:
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._send(call, interval)), loop.create_task(self._receive(call, patience))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[1] not in done:  # a write fails without the status, which the reader has
                await asyncio.wait((tasks[1],), timeout=1.0)
            for task in (tasks[1], tasks[0]):
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _send(self, call: Any, interval: float) -> None:
        """Send what is to be said, and that the worker lives."""
        heartbeat = pb.WorkRequest(heartbeat=pb.Heartbeat())
        loop = asyncio.get_running_loop()
        due = loop.time() + interval
        while True:
            if loop.time() >= due:  # however much there is to say: only a heartbeat is answered
                due = loop.time() + interval
                await call.write(heartbeat)
            elif self._outbox:
                await call.write(self._outbox.popleft())
            else:
                self._told.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await self._told.wait()

    async def _receive(self, call: Any, patience: float) -> None:
        while True:
            async with asyncio.timeout(patience):
                said = await call.read()
            if said is grpc.aio.EOF:
                return
            match said.WhichOneof("message"):
                case "assignment":
                    self._attempts.start(said.assignment)
                case "cancelled":
                    is_stale = said.cancelled.reason == pb.AttemptCancelled.REASON_STALE
                    self._attempts.cancel(said.cancelled.attempt, is_unwanted=is_stale)
                case "settled":
                    self._attempts.settled(said.settled)
                case "draining":
                    log.info("the server stops; the worker goes on with another one, or when it is back")


def _checked_version(version: Any) -> str:
    """Return a version as it is sent. Raises ValueError."""
    if not isinstance(version, str) or len(version) > MAX_VERSION:
        raise ValueError(f"version must be a string of at most {MAX_VERSION} characters, not {version!r}")
    return version


def _checked_labels(labels: Any) -> dict[str, str]:
    """Return labels as they are sent. Raises TypeError, ValueError."""
    if not isinstance(labels, Mapping):
        raise TypeError(f"labels must be a mapping, such as {{'region': 'eu'}}, not {labels!r}")
    if len(labels) > MAX_LABELS:
        raise ValueError(f"labels must be at most {MAX_LABELS}, not {len(labels)}")
    for key, value in labels.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"labels must map strings to strings, not {key!r} to {value!r}")
        if not 0 < len(key) <= MAX_KEY or len(value) > MAX_LABEL:
            raise ValueError(
                f"a label has a key of 1 to {MAX_KEY} and a value of at most {MAX_LABEL} characters: {key!r}={value!r}"
            )
    return dict(labels)
