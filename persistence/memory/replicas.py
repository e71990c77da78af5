"""Leases of replica processes."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from msgspec.structs import replace

from persistence.memory.journal import release
from persistence.memory.tables import Tables
from persistence.processes import Lease


class MemoryReplicas:
    """Implements ReplicaRepository."""

    _tables: Tables

    async def register(self, incarnation: UUID, name: str, ttl: float) -> Lease:
        """See ReplicaRepository."""
        now = self._tables.now()
        if name:
            self._tables.replica_names[incarnation] = name
        self._tables.leases[incarnation] = now + timedelta(seconds=ttl)
        return Lease(now, any(self._tables.is_live(other) for other in self._tables.leases if other != incarnation))

    async def renew(self, incarnation: UUID, ttl: float, *, lapsed: bool = False) -> Lease | None:
        """See ReplicaRepository."""
        can_be = incarnation in self._tables.leases if lapsed else self._tables.is_live(incarnation)
        return await self.register(incarnation, "", ttl) if can_be else None

    async def retire(self, incarnation: UUID) -> None:
        """See ReplicaRepository."""
        self._tables.leases.pop(incarnation, None)
        release(self._tables, incarnation)

    async def retire_others(self, incarnation: UUID) -> None:
        """See ReplicaRepository."""
        for other in self._tables.leases.keys() - {incarnation}:
            del self._tables.leases[other]

    async def disown(self, incarnation: UUID, execution_id: UUID, epoch: int) -> bool:
        """See ReplicaRepository."""
        row = self._tables.executions.get(execution_id)
        if row is None or (row.execution.incarnation, row.execution.epoch) != (incarnation, epoch):
            return False
        deaths = row.execution.deaths + 1
        row.execution = replace(row.execution, incarnation=None, wake_time=self._tables.now(), deaths=deaths)
        return True
