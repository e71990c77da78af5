"""Keeps the lease by which this process owns what it drives."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Protocol
from uuid import UUID, uuid4

import structlog

from persistence import failpoints
from persistence.errors import PersistenceError
from persistence.processes import Lease
from persistence.replicas import ReplicaRepository
from service.engine.clock import StoreClock
from service.engine.handlers.attempt import Attempt
from service.engine.running.loop_watch import LoopWatch
from service.engine.waiting import flagged

log = structlog.get_logger(__name__)

RENEW = 1 / 6
"""Share of the TTL after which the lease is renewed. With a quarter a process that was paused for half of the TTL just
before a renewal would wake beyond its fence, although by CONTRACT 2.5 it keeps what it owns."""

FENCE = 0.7
"""Share of the TTL after which a process that could not renew begins nothing more (CONTRACT ST11)."""

RETRY = 0.5
"""Seconds at most between tries to renew while the store does not answer."""

FIRST_PAUSE = 0.1
"""Seconds before the second try to get a new lease."""


LOST = 6
"""Length of a lease, so many times over, after which a blocked event loop costs the lease: bystanders have waited for a
minute by default, which is much more than a takeover takes, and that the loop comes back is no longer likely."""


class Owner(Protocol):
    """What drives executions as long as a lease is kept for it: the tenure, or what reaches it from another thread."""

    @property
    def incarnation(self) -> UUID:
        """The incarnation that it begins with."""
        ...

    @property
    def may_begin(self) -> bool:
        """Whether the lease lets it begin an attempt at this moment."""
        ...

    def draw(self) -> float:
        """Return a random number in [0, 1)."""
        ...

    def hold_until(self, moment: float) -> None:
        """Begin nothing after this monotonic time, unless it is moved."""
        ...

    def fence(self) -> None:
        """Drop every run and start nothing more; begin nothing from this moment on."""
        ...

    def resume(self, incarnation: UUID) -> None:
        """Go on under another incarnation, which has a lease."""
        ...

    def rest(self, seconds: float) -> None:
        """Claim nothing for so long."""
        ...

    async def reclaim(self) -> None:
        """Drop what others took over. Raises UnavailableError."""
        ...

    def drop(self, execution_id: UUID, epoch: int) -> None:
        """Drop an execution that others may drive from now on, if it is driven here at this epoch."""
        ...


def process_name() -> str:
    """Return what people know this process by, also beside others of its machine: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


