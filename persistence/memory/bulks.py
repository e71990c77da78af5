"""Operations in bulk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from uuid import UUID

from persistence.bulks import (
    KEPT_FOR,
    LONGEST_REASON,
    MOST_RUNNING,
    TAKEN_FOR,
    Advanced,
    Bulk,
    BulkOutcome,
    BulkResult,
    BulkState,
    NewBulk,
    judged,
    message_body,
    message_id,
    same,
)
from persistence.errors import BulkNotFoundError, TooManyBulksError
from persistence.listing import ExecutionOrder, PageKey
from persistence.memory import invariants
from persistence.memory.executions import MemoryExecutions, send
from persistence.memory.json import copied
from persistence.memory.tables import BulkRow, in_scope
from persistence.model import Mail, Message, Scope
from persistence.posting import kind_of
from persistence.requests import Request


class MemoryBulks(MemoryExecutions):
    """Implements BulkRepository."""

    async def start_bulk(self, new: NewBulk, request: Request | None = None) -> Bulk:
        """See BulkRepository."""
        tables, org = self._tables, new.scope.org
        if tables.known(org, request) is not None and request is not None:
            for row in tables.bulks.values():
                if row.bulk.scope.org == org and row.request_id == request.id:
                    return row.bulk
            raise BulkNotFoundError(new.id)
        if request is not None:
            for row in tables.bulks.values():
                if row.bulk.scope.org == org and row.request_id == request.id:
                    bulk = same(row.bulk, new, request)
                    tables.keep(org, request)
                    return bulk
        running = [row for row in tables.bulks.values() if row.bulk.scope.org == org and row.bulk.end_time is None]
        if len(running) >= MOST_RUNNING:
            raise TooManyBulksError(MOST_RUNNING)
        invariants.check_text(org, new.created_by)
        invariants.check_text(new.reason, limit=LONGEST_REASON)
        newest = max(
            (row.execution.id.int for row in tables.executions.values() if row.execution.org == org), default=0
        )
        given = {name: getattr(new, name) for name in (each.name for each in fields(NewBulk))}
        bulk = Bulk(
            **{**given, "asked": copied(new.asked), "options": copied(new.options)},
            state=BulkState.RUNNING,
            create_time=tables.now(),
            end_time=None,
            stopped_by="",
            cursor=UUID(int=newest + 1),
            counts=dict.fromkeys(BulkOutcome, 0),
            under_way=(),
            incarnation=None,
            epoch=0,
        )
        tables.bulks[new.id] = BulkRow(bulk, request.id if request is not None else "")
        tables.keep(org, request)
        return bulk

    async def get_bulk(self, scope: Scope, bulk_id: UUID) -> Bulk:
        """See BulkRepository."""
        return self._bulk(scope, bulk_id).bulk

    async def list_bulks(
        self, scope: Scope, states: Sequence[BulkState], after: UUID | None, limit: int
    ) -> Sequence[Bulk]:
        """See BulkRepository."""
        found = [
            row.bulk
            for row in self._tables.bulks.values()
            if _is_seen(row.bulk, scope) and (not states or row.bulk.state in states)
        ]
        found.sort(key=lambda bulk: bulk.id, reverse=True)
        return [bulk for bulk in found if after is None or bulk.id < after][:limit]

    async def list_bulk_results(
        self, scope: Scope, bulk_id: UUID, outcomes: Sequence[BulkOutcome], after: int, limit: int
    ) -> Sequence[tuple[int, BulkResult]]:
        """See BulkRepository."""
        numbered = enumerate(self._bulk(scope, bulk_id).results, start=1)
        found = ((n, each) for n, each in numbered if n > after and (not outcomes or each.outcome in outcomes))
        return list(found)[:limit]

    async def stop_bulk(self, scope: Scope, bulk_id: UUID, by: str) -> Bulk:
        """See BulkRepository."""
        row = self._bulk(scope, bulk_id)
        if row.bulk.state is BulkState.RUNNING:
            row.bulk = replace(row.bulk, state=BulkState.STOPPED, stopped_by=by, end_time=self._tables.now())
        return row.bulk

    async def take_bulks(self, incarnation: UUID, driven: Sequence[UUID], limit: int) -> Sequence[Bulk]:
        """See BulkRepository."""
        tables = self._tables
        if not tables.is_live(incarnation):
            return []
        taken: list[Bulk] = []
        for row in sorted(tables.bulks.values(), key=lambda row: row.bulk.create_time):
            bulk = row.bulk
            is_own = bulk.incarnation == incarnation
            is_free = is_own or bulk.incarnation is None or not tables.is_live(bulk.incarnation)
            is_begun = bool(bulk.under_way) and bulk.end_time is not None and bulk.end_time > tables.now() - TAKEN_FOR
            is_left = bulk.state is BulkState.RUNNING or is_begun
            if is_left and is_free and bulk.id not in driven and len(taken) < limit:
                row.bulk = replace(bulk, incarnation=incarnation, epoch=bulk.epoch + 1)
                taken.append(row.bulk)
        return taken

    async def find_for_bulk(self, bulk: Bulk, limit: int) -> Sequence[UUID]:
        """See BulkRepository."""
        after = PageKey(None, bulk.cursor)
        rows = await self.list_executions(bulk.scope, bulk.filter, ExecutionOrder.NEWEST, after, limit)
        return [row.id for row in rows]

    async def advance_bulk(self, bulk: Bulk, found: Sequence[UUID], *, is_last: bool) -> Advanced | None:
        """See BulkRepository."""
        tables, kept = self._tables, self._standing(bulk, BulkState.RUNNING)
        if kept is None:
            return None
        results, mail, unowned = [], [], 0
        for execution_id in found:
            row = tables.executions.get(execution_id)
            row = row if row is not None and in_scope(row.execution, bulk.scope) else None
            unseen = [kind_of(message) for message in tables.unseen(row)] if row is not None else []
            verdict = judged(bulk, row.execution if row is not None else None, execution_id, unseen)
            results.append(verdict.result)
            if row is not None and verdict.sends:
                key, kind = message_id(bulk, execution_id), bulk.action.value
                message = Message(key, kind, tables.now(), bulk.created_by, dict(message_body(bulk)))
                send(tables, row, message)
                mail.append(Mail(execution_id, row.execution.epoch, (message,), row.execution.mail))
                unowned += row.execution.incarnation is None
        return Advanced(self._advance(kept, results, is_last), mail, unowned)

    async def reserve_bulk(self, bulk: Bulk, found: Sequence[UUID]) -> Bulk | None:
        """See BulkRepository."""
        kept = self._standing(bulk, BulkState.RUNNING)
        if kept is None or kept.bulk.under_way:
            return None
        kept.bulk = replace(kept.bulk, under_way=tuple(found))
        return kept.bulk

    async def record_bulk(self, bulk: Bulk, results: Sequence[BulkResult], *, is_last: bool) -> Bulk | None:
        """See BulkRepository."""
        kept = self._standing(bulk, BulkState.RUNNING, BulkState.STOPPED)
        return None if kept is None else self._advance(kept, results, is_last)

    async def forget_bulks(self, limit: int) -> int:
        """See BulkRepository."""
        oldest = self._tables.now() - KEPT_FOR
        for key, row in self._tables.bulks.items():
            if row.bulk.end_time is not None and row.bulk.end_time < oldest:
                del self._tables.bulks[key]
                return 1 + len(row.results)
        return 0

    def _bulk(self, scope: Scope, bulk_id: UUID) -> BulkRow:
        row = self._tables.bulks.get(bulk_id)
        if row is None or not _is_seen(row.bulk, scope):
            raise BulkNotFoundError(bulk_id)
        return row

    def _standing(self, bulk: Bulk, *states: BulkState) -> BulkRow | None:
        row = self._tables.bulks.get(bulk.id)
        if row is None or row.bulk.state not in states:
            return None
        known = row.bulk.incarnation, row.bulk.epoch, row.bulk.cursor
        return row if known == (bulk.incarnation, bulk.epoch, bulk.cursor) else None

    def _advance(self, row: BulkRow, results: Sequence[BulkResult], is_last: bool) -> Bulk:
        row.results += results
        counts = dict(row.bulk.counts)
        for each in results:
            counts[each.outcome] += 1
        cursor = results[-1].execution_id if results else row.bulk.cursor
        row.bulk = replace(row.bulk, counts=counts, cursor=cursor, under_way=())
        if row.bulk.state is BulkState.RUNNING and (is_last or not row.bulk.left):
            row.bulk = replace(row.bulk, state=BulkState.COMPLETED, end_time=self._tables.now())
        return row.bulk


def _is_seen(bulk: Bulk, scope: Scope) -> bool:
    return bulk.scope.org == scope.org and scope.owner in (None, bulk.created_by)
