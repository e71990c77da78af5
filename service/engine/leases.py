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


class LeaseKeeper:
    """Registers this process, renews its lease at a quarter of the TTL, and begins anew when it was lost."""

    def __init__(self, replicas: ReplicaRepository, runner: Runner, ttl: float) -> None:
        self._replicas = replicas
        self._runner = runner
        self._ttl = ttl
        self._name = socket.gethostname()

    async def register(self, *, alone: bool) -> None:
        """Begin the lease. `alone`: no other process can be alive on this database, so all other leases end."""
        await self._replicas.register(self._runner.incarnation, self._name, self._ttl)
        if alone:
            await self._replicas.retire_others(self._runner.incarnation)

    async def keep(self) -> None:
        """Renew the lease until cancelled."""
        while True:
            await asyncio.sleep(self._ttl / 4)
            try:
                if not await self._replicas.renew(self._runner.incarnation, self._ttl):
                    await self._begin_anew()
            except PersistenceError as error:
                log.warning("lease not renewed", error=str(error))

    async def end(self) -> None:
        """End the lease, and release what is still owned."""
        await self._replicas.retire(self._runner.incarnation)

    async def _begin_anew(self) -> None:
        log.warning("lease lost; going on under a new incarnation")
        incarnation = uuid4()
        await self._replicas.register(incarnation, self._name, self._ttl)
        await self._runner.relinquish(incarnation)
