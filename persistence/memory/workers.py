"""Workers of other teams and their handlers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from persistence.memory import invariants
from persistence.memory.json import copied, text
from persistence.memory.tables import HeldAttempt, Tables
from persistence.model import StepState
from persistence.workers import (
    FORGOTTEN,
    FORGOTTEN_ATTEMPT,
    AwaitedWorker,
    ConnectedWorker,
    Holding,
    Standing,
    WorkerAttempt,
    WorkerHandler,
)


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

    async def keep_awaited_worker(self, awaited: AwaitedWorker) -> None:
        """See WorkerRepository."""
        for each in awaited:
            text(each)
        now, known = self._tables.now(), self._tables.awaited_workers
        known[awaited] = now
        for row, seen in list(known.items()):
            if row.org == awaited.org and seen < now - FORGOTTEN and not self._is_awaited("\t".join(row)):
                del known[row]

    def _is_awaited(self, name: str) -> bool:
        return any(name in row.awaits for row in self._tables.executions.values())

    async def list_awaited_workers(self, handlers: Collection[tuple[str, str]]) -> Sequence[AwaitedWorker]:
        """See WorkerRepository."""
        return sorted(row for row in self._tables.awaited_workers if row[:2] in set(handlers))

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

    async def hold_attempts(
        self, incarnation: UUID, attempts: Sequence[tuple[WorkerAttempt, bytes]], *, take: bool
    ) -> Sequence[Standing]:
        """See WorkerRepository."""
        return [self._held(incarnation, attempt, report, take=take) for attempt, report in attempts]

    def _held(self, incarnation: UUID, attempt: WorkerAttempt, report: bytes, *, take: bool) -> Standing:
        row = self._tables.executions.get(attempt.execution_id)
        steps = row.steps if row is not None and row.execution.org == attempt.org else {}
        step = steps.get((attempt.path, attempt.iteration))
        if step is None:
            return Standing(is_running=False)
        if step.state is not StepState.RUNNING or step.attempt != attempt.number:
            codes = [each["failure"]["code"] for each in step.failed_attempts if each["attempt"] == attempt.number]
            if not codes and step.failure is not None and step.attempt == attempt.number:
                codes = [step.failure["code"]]
            is_newest, code = step.attempt == attempt.number, codes[0] if codes else ""
            return Standing(is_running=False, is_newest=is_newest, state=step.state, code=code)
        held = self._tables.worker_attempts.get(attempt)
        if held is not None and held.incarnation != incarnation and not take:
            return Standing(is_running=True, is_newest=True, state=step.state)
        before = held or HeldAttempt(incarnation, self._tables.now())
        now = replace(before, incarnation=incarnation, seen_time=self._tables.now(), report=report or before.report)
        self._tables.worker_attempts[attempt] = now
        report = now.report if take else b""
        return Standing(is_running=True, is_newest=True, is_held=True, state=step.state, stop=now.stop, report=report)

    async def drop_attempts(self, incarnation: UUID, attempts: Sequence[WorkerAttempt]) -> None:
        """See WorkerRepository."""
        oldest, held = self._tables.now() - FORGOTTEN_ATTEMPT, self._tables.worker_attempts
        for attempt, row in list(held.items()):
            if (row.incarnation == incarnation and attempt in attempts) or row.seen_time < oldest:
                del held[attempt]

    async def find_attempts(self, stops: Mapping[WorkerAttempt, str]) -> Mapping[WorkerAttempt, Holding]:
        """See WorkerRepository."""
        held = self._tables.worker_attempts
        for attempt in stops.keys() & held.keys():
            held[attempt] = replace(held[attempt], stop=stops[attempt])
        return {
            attempt: Holding(row.incarnation, row.report, self._tables.is_live(row.incarnation))
            for attempt, row in held.items()
            if attempt in stops
        }
