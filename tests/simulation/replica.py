"""One process start of a replica: the engine as the service wires it, on a simulated connection to the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from random import Random
from typing import Any, cast
from uuid import UUID

from persistence.errors import PersistenceError
from persistence.repository import Repository
from service.app import Surroundings, build_engine
from service.config import Config
from service.engine.clock import StoreClock
from service.engine.debugging import Debugging
from service.engine.handlers.builtin import ENGINE_HANDLERS
from service.engine.handlers.registry import Registry
from service.engine.parsing import Defaults
from service.engine.running.leases import LeaseKeeper
from service.engine.signal_starts import SignalStarts
from service.engine.signalling import Signalling
from tests.simulation.database import BEGINNING, Database
from tests.simulation.effects import Effects
from tests.simulation.history import History
from tests.simulation.link import Link, Weather
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.scenario import Scenario

DEFAULTS = Defaults(execution_timeout=60.0, step_timeout=20.0)
CONFIG = Config(
    execution_timeout=DEFAULTS.execution_timeout,
    step_timeout=DEFAULTS.step_timeout,
    claim_interval=0.5,
    cancel_grace=1.0,
    watch_poll=0.5,
    watch_bookmark=2.0,
)
CLOSE_PATIENCE = 1.0


class Replica:
    """The engine in a process, from its start to its end or its death."""

    def __init__(
        self, name: str, loop: VirtualLoop, database: Database, scenario: Scenario, skew: float, history: History
    ) -> None:
        self.process = Process(name)
        self.process.lateness = scenario.late_rate
        self.history = history
        self.is_up = False
        self.up = asyncio.Event()
        self.died = asyncio.Event()
        self.calls: dict[asyncio.Future[Any], None] = {}
        self._loop = loop
        self._random = Random(f"{scenario.seed} {name}")
        weather = Weather(scenario.busy_rate, scenario.lost_rate, scenario.held_rate)
        self.link = Link(database, self.process, weather, Random(f"{scenario.seed} {name} network"), scenario.slowness)
        self.link.writer.patience = scenario.unknown_timeout
        repository = cast(Repository, self.link)
        self.effects = Effects(loop, history, self.process)
        registry = Registry((*self.effects.handlers(), *ENGINE_HANDLERS.values()))
        self.clock = StoreClock(loop.time)
        # What this machine takes for the time; the store says better.
        self.clock._known = self.clock._known._replace(moment=BEGINNING + timedelta(seconds=loop.time() + skew))
        outside = Surroundings(self.clock, self.new_id, self.new_incarnation, self._random.random, name="")
        config = CONFIG.model_copy(update={"max_running": scenario.max_running, "park_after": scenario.park_after})
        engine = self.process.context().run(build_engine, config, repository, registry, outside)
        self.hub, self.runner, self.executions = engine.hub, engine.runner, engine.executions
        self.people, self.control = engine.people, engine.control
        self.bulks, self._carrier = engine.bulks, engine.carrier if scenario.bulks else None
        self.signalling = Signalling(repository, engine.workflows, engine.control)
        self.signal_starts = SignalStarts(repository, engine.workflows, self.signalling, engine.executions.creations)
        self.debugging = Debugging(repository, engine.workflows, engine.control, registry)
        self.effects.runner = self.runner
        self.leases = LeaseKeeper(repository, self.runner.tenure, self.clock, scenario.ttl, self.new_incarnation)
        loop.spawn(self.process, self._serve(), "serve")

    def new_id(self, _: datetime | None = None) -> UUID:
        """Return a UUIDv7 of this time."""
        milliseconds = int(self._loop.time() * 1000) + int(BEGINNING.timestamp() * 1000)
        return UUID(int=milliseconds << 80 | 0x7 << 76 | 0b10 << 62 | self._random.getrandbits(62))

    def new_incarnation(self) -> UUID:
        """Return the id of a lease."""
        return self.new_id()

    @property
    def is_reachable(self) -> bool:
        """Whether callers get through."""
        return self.is_up and not self.process.is_dead

    async def _serve(self) -> None:
        await self.link.committer.open()
        await self._register()
        self.is_up = True
        self.up.set()
        self.lease = self.runner.tasks.keep(self.leases.keep, "lease")
        self.runner.start()
        if self._carrier is not None:
            self.runner.tasks.keep(self._carrier.keep, "operations in bulk")

    async def _register(self) -> None:
        while True:
            try:
                await self.leases.register(alone=False)
            except PersistenceError:
                await asyncio.sleep(0.2)  # somebody starts it again
            else:
                return

    async def stop(self) -> None:
        """End as on SIGTERM: watchers first, then calls, executions, and the lease."""
        self.is_up = False
        self.hub.close()
        await asyncio.sleep(0.05)
        calls = [task for task in self.process.open_tasks if task.get_name() == "call"]
        for task in calls:
            task.cancel()
        if calls:
            await asyncio.wait(calls, timeout=CLOSE_PATIENCE)
        if hasattr(self, "lease"):
            self.lease.cancel()
        await self.runner.stop()
        try:
            async with asyncio.timeout(CLOSE_PATIENCE):
                await self.leases.end()
        except (PersistenceError, TimeoutError):
            return

    def call(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> asyncio.Future[Any]:
        """Let a caller outside ask something; the future gives the answer, or ConnectionError when the process dies."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        if not self.is_reachable:
            answer.set_exception(ConnectionError("nobody there"))
            return answer
        task = self._loop.spawn(self.process, make(), "call")
        self.calls[answer] = None

        def answered(done: asyncio.Task[Any]) -> None:
            self.calls.pop(answer, None)
            if answer.done():
                _ = done.cancelled() or done.exception()
            elif done.cancelled():
                answer.set_exception(ConnectionError("the process stopped"))
            elif error := done.exception():
                answer.set_exception(error)
            else:
                answer.set_result(done.result())

        def given_up(done: asyncio.Future[Any]) -> None:
            if done.cancelled() and not self.process.is_dead:
                task.cancel()

        task.add_done_callback(answered)
        answer.add_done_callback(given_up)
        return answer

    def die(self) -> None:
        """End as on kill -9."""
        self.is_up = False
        self.died.set()
        self.history.deaths[self.process.name] = self._loop.time()
        self._loop.kill(self.process)
        self.link._database.listeners.pop(self.link, None)
        for answer in list(self.calls):
            if not answer.done():
                answer.set_exception(ConnectionError("the process died"))
        self.calls.clear()
