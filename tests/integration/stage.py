"""What tests of the whole service share: a server of their own, and handlers that they steer."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from uuid import uuid4

import grpc

import flowkeep
from flowkeep.errors import from_rpc_error
from flowkeep.handlers import HandlerError, StepContext, handler
from flowkeep.v1.execution_service_pb2_grpc import ExecutionServiceStub
from flowkeep.v1.workflow_service_pb2_grpc import WorkflowServiceStub
from persistence.repository import Repository
from service.app import running_server
from service.config import Config
from tests.patience import PATIENCE

PACE = {
    "watch_poll": 0.2,
    "watch_bookmark": 1.0,
    "stop_grace": 0.3,
    "cancel_grace": 0.3,
    "log_level": "error",
    "worker_heartbeat_timeout": 10 * PATIENCE,
}
"""The compressed parameters of CONTRACT; not the lease, which a busy machine would lose."""


class Stage:
    """Handlers under the control of a test, and a record of what they were called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.tokens: defaultdict[str, set[str]] = defaultdict(set)
        self.stopped: list[tuple[str, int]] = []
        self.opened: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.thread_released = threading.Event()
        self._tries: Counter[str] = Counter()
        self._called = asyncio.Condition()

    def attempts(self, path: str) -> list[int]:
        """The attempts of a step that were started, in order."""
        return [attempt for step, attempt in self.calls if step == path]

    def open(self, *names: str) -> None:
        """Let the gates of these names pass, from now on."""
        for name in names:
            self.opened[name].set()

    def release(self) -> None:
        """Let go of all that waits, so that nothing outlives the test."""
        self.open(*self.opened)
        self.thread_released.set()

    async def called(self, path: str, times: int = 1) -> None:
        """Return when the handler of a step has been called so many times."""
        async with asyncio.timeout(PATIENCE), self._called:
            await self._called.wait_for(lambda: len(self.attempts(path)) >= times)

    async def _enter(self, context: StepContext) -> None:
        self.calls.append((context.step_path, context.attempt))
        self.tokens[context.step_path].add(context.idempotency_token)
        async with self._called:
            self._called.notify_all()

    def handlers(self) -> list[Callable[..., Any]]:
        """The handlers, bound to this stage."""

        @handler("gate")
        async def gate(context: StepContext, name: str = "gate") -> Any:
            """Wait until the test opens the gate."""
            await self._enter(context)
            try:
                await self.opened[name].wait()
            except asyncio.CancelledError:
                self.stopped.append((context.step_path, context.attempt))
                raise
            return {"name": name, "attempt": context.attempt}

        @handler("count")
        async def count(context: StepContext, by: int = 1) -> Any:
            """Give the number of calls so far, times `by`."""
            await self._enter(context)
            return len(self.calls) * by

        @handler("take")
        async def take(context: StepContext, value: Any = None, give: Any = None) -> Any:
            """Take a value and give another."""
            await self._enter(context)
            return give

        @handler("fail", effect="external")
        async def fail(context: StepContext, code: str = "BROKEN", times: int = 1000, retryable: bool = True) -> Any:
            """Fail so many times, then give the number of the attempt."""
            await self._enter(context)
            self._tries[context.idempotency_token] += 1
            if self._tries[context.idempotency_token] <= times:
                raise HandlerError(code, f"attempt {context.attempt} broke", {"n": context.attempt}, retryable)
            return context.attempt

        @handler("crash")
        async def crash(context: StepContext) -> Any:
            """Raise what no handler should."""
            await self._enter(context)
            raise LookupError("here")

        @handler("progress")
        async def progress(context: StepContext, percents: list[int]) -> Any:
            """Report these percentages, then wait at the gate of the step's own path."""
            await self._enter(context)
            for percent in percents:
                context.report(percent, f"{percent} done")
            await self.opened[context.step_path].wait()
            return percents

        @handler("talk")
        async def talk(context: StepContext, texts: list[str]) -> Any:
            """Say these texts, each in a turn of its own, and one that cannot be sent; wait at the step's own gate."""
            await self._enter(context)
            await self.opened["talk"].wait()
            for text in (*texts, "\0é"):
                context.emit(text)
                await asyncio.sleep(0)
            await self.opened[context.step_path].wait()
            return len(texts)

        @handler("stubborn")
        async def stubborn(context: StepContext) -> Any:
            """Go on whatever happens, until the gate of the step's own path is open."""
            await self._enter(context)
            while not self.opened[context.step_path].is_set():
                try:
                    await self.opened[context.step_path].wait()
                except asyncio.CancelledError:
                    self.stopped.append((context.step_path, context.attempt))
            return "late"

        loop = asyncio.get_running_loop()

        @handler("thread")
        def thread(context: StepContext) -> Any:
            """Block a thread, which nothing can stop, until the test releases it."""
            asyncio.run_coroutine_threadsafe(self._enter(context), loop).result()
            self.thread_released.wait(PATIENCE)
            return "late"

        return [gate, count, take, fail, crash, progress, talk, stubborn, thread]


