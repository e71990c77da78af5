"""Processes that drive executions over one store in memory, and handlers that wait for gates."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

from flowkeep.handlers import HandlerError, StepContext, handler
from persistence.memory import MemoryRepository
from persistence.model import ExecutionDetail, Scope, Step
from persistence.transition import Created
from service.app import Engine, build_engine
from service.config import Config
from service.engine.handlers.create_task import create_task
from service.engine.handlers.registry import Registry
from service.engine.handlers.wait import wait
from service.engine.requests import StartRequest
from service.engine.running.leases import LeaseKeeper
from tests.unit.attempts import carried

SCOPE = Scope("acme")
TTL = 600.0
PATIENCE = 20.0
SELDOM = 600.0
"""So many seconds between looks that nothing is found by one within a test."""


class House:
    """A store, processes that drive its executions, and handlers that wait for gates."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.repository = MemoryRepository()
        self.gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.called: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.stopped: list[str] = []
        self.contexts: list[StepContext] = []
        self._stack = stack

    def handlers(self) -> list[Callable[..., Any]]:
        """Those of every process."""

        @handler("give")
        async def give(context: StepContext, value: Any = None) -> Any:
            """Give a value."""
            self.contexts.append(context)
            self.called[context.step_path].set()
            return value

        @handler("peek", effect="none")
        async def peek(context: StepContext) -> None:
            """Have no effect."""
            self.called[context.step_path].set()

        @handler("gate", effect="external")
        async def gate(context: StepContext) -> Any:
            """Wait for the gate of the step."""
            self.contexts.append(context)
            self.called[context.step_path].set()
            try:
                await self.gates[context.step_path].wait()
            except asyncio.CancelledError:
                self.stopped.append(context.step_path)
                raise
            return context.attempt

        @handler("deaf", effect="external")
        async def deaf(context: StepContext) -> Any:
            """Wait for the gate of the step, whatever happens."""
            self.called[context.step_path].set()
            while not self.gates[context.step_path].is_set():
                try:
                    await self.gates[context.step_path].wait()
                except asyncio.CancelledError:
                    self.stopped.append(context.step_path)
                    self.called[f"{context.step_path} is told"].set()
            return "late"

        @handler("tidy", effect="external")
        async def tidy(context: StepContext) -> None:
            """Tidy up when told to stop, until the gate of the step lets it end."""
            self.called[context.step_path].set()
            try:
                await asyncio.Event().wait()
            finally:
                self.called[f"{context.step_path} tidies"].set()
                await self.gates[context.step_path].wait()
                self.stopped.append(context.step_path)

        @handler("break", effect="external")
        async def breaking(context: StepContext, times: int) -> Any:
            """Fail so many times."""
            if context.attempt <= times:
                raise HandlerError("BROKEN", f"attempt {context.attempt}")
            return context.attempt

        @handler("change")
        async def change(context: StepContext) -> Any:
            """Change what there is of variables."""
            context.variables["input"]["list"][0]["a"] = 2
            context.variables["input"]["more"] = 3
            return [context.variables["input"], sorted(context.variables)]

        return [give, peek, gate, deaf, tidy, breaking, change]

    @asynccontextmanager
    async def process(self, **settings: Any) -> AsyncIterator[Engine]:
        """A process that runs, inside."""
        quick = {"claim_interval": SELDOM, "watch_poll": SELDOM, "watch_bookmark": SELDOM, "cancel_grace": 0.1}
        config = Config(**{**quick, **settings})
        registry = Registry([wait(), create_task(), *map(carried, self.handlers())])
        engine = build_engine(config, self.repository, registry)
        leases = LeaseKeeper(self.repository, engine.runner.tenure, engine.clock, TTL)
        await leases.register(alone=False)
        engine.runner.start()
        try:
            yield engine
        finally:
            await engine.runner.stop()
            await leases.end()

    async def open(self, **settings: Any) -> Engine:
        """A process that runs to the end of the test."""
        return await self._stack.enter_async_context(self.process(**settings))

    async def wait_for(self, path: str) -> None:
        """Return when the handler of a step has been called."""
        async with asyncio.timeout(PATIENCE):
            await self.called[path].wait()

    async def ended(self, engine: Engine, created: Created) -> ExecutionDetail:
        """The execution when it has ended."""
        async with asyncio.timeout(PATIENCE):
            async for _ in engine.executions.watch(SCOPE, created.execution.id, 0):
                pass
        return await self.repository.get_detail(SCOPE, created.execution.id)


@asynccontextmanager
async def opened_house() -> AsyncIterator[House]:
    """A house in which nothing runs yet; at the end all gates are open, and all processes stop."""
    async with AsyncExitStack() as stack:
        found = House(stack)
        try:
            yield found
        finally:
            for gate in list(found.gates.values()):
                gate.set()


def step(step_id: str, handler_name: str = "give", **fields: Any) -> dict[str, Any]:
    """A step of a definition."""
    return {"id": step_id, "handler": handler_name, **fields}


async def begun(engine: Engine, *steps: dict[str, Any], **request: Any) -> Created:
    """An execution of a workflow of these steps."""
    workflow = await engine.workflows.create("acme", {"name": f"w-{uuid4()}", "steps": list(steps)}, "ann")
    return await engine.executions.execute(SCOPE, "ann", StartRequest(workflow.name, **request))


def by_path(detail: ExecutionDetail) -> dict[str, Step]:
    """The steps of an execution."""
    return {each.path: each for each in detail.steps}