class LeaseKeeper:
    """Registers this process and renews its lease, without which nothing begins.

    A process that is cut off from the store lets go on what runs, and takes its lease up again when the store answers:
    what others took over meanwhile is dropped, and the rest is kept. One that was paused, or whose lease was ended,
    drops all and goes on under a new incarnation. So does, when it comes back, one whose event loop was blocked for too
    long, as `watch` sees from the thread that keeps the lease. `renew`: at most so many seconds between renewals.
    """

    def __init__(
        self,
        replicas: ReplicaRepository,
        owner: Owner,
        clock: StoreClock,
        ttl: float,
        new_incarnation: Callable[[], UUID] = uuid4,
        watch: LoopWatch | None = None,
        renew: float | None = None,
    ) -> None:
        self._replicas = replicas
        self._owner = owner
        self._incarnation = owner.incarnation
        self._watch = watch
        self._clock = clock
        self._ttl = ttl
        self._renew = RENEW * ttl if renew is None else renew
        self._new_incarnation = new_incarnation
        self._name = process_name()
        self._fence_at = 0.0
        self._is_cut_off = False
        self._limit: _Limit | None = None  # of the renewal that is on its way
        self._is_overdue = asyncio.Event()

    async def register(self, *, alone: bool) -> None:
        """Begin the lease. `alone`: no other process can be alive on this database, so all other leases end."""
        await self._register(self._incarnation)
        if alone:
            await self._replicas.retire_others(self._incarnation)

    async def keep(self) -> None:
        """Renew the lease until cancelled."""
        now = self._clock.monotonic
        sent = now()
        while True:
            await flagged(self._is_overdue, max(0.0, sent + self._pause() - now()))
            if self._watch is not None and self._watch.held >= LOST * self._ttl:
                await self._abandon(self._watch)
            sent = now()
            # The process stood still beyond its fence, where others may have taken over (CONTRACT ST11, 2.5).
            if sent >= self._fence_at and not self._is_cut_off:
                await self._wake_late()
                continue
            limit = _Limit(max(self._fence_at - sent, RENEW * self._ttl), now)
            try:
                lease = await self._renew_within(limit)
            except (PersistenceError, TimeoutError) as error:
                if limit.lateness > RENEW * self._ttl and not self._is_cut_off:
                    await self._wake_late()
                    continue
                log.warning("lease not renewed", error=str(error), may_begin=self._owner.may_begin)
                self._is_cut_off = True
            else:
                if lease is None:
                    await self._begin_anew()
                else:
                    await self._renewed(lease, sent)

    def look(self) -> None:
        """Notice that the fence was passed while the machine was suspended, which timers do not count.

        Nothing begins in any case; but what runs goes on beside that of others until it is told.
        """
        if self._limit is not None:
            self._limit.look()
        elif self._clock.monotonic() >= self._fence_at and not self._is_cut_off:
            self._is_overdue.set()

    async def _renew_within(self, limit: _Limit) -> Lease | None:
        self._limit = limit
        try:
            async with limit:
                await failpoints.reach("renew.before")
                # Cut off, it could not be in time; what nobody has taken over meanwhile is still its own.
                lease = await self._replicas.renew(self._incarnation, self._ttl, lapsed=self._is_cut_off)
                await failpoints.reach("renew.after_commit_before_local")
                return lease
        finally:
            self._limit = None

    def _pause(self) -> float:
        longest = self._retry if self._is_cut_off else self._renew
        return longest * (0.7 + 0.3 * self._owner.draw())

    @property
    def _retry(self) -> float:
        return min(RENEW * self._ttl, RETRY)

    async def _renewed(self, lease: Lease, sent: float) -> None:
        was_cut_off, self._is_cut_off = self._is_cut_off, False
        if was_cut_off:
            self._owner.rest(2 * self._retry)
            try:
                await self._owner.reclaim()
            except PersistenceError as error:
                log.warning("lease renewed, but not what it holds", error=str(error))
                self._is_cut_off = True
                return
        self._hold(lease, sent)

    async def end(self) -> None:
        """End the lease, and release what is still owned."""
        await self._replicas.retire(self._incarnation)

    async def _register(self, incarnation: UUID) -> None:
        sent = self._clock.monotonic()
        self._hold(await self._replicas.register(incarnation, self._name, self._ttl), sent)

    def _hold(self, lease: Lease, sent: float) -> None:
        """Take in that the store gave a lease when asked at this monotonic time."""
        self._clock.learn(lease.time, sent)
        self._fence_at = sent + FENCE * self._ttl
        self._owner.hold_until(self._fence_at)

    async def disown(self, attempt: Attempt) -> None:
        """Release the execution of an attempt that blocks everything, as if it had killed its owner.

        Raises PersistenceError.
        """
        # Before, so that nothing of it begins here once others may drive it; what is not released is taken up again.
        self._owner.drop(attempt.execution_id, attempt.epoch)
        try:
            if await self._replicas.disown(attempt.incarnation, attempt.execution_id, attempt.epoch):
                log.error("execution released, because its step blocks the server", **attempt.facts)
        finally:  # and after, if it was taken up again in between
            self._owner.drop(attempt.execution_id, attempt.epoch)

    async def _wake_late(self) -> None:
        culprit = self._watch.culprit() if self._watch is not None else None
        log.warning("paused for too long; others may have taken over", **(culprit.facts if culprit else {}))
        if culprit is not None:  # it let no other thread run
            try:
                await self.disown(culprit)
            except PersistenceError as error:
                log.warning("execution not released", **culprit.facts, error=str(error))
        await self._begin_anew()

    async def _abandon(self, watch: LoopWatch) -> None:
        """Give all away, until the event loop comes back."""
        log.error("the event loop does not come back; others take over", seconds=round(watch.held, 1))
        self._owner.fence()
        try:
            await self._replicas.retire(self._incarnation)
        except PersistenceError as error:
            log.warning("lease not ended; it runs out by itself", error=str(error))
        while watch.held:  # noqa: ASYNC110 - another thread looks
            await asyncio.sleep(self._retry)
        await self._begin_anew()

    async def _begin_anew(self) -> None:
        """Stop everything, then go on under a new incarnation as soon as the store gives it a lease."""
        log.warning("lease lost; going on under a new incarnation")
        self._owner.fence()
        self._is_cut_off = False
        before, self._incarnation = self._incarnation, self._new_incarnation()
        pause = FIRST_PAUSE
        while True:
            try:
                await self._register(self._incarnation)
                # What it drove is free at once, and does not count as left behind by a dead process.
                await self._replicas.retire(before)
            except PersistenceError as error:
                log.warning("no lease", error=str(error))
                await asyncio.sleep(pause * (0.7 + 0.3 * self._owner.draw()))
                pause = min(2 * pause, RENEW * self._ttl)
            else:
                self._owner.resume(self._incarnation)
                return


class _Limit:
    """A time limit that tells how late it came, which it does when the whole process stood still meanwhile."""

    def __init__(self, seconds: float, now: Callable[[], float]) -> None:
        self.lateness = 0.0
        self._now = now
        self._timeout = asyncio.timeout(seconds)
        self._due = now() + seconds
        self._alarm = asyncio.get_running_loop().call_later(seconds, self._ring)

    def look(self) -> None:
        """End the time at once if it is over: the loop's own timers do not count that of a suspended machine."""
        if self._is_over():
            self._ring()
            self._timeout.reschedule(asyncio.get_running_loop().time())

    def _is_over(self) -> bool:
        """Whether the time is over, and the loop does not know it yet."""
        return self._now() >= self._due and not self._timeout.expired()

    def _ring(self) -> None:
        self.lateness = max(self.lateness, self._now() - self._due)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._alarm.cancel()
        if self._is_over():
            self._ring()
        await self._timeout.__aexit__(kind, error, traceback)
