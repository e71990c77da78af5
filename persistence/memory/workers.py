"""Workers of other teams and their handlers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from uuid import UUID

from persistence.memory import invariants
from persistence.memory.json import copied, text
from persistence.memory.tables import Tables
from persistence.workers import FORGOTTEN, ConnectedWorker, WorkerHandler


class MemoryWorkers:
    """Implements WorkerRepository."""

    _tables: Tables

    async def keep_worker_handlers(self, org: str, handlers: Sequence[WorkerHandler]) -> None:
        """See WorkerRepository."""
        for each in handlers:
            invariants.check_text(each.name, limit=128)
            text(each.description)
        now, known = self._tables.now(), self._tables.worker_handlers
        for each in handlers:
            known[org, each.name] = replace(each, params_schema=copied(each.params_schema), seen_time=now)
        for key, row in list(known.items()):
            if key[0] == org and row.seen_time is not None and row.seen_time < now - FORGOTTEN:
                del known[key]

    async def find_worker_handlers(self, org: str, names: Collection[str]) -> Sequence[WorkerHandler]:
        """See WorkerRepository."""
        return [row for row in await self.list_worker_handlers(org) if row.name in names]

    async def list_worker_handlers(self, org: str) -> Sequence[WorkerHandler]:
        """See WorkerRepository."""
        rows = (self._tables.worker_handlers[key] for key in sorted(self._tables.worker_handlers) if key[0] == org)
        return [replace(row, params_schema=copied(row.params_schema)) for row in rows]

    async def announce_workers(self, incarnation: UUID, workers: Sequence[ConnectedWorker]) -> None:
        """See WorkerRepository."""
        self._tables.workers[incarnation] = tuple(workers)
        for other in [each for each in self._tables.workers if each != incarnation and not self._tables.is_live(each)]:
            del self._tables.workers[other]

    async def list_workers(self, org: str) -> Sequence[ConnectedWorker]:
        """See WorkerRepository."""
        names = self._tables.replica_names
        found = [
            replace(each, server=names.get(incarnation, ""), incarnation=incarnation)
            for incarnation, workers in self._tables.workers.items()
            if self._tables.is_live(incarnation)
            for each in workers
            if each.org == org
        ]
        return sorted(found, key=lambda each: (each.name, each.worker_id, each.subject, each.server))
