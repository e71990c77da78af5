"""Keeps the lease by which this process owns what it drives."""

from __future__ import annotations

import asyncio
import socket
from uuid import uuid4

import structlog

from persistence.errors import PersistenceError
from persistence.repository import ReplicaRepository
from service.engine.runner import Runner

log = structlog.get_logger(__name__)

RENEW = 1 / 4
"""Share of the TTL after which the lease is renewed (CONTRACT 2)."""

FENCE = 0.7
"""Share of the TTL after which a process that could not renew stops by itself (CONTRACT 2)."""


class LeaseKeeper:
    """Registers this process and renews its lease; stops its runs before the lease may have ended."""

    def __init__(self, replicas: ReplicaRepository, runner: Runner, ttl: float) -> None:
        self._replicas = replicas
        self._runner = runner
        self._ttl = ttl
        self._name = socket.gethostname()
        self._renewed = 0.0
        """When the last renewal that succeeded was sent, by the clock of the event loop."""

    async def register(self, *, alone: bool) -> None:
        """Begin the lease. `alone`: no other process can be alive on this database, so all other leases end."""
        self._renewed = asyncio.get_running_loop().time()
        await self._replicas.register(self._runner.incarnation, self._name, self._ttl)
        if alone:
            await self._replicas.retire_others(self._runner.incarnation)

    async def keep(self) -> None:
        """Renew the lease until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            fence_at = self._renewed + FENCE * self._ttl
            await asyncio.sleep(max(0.0, min(RENEW * self._ttl, fence_at - clock())))
            sent = clock()
            outcome = await self._renew(fence_at)
            if outcome:
                self._renewed = sent
            elif outcome is False or clock() >= fence_at:
                await self._begin_anew()

    async def end(self) -> None:
        """End the lease, and release what is still owned."""
        await self._replicas.retire(self._runner.incarnation)

    async def _renew(self, deadline: float) -> bool | None:
        """Renew once: whether the lease was still there, None when the store did not say before the deadline."""
        try:
            async with asyncio.timeout_at(deadline):
                return await self._replicas.renew(self._runner.incarnation, self._ttl)
        except (PersistenceError, TimeoutError) as error:
            log.warning("lease not renewed", error=str(error))
            return None

    async def _begin_anew(self) -> None:
        """Stop everything, then go on under a new incarnation as soon as the store gives it a lease."""
        log.warning("lease lost; going on under a new incarnation")
        self._runner.fence()
        incarnation = uuid4()
        while True:
            self._renewed = asyncio.get_running_loop().time()
            try:
                await self._replicas.register(incarnation, self._name, self._ttl)
            except PersistenceError as error:
                log.warning("no lease", error=str(error))
                await asyncio.sleep(RENEW * self._ttl)
            else:
                self._runner.resume(incarnation)
                return
