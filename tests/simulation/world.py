"""Runs one scenario: replicas on one store, callers, faults, and then a calm in which everything has to end."""

from __future__ import annotations

import asyncio
import gc
import sys
import warnings
from collections.abc import Coroutine, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from random import Random
from typing import Any
from uuid import UUID

import structlog

from persistence.errors import CursorAheadError, UnavailableError
from persistence.model import Scope
from service.engine.handlers.builtin import ENGINE_HANDLERS
from service.engine.handlers.registry import Registry
from service.engine.parsing import parse
from tests.simulation.clients import OWNER, Clients
from tests.simulation.database import Database, finished
from tests.simulation.effects import Effects
from tests.simulation.history import History
from tests.simulation.link import CLEAR, LATEST
from tests.simulation.loop import WORLD, DeadlockError, VirtualLoop
from tests.simulation.operators import Operators
from tests.simulation.replica import DEFAULTS, Replica
from tests.simulation.scenario import Fault, Scenario

AMBUSH = 5.0
"""Virtual seconds that a fault waits for the call at which it is to happen."""

CALM = 90.0
"""Virtual seconds after the last heal in which everything has to end: what is left of timers, retries and timeouts, and
of runs that begin after an end.
"""


class World:
    """A run of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.history = History()
        self.loop = VirtualLoop(Random(f"{scenario.seed} schedule"))
        self.database = Database(self.loop, self.history)
        self.replicas: list[Replica] = []
        self.all_replicas: list[Replica] = []
        self.clients = Clients(self, Random(f"{scenario.seed} clients"))
        self.operators = Operators(self, self.clients, Random(f"{scenario.seed} operators"))
        self._restarts: list[asyncio.Task[None]] = []
        self._is_calm = False
        self._starts = [0] * scenario.replicas

    def run(self) -> History:
        """Run it all and return what was seen."""
        with _logs(self), warnings.catch_warnings(record=True, action="always") as warned:
            try:
                self.loop.run(self._run())
            except DeadlockError as error:
                self.history.problems.append(f"I19: {error}")
            self.history.problems += [f"I20: {warning.message}" for warning in warned]
            self.history.problems += [f"I20: {error}" for error in self.loop.errors]
        return self.history

    def close(self) -> None:
        """Let go of everything without a word: what belonged to dead processes was never to end."""
        for replica in self.all_replicas:
            for task in replica.process.open_tasks:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
        before, sys.unraisablehook = sys.unraisablehook, _ignore
        try:
            with warnings.catch_warnings(action="ignore"):
                self.loop.forget()
                for replica in self.all_replicas:
                    replica.process.tasks.clear()
                self.all_replicas.clear()
                self.replicas.clear()
                gc.collect()
        finally:
            sys.unraisablehook = before

    async def until(self, time: float) -> None:
        """Return at a virtual time."""
        await asyncio.sleep(max(0.0, time - self.loop.time()))

    # --- the course of a run

    async def _run(self) -> None:
        self._keep_workflows()
        for index in range(self.scenario.replicas):
            self.replicas.append(self._start(index))
            self.all_replicas.append(self.replicas[index])
        tasks = [self._spawn(self.clients.request(request), "request") for request in self.scenario.requests]
        for number, spec in enumerate(self.scenario.orders):
            tasks += [self._spawn(self.clients.watch(number, spec), "watch") for _ in range(spec.watchers)]
            if spec.cancel_at is not None:
                tasks.append(self._spawn(self.clients.cancel(number, spec), "cancel"))
            if spec.paused_at is not None:
                tasks.append(self._spawn(self.clients.pause(number, spec), "pause"))
            if spec.debugged:
                tasks.append(self._spawn(self.clients.debug(number, spec), "debug"))
            if spec.signals:
                tasks.append(self._spawn(self.clients.signal(number, spec), "signal"))
            if spec.answered_after is not None:
                tasks.append(self._spawn(self.clients.answer(number, spec.answered_after), "answer"))
            if spec.retries:
                tasks.append(self._spawn(self.operators.retry(number, spec), "retry"))
            for place, fork in enumerate(spec.forks):
                tasks.append(self._spawn(self.operators.fork(number, fork, place), "fork"))
        for place, bulk in enumerate(self.scenario.bulks):
            tasks.append(self._spawn(self.operators.act(bulk, place), "bulk"))
        tasks += [self._spawn(self.operators.halt(halt), "halt") for halt in self.scenario.halts]
        for place, signal in enumerate(self.scenario.signal_starts):
            tasks.append(self._spawn(self.operators.signal(signal, place), "signal with start"))
        faults = [self._spawn(self._inflict(fault), "fault") for fault in self.scenario.faults]
        await asyncio.gather(*faults)
        await self.until(self.scenario.healed_at)
        self._heal()
        await asyncio.gather(*(replica.up.wait() for replica in self.replicas))
        await self._settle(tasks)
        await asyncio.sleep(LATEST)  # what was still on its way to the store has come
        await self._stop_all()

    def _keep_workflows(self) -> None:
        registry = self._registry()
        for number, spec in enumerate(self.scenario.workflows):
            parse(spec.document, registry, DEFAULTS)
            finished(self.database.memory.create_workflow(spec.org, UUID(int=number + 1), spec.document, OWNER))

    def _registry(self) -> Registry:
        return Registry((*Effects(self.loop, self.history, WORLD).handlers(), *ENGINE_HANDLERS.values()))

    def _spawn(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        return self.loop.spawn(WORLD, coroutine, name)

    def _start(self, index: int) -> Replica:
        self._starts[index] += 1
        name = f"r{index}.{self._starts[index]}"
        self.history.note(self.loop.time(), name, "starts")
        skew = self.scenario.skews[index]
        replica = Replica(name, self.loop, self.database, self.scenario, skew, self.history)
        if self._is_calm:
            self._clear(replica)
        replica.effects.kill = lambda: self._killed(replica)
        return replica

    def _killed(self, replica: Replica) -> None:
        """Let a step take its process down; somebody starts another one."""
        self.history.note(self.loop.time(), replica.process, "killed")
        replica.die()
        begin = self.loop.time()

        async def restart() -> None:
            await asyncio.sleep(0.3)
            index = int(replica.process.name[1 : replica.process.name.index(".")])
            if self.replicas[index] is replica:
                self._replace(index)
            self.history.disturbances.append((f"r{index}", begin, self.loop.time()))

        self._restarts.append(self._spawn(restart(), "restart"))

    def _replace(self, index: int) -> None:
        self.replicas[index] = self._start(index)
        self.all_replicas.append(self.replicas[index])

    def _heal(self) -> None:
        self.history.note(self.loop.time(), "healed")
        self._is_calm = True
        for replica in self.replicas:
            self._clear(replica)

    def _clear(self, replica: Replica) -> None:
        replica.link.weather = CLEAR
        replica.process.lateness = 0.0

    async def _settle(self, tasks: list[asyncio.Task[Any]]) -> None:
        """Wait until every caller has its answer and every execution has ended; I19 when that takes too long."""
        end = self.loop.time() + CALM
        await asyncio.wait(tasks, timeout=CALM)
        while (left := self._unfinished()) and self.loop.time() < end:
            await self.until(self.loop.time() + 0.5)
        self.history.problems += [f"I19: {execution_id} has not ended" for execution_id in left]
        for task in tasks:
            if not task.done():
                self.history.problems.append(f"I19: a caller's {task.get_name()} got no end")
                task.cancel()
            elif not task.cancelled() and (error := task.exception()):
                self.history.problems.append(f"a caller's {task.get_name()} broke: {error!r}")
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*self._restarts)
        await asyncio.gather(*(replica.up.wait() for replica in self.replicas))
        await self._probe()

    def _unfinished(self) -> list[UUID]:
        return [i for i, row in self.database.tables.executions.items() if not row.execution.state.is_end]

    async def _probe(self) -> None:
        """Ask every replica something: five calls each must succeed."""
        for replica in self.replicas:
            for execution_id, row in list(self.database.tables.executions.items())[:5]:
                get = partial(replica.runner.context.journal.get_detail, Scope(row.execution.org), execution_id)
                try:
                    async with asyncio.timeout(5.0):
                        found = await replica.call(get)
                except Exception as error:
                    self.history.problems.append(f"I19: {replica.process} does not answer in the calm: {error!r}")
                else:
                    if found != row.detail():
                        self.history.problems.append(f"I5: Get of {execution_id} differs from the row")
                    await self._probe_cursor(replica, Scope(row.execution.org), execution_id, len(row.events))

    async def _probe_cursor(self, replica: Any, scope: Scope, execution_id: UUID, last_seq: int) -> None:
        """Watch from beyond the end: that is refused at once (W7)."""

        async def watch() -> None:
            async with aclosing(replica.executions.watch(scope, execution_id, last_seq + 1)) as parts:
                async for _ in parts:
                    return

        try:
            await replica.call(watch)
        except CursorAheadError:
            return
        self.history.problems.append(f"I11: a watch of {execution_id} from beyond its end was not refused (W7)")

    async def _stop_all(self) -> None:
        for replica in self.replicas:
            await self._stop(replica)
        for incarnation, expiry in self.database.tables.leases.items():
            if expiry > self.database.now() and not self._belongs_to_dead(incarnation):
                self.history.problems.append(f"I20: the lease of {incarnation} was left behind")

    def _belongs_to_dead(self, incarnation: UUID) -> bool:
        return all(replica.runner.incarnation != incarnation for replica in self.replicas)

    async def _stop(self, replica: Replica) -> bool:
        """Stop a process in order; False when a step took it down before."""
        stopping = self.loop.spawn(replica.process, replica.stop(), "stop")
        death = self._spawn(replica.died.wait(), "death")
        await asyncio.wait({stopping, death}, return_when=asyncio.FIRST_COMPLETED)
        death.cancel()
        if replica.process.is_dead:
            return False
        left = [task for task in replica.process.open_tasks if task.get_name() != "committer"]
        if left:
            await asyncio.sleep(3.0)  # stubborn handlers may take longer than their grace
            left = [task for task in left if not task.done()]
        self.history.problems += [f"I20: {replica.process} leaks the task {task.get_name()!r}" for task in left]
        replica.die()
        return True

    # --- faults

    async def _inflict(self, fault: Fault) -> None:
        await self.until(fault.time)
        begin = self.loop.time()
        if fault.kind == "outage":
            await self._outage(fault.duration)
        else:
            await self._hit(fault)
        who = "store" if fault.replica < 0 else f"r{fault.replica}"
        self.history.disturbances.append((who, begin, self.loop.time()))

    async def _outage(self, duration: float) -> None:
        self._landed_on("outage", *self.replicas)
        self.history.note(self.loop.time(), "store away")
        self.database.is_away = True
        await asyncio.sleep(duration)
        self.database.is_away = False
        self.history.note(self.loop.time(), "store back")

    async def _hit(self, fault: Fault) -> None:
        replica = self.replicas[fault.replica]
        kind, _, place = fault.kind.partition(" at ")
        if place and not await self._ambushed(replica, place):
            return
        if replica.process.is_dead or replica.process.is_frozen or not replica.is_up:
            return  # something else has happened to it already
        self._landed_on(fault.kind, replica)
        self.history.note(self.loop.time(), replica.process, fault.kind, fault.duration)
        match kind:
            case "crash":
                replica.die()
                await self._restart(fault)
            case "stop":
                if await self._stop(replica):
                    await self._restart(fault)
            case "cut":
                replica.link.is_cut = True
                await asyncio.sleep(fault.duration)
                replica.link.is_cut = False
            case "freeze" | "pulse":
                begin = self.loop.time()
                self.loop.freeze(replica.process)
                await asyncio.sleep(fault.duration)
                self.loop.thaw(replica.process)
                self.history.pauses.append((replica.process.name, begin, self.loop.time()))
        self.history.note(self.loop.time(), replica.process, fault.kind, "is over")

    async def _ambushed(self, replica: Replica, place: str) -> bool:
        """Return, whether it came in time, at the moment at which the store has carried out a call, unanswered."""
        came = asyncio.Event()
        replica.link.ambush = ("flush" if place == "write" else "claim", came.set)
        try:
            async with asyncio.timeout(AMBUSH):
                await came.wait()
        except TimeoutError:
            return False
        finally:
            replica.link.ambush = None
        return True

    async def _restart(self, fault: Fault) -> None:
        await asyncio.sleep(fault.duration)
        self._replace(fault.replica)

    def _landed_on(self, kind: str, *replicas: Replica) -> None:
        if any(replica.runner.runs for replica in replicas):
            self.history.landed.append(kind)


_RIGHT = ("execution quarantined", "handler is stuck")
"""Errors that are logged with reason: an attempt of a process that is frozen does not stop for seconds."""


def _ignore(_: object) -> None:
    """Coroutines of dead processes end in the middle of anything."""


@contextmanager
def _logs(world: World) -> Iterator[None]:
    """Take what the product logs: an error that nobody planned for is a finding."""

    def keep(_: Any, method: str, entry: Any) -> Any:
        if method in ("error", "critical", "exception"):
            error = entry.get("exc_info")
            # What an outage interrupts is taken up again later; the others are what they should be.
            if isinstance(error, UnavailableError) or entry.get("event") in _RIGHT:
                raise structlog.DropEvent
            world.history.problems.append(f"I20: logged {entry.get('event')!r}: {error!r}")
        else:
            world.history.note(world.loop.time(), "log", entry.get("event"), entry.get("error", ""))
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[keep],
        wrapper_class=structlog.make_filtering_bound_logger(30),
        context_class=dict,
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        structlog.configure(**before)
        if was_enabled:
            gc.enable()
