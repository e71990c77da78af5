"""Leases of replica processes."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from msgspec.structs import replace

from persistence.memory.journal import release
from persistence.memory.tables import Tables, in_scope
from persistence.model import Execution, Scope
from persistence.processes import Driving, Lease, Queue


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

    async def who_drives(self, scope: Scope, execution_id: UUID, most: int) -> Driving:
        """See ReplicaRepository."""
        tables, now = self._tables, self._tables.now()
        execution = tables.row(scope, execution_id).execution
        if execution.incarnation is not None:
            server = tables.replica_names.get(execution.incarnation, "")
            return Driving(now, server, tables.leases.get(execution.incarnation), servers=self._servers())
        queue = [each.id for each in self._queue(execution.org)]
        before = queue.index(execution_id) if execution_id in queue else 0
        return Driving(now, before=min(before, most), servers=self._servers())

    async def queue(self, scope: Scope, workflow_id: UUID, limit: int, most: int) -> Queue:
        """See ReplicaRepository."""
        queue = self._queue(scope.org)
        of_workflow = [
            (each, before)
            for before, each in enumerate(queue[:most])
            if each.workflow_id == workflow_id and in_scope(each, scope)
        ]
        is_whole = len(queue) <= most and len(of_workflow) <= limit
        return Queue(of_workflow[:limit], is_whole, self._servers())

    def _queue(self, org: str) -> list[Execution]:
        """Return what may be claimed of an org, in the order of claims."""
        now = self._tables.now()
        free = [
            (-each.priority, each.wake_time, each.id, each)
            for each in (row.execution for row in self._tables.executions.values())
            if each.org == org and each.incarnation is None and each.end_time is None
            if each.wake_time is not None and each.wake_time <= now
        ]
        return [each for *_, each in sorted(free, key=lambda row: row[:3])]

    def _servers(self) -> int:
        return sum(map(self._tables.is_live, self._tables.leases))