class Store:
    """A repository of which a test changes single methods."""

    def __init__(self, repository: Repository, **changed: Any) -> None:
        self._repository = repository
        vars(self).update(changed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._repository, name)


@dataclass
class Served:
    """A server that can be stopped before its client, and stubs without what the client adds."""

    target: str
    client: flowkeep.Client
    channel: grpc.aio.Channel
    stop: Callable[[], Awaitable[None]]
    workflows: Any = field(init=False)
    executions: Any = field(init=False)

    def __post_init__(self) -> None:
        self.workflows = WorkflowServiceStub(self.channel)
        self.executions = ExecutionServiceStub(self.channel)

    def client_with(self, token: str) -> flowkeep.Client:
        """A client that calls with a token."""
        return flowkeep.Client(self.target, token=token)


@asynccontextmanager
async def serving(repository: Repository, handlers: Sequence[Any] = (), **settings: Any) -> AsyncIterator[str]:
    """A server with these handlers beside the built-in ones; gives its address."""
    place = f"handlers_of_test_{uuid4().hex}"
    module = ModuleType(place)
    vars(module).update({function.__name__: function for function in handlers})
    sys.modules[place] = module
    settings = {"listen": "127.0.0.1:0", "handlers": [place] if handlers else [], **PACE, **settings}
    try:
        async with running_server(Config(**settings), repository, alone=False) as server:
            yield server.target
    finally:
        del sys.modules[place]


def step(step_id: str, handler_name: str = "count", **fields: Any) -> dict[str, Any]:
    """A step; what is no field of one is a parameter of its handler."""
    known = flowkeep.v1.workflow_pb2.Step.DESCRIPTOR.fields_by_name
    params = {name: value for name, value in fields.items() if name not in known}
    found = {name: value for name, value in fields.items() if name in known}
    return {"id": step_id, "handler": handler_name, "params": params, **found}


def wait_step(step_id: str = "pause", seconds: float = 1000.0) -> dict[str, Any]:
    """A step that waits for a timer."""
    return step(step_id, "wait", duration=seconds)


async def made(client: flowkeep.Client, *steps: dict[str, Any], **fields: Any) -> str:
    """Create a workflow of these steps and return its name."""
    name = fields.pop("name", f"w{uuid4().hex[:12]}")
    await client.create_workflow({"name": name, "steps": list(steps), **fields})
    return str(name)


async def log(client: flowkeep.Client, execution_id: str, after_seq: int = 0) -> list[flowkeep.ExecutionEvent]:
    """All events of an execution after a position, up to its end."""
    async with asyncio.timeout(PATIENCE):
        return [event async for event in client.watch(execution_id, after_seq)]


async def ended(client: flowkeep.Client, execution_id: str) -> flowkeep.Execution:
    """The execution when it has ended."""
    await log(client, execution_id)
    return await client.get_execution(execution_id)


def kinds(events: Sequence[flowkeep.ExecutionEvent]) -> list[str]:
    """What happened, event by event; of steps with their path."""
    found = []
    for event in events:
        kind = event.WhichOneof("kind") or ""
        body = getattr(event, kind)
        found.append(f"{kind} {body.path}" if "path" in body.DESCRIPTOR.fields_by_name else kind)
    return found


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Return when something holds that no signal tells of."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.01)


async def refusal(call: Any) -> flowkeep.FlowkeepError:
    """The error that a call of a stub ends with."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error)
    raise AssertionError("the call was not refused")
