"""The lease in a thread of its own: what holds up the event loop does not give away what all others do there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, suppress
from uuid import UUID

import structlog

from persistence.errors import PersistenceError, UnavailableError
from persistence.replicas import ReplicaRepository
from service.engine.clock import StoreClock
from service.engine.handlers.attempt import Attempt
from service.engine.running.leases import RETRY, LeaseKeeper
from service.engine.running.loop_watch import LOOK, LoopWatch
from service.engine.running.tenure import Tenure
from service.engine.tasks import TaskRegistry

log = structlog.get_logger(__name__)

ANSWER = 2.0
"""Seconds that the loop may take to drop what others took over, before the lease is asked about again."""


class LeaseThread:
    """Keeps the lease of a process from another thread, with its own event loop and its own connection.

    It also sees what blocks that process's loop. An attempt that does so for longer than the lease would have allowed
    costs its own execution: that is released in the store, as if its owner had died, and the others stay. A loop that
    does not come back at all costs the lease, for else nothing of what it drives would ever move.
    """

    def __init__(
        self,
        replicas: AbstractAsyncContextManager[ReplicaRepository],
        tenure: Tenure,
        clock: StoreClock,
        ttl: float,
        watch: LoopWatch,
    ) -> None:
        self._replicas = replicas
        self._watch = watch
        self._owner = _Owner(tenure)
        self._clock = clock
        self._ttl = ttl
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._registered: Future[None] = Future()
        self._ended: Future[None] = Future()

    async def register(self, *, alone: bool) -> None:
        """Begin the lease and keep it from now on; see LeaseKeeper. Raises what opening the store and asking it do."""
        threading.Thread(target=self._run, args=(alone,), name="flowkeep-lease", daemon=True).start()
        await asyncio.shield(asyncio.wrap_future(self._registered))

    async def end(self) -> None:
        """End the lease, and release what is still owned. Raises PersistenceError."""
        if self._loop is not None and self._stop is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
        await asyncio.shield(asyncio.wrap_future(self._ended))

    def _run(self, alone: bool) -> None:
        try:
            asyncio.run(self._keep(alone))
        except BaseException as error:
            for waiting in (self._registered, self._ended):
                if not waiting.done():
                    waiting.set_exception(error)
        else:
            self._ended.set_result(None)

    async def _keep(self, alone: bool) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with self._replicas as replicas:
            keeper = LeaseKeeper(replicas, self._owner, self._clock, self._ttl, watch=self._watch)
            await keeper.register(alone=alone)
            self._registered.set_result(None)
            tasks = TaskRegistry()
            tasks.keep(keeper.keep, "lease")
            tasks.keep(lambda: self._guard(keeper), "loop watch")
            await self._stop.wait()
            await tasks.cancel_all()
            await keeper.end()

    async def _guard(self, keeper: LeaseKeeper) -> None:
        """See what timers do not tell: that the machine was suspended, or an attempt blocks the loop for too long."""
        released: Attempt | None = None
        while True:
            await asyncio.sleep(LOOK)
            keeper.look()
            hold = self._watch.look()
            if hold is None or hold.attempt is None or hold.attempt is released or hold.of_attempt < self._ttl:
                continue
            try:
                await keeper.disown(hold.attempt)
            except PersistenceError as error:
                log.warning("execution not released", **hold.attempt.facts, error=str(error))
                await asyncio.sleep(RETRY)
            else:
                released = hold.attempt


class _Owner:
    """The tenure as another thread reaches it: what forbids takes effect at once, all else in the loop."""

    def __init__(self, tenure: Tenure) -> None:
        self._tenure = tenure
        self._loop = asyncio.get_running_loop()
        self.incarnation = tenure.incarnation
        self._lock = threading.Lock()
        self._fences = 0

    @property
    def may_begin(self) -> bool:
        return self._tenure.may_begin

    def draw(self) -> float:
        return self._tenure.draw()

    def hold_until(self, moment: float) -> None:
        self._tenure.ownership.hold_until(moment)
        self._post(self._tenure.ownership.tell)

    def fence(self) -> None:
        with self._lock:
            self._fences += 1
            self._tenure.ownership.forbid()
        self._post(self._tenure.fence)

    def resume(self, incarnation: UUID) -> None:
        fences = self._fences
        self._post(lambda: self._resume(incarnation, fences))

    def rest(self, seconds: float) -> None:
        self._post(lambda: self._tenure.rest(seconds))

    async def reclaim(self) -> None:
        asked = asyncio.run_coroutine_threadsafe(self._tenure.reclaim(), self._loop)
        try:
            await asyncio.wait_for(asyncio.wrap_future(asked), ANSWER)
        except TimeoutError:
            raise UnavailableError("the event loop is too busy to drop what others took over") from None

    def drop(self, execution_id: UUID, epoch: int) -> None:
        self._tenure.withhold(execution_id, epoch)
        self._post(lambda: self._tenure.drop(execution_id, epoch))

    def _resume(self, incarnation: UUID, fences: int) -> None:
        with self._lock:
            if fences == self._fences:  # else that was lost, too, before the loop came to hear of it
                self._tenure.resume(incarnation)

    def _post(self, act: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # of a loop that has ended
            self._loop.call_soon_threadsafe(act)
