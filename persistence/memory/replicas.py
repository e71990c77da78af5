"""Leases of replica processes."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from persistence.memory.journal import release
from persistence.memory.tables import Tables


class MemoryReplicas:
    """Implements ReplicaRepository."""

    _tables: Tables

    async def register(self, incarnation: UUID, name: str, ttl: float) -> None:
        """See ReplicaRepository."""
        self._tables.leases[incarnation] = self._tables.now() + timedelta(seconds=ttl)

    async def renew(self, incarnation: UUID, ttl: float) -> bool:
        """See ReplicaRepository."""
        if not self._tables.is_live(incarnation):
            return False
        self._tables.leases[incarnation] = self._tables.now() + timedelta(seconds=ttl)
        return True

    async def retire(self, incarnation: UUID) -> None:
        """See ReplicaRepository."""
        self._tables.leases.pop(incarnation, None)
        release(self._tables, incarnation)

    async def retire_others(self, incarnation: UUID) -> None:
        """See ReplicaRepository."""
        for other in self._tables.leases.keys() - {incarnation}:
            del self._tables.leases[other]
