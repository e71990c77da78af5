"""Keeps the lease by which this process owns what it drives."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from uuid import UUID, uuid4

import structlog

from persistence import failpoints
from persistence.errors import PersistenceError
from persistence.model import Lease
from persistence.repository import ReplicaRepository
from service.engine.clock import StoreClock
from service.engine.runner import Runner

log = structlog.get_logger(__name__)

RENEW = 1 / 6
"""Share of the TTL after which the lease is renewed. CONTRACT 2 has a quarter, but then a process that was paused for
half of the TTL just before a renewal would wake beyond its fence, although by CONTRACT 2.5 it keeps what it owns."""

FENCE = 0.7
"""Share of the TTL after which a process that could not renew stops by itself (CONTRACT 2)."""

FIRST_PAUSE = 0.1
"""Seconds before the second try to get a new lease."""


class LeaseKeeper:
    """Registers this process and renews its lease; stops its runs before the lease may have ended."""

    def __init__(
        self,
        replicas: ReplicaRepository,
        runner: Runner,
        clock: StoreClock,
        ttl: float,
        new_incarnation: Callable[[], UUID] = uuid4,
    ) -> None:
        self._replicas = replicas
        self._runner = runner
        self._clock = clock
        self._ttl = ttl
        self._new_incarnation = new_incarnation
        self._name = socket.gethostname()
        self._fence_at = 0.0

    async def register(self, *, alone: bool) -> None:
        """Begin the lease. `alone`: no other process can be alive on this database, so all other leases end."""
        await self._register(self._runner.incarnation)
        if alone:
            await self._replicas.retire_others(self._runner.incarnation)

    async def keep(self) -> None:
        """Renew the lease until cancelled."""
        now = self._clock.monotonic
        sent = now()
        while True:
            await asyncio.sleep(max(0.0, min(sent + self._pause(), self._fence_at) - now()))
            sent = now()
            try:
                async with asyncio.timeout(self._fence_at - sent):
                    await failpoints.reach("renew.before")
                    lease = await self._replicas.renew(self._runner.incarnation, self._ttl)
                    await failpoints.reach("renew.after_commit_before_local")
            except (PersistenceError, TimeoutError) as error:
                log.warning("lease not renewed", error=str(error))
                if now() >= self._fence_at:
                    await self._begin_anew()
            else:
                if lease is None:
                    await self._begin_anew()
                else:
                    self._hold(lease, sent)

    def _pause(self) -> float:
        return RENEW * self._ttl * (0.7 + 0.3 * self._runner.draw())

    async def end(self) -> None:
        """End the lease, and release what is still owned."""
        await self._replicas.retire(self._runner.incarnation)

    async def _register(self, incarnation: UUID) -> None:
        sent = self._clock.monotonic()
        self._hold(await self._replicas.register(incarnation, self._name, self._ttl), sent)

    def _hold(self, lease: Lease, sent: float) -> None:
        """Take in that the store gave a lease when asked at this monotonic time."""
        self._clock.learn(lease.time, sent)
        self._fence_at = sent + FENCE * self._ttl
        self._runner.hold_until(self._fence_at)

    async def _begin_anew(self) -> None:
        """Stop everything, then go on under a new incarnation as soon as the store gives it a lease."""
        log.warning("lease lost; going on under a new incarnation")
        self._runner.fence()
        before, incarnation = self._runner.incarnation, self._new_incarnation()
        pause = FIRST_PAUSE
        while True:
            try:
                await self._register(incarnation)
                # What it drove is free at once, and does not count as left behind by a dead process.
                await self._replicas.retire(before)
            except PersistenceError as error:
                log.warning("no lease", error=str(error))
                await asyncio.sleep(pause * (0.7 + 0.3 * self._runner.draw()))
                pause = min(2 * pause, RENEW * self._ttl)
            else:
                self._runner.resume(incarnation)
                return
