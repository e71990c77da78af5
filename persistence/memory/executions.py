"""Executions as callers see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import groupby
from uuid import UUID, uuid5

from msgspec.structs import replace

from persistence.errors import (
    CursorAheadError,
    CursorExpiredError,
    ExecutionFinishedError,
    WorkflowNotFoundError,
)
from persistence.listing import ExecutionFilter, ExecutionOrder, PageKey, StepFilter, StepPlace
from persistence.memory import invariants
from persistence.memory.json import copied
from persistence.memory.tables import ExecutionRow, Tables, fresh_step, in_scope, within
from persistence.model import (
    Event,
    Execution,
    ExecutionDetail,
    ExecutionOutcome,
    ExecutionState,
    ExecutionSteps,
    Message,
    MessageKind,
    Posted,
    Scope,
)
from persistence.pauses import body_for_retried
from persistence.posting import Posting, admits, check_room, kind_of, size_of
from persistence.requests import Asked, Request
from persistence.transition import Reopened, Reopening, retriable

_PAGE_BYTES = 256 << 10

_SortKey = tuple[float | datetime | int, UUID]


class MemoryExecutions:
    """Implements ExecutionRepository."""

    _tables: Tables

    async def get_execution(self, scope: Scope, execution_id: UUID) -> Execution:
        """See ExecutionRepository."""
        return self._tables.row(scope, execution_id).fresh()

    async def get_detail(
        self, scope: Scope, execution_id: UUID, most: int = 32 << 20, first: int | None = None
    ) -> ExecutionDetail:
        """See ExecutionRepository."""
        detail = self._tables.row(scope, execution_id).detail()
        in_order = sorted(detail.steps, key=lambda step: (step.position, step.items, step.key))
        if first is not None and detail.execution.counts.total > first:
            newest = {step.path: step.key for step in in_order}
            shown = set(list(newest.values())[:first])
            in_order = [step for step in in_order if step.key in shown or (most and step.assigned is not None)]
        steps, omitted = within(in_order, most)
        return replace(detail, steps=tuple(sorted(steps, key=lambda step: step.key)), omitted=omitted)

    async def get_outcome(self, scope: Scope, execution_id: UUID) -> ExecutionOutcome:
        """See ExecutionRepository."""
        row = self._tables.row(scope, execution_id)
        return ExecutionOutcome(row.fresh(), copied(row.result))

    async def get_steps(
        self, scope: Scope, execution_id: UUID, paths: Sequence[str], most: int, iteration: int = 0
    ) -> ExecutionSteps:
        """See ExecutionRepository."""
        row = self._tables.row(scope, execution_id)
        chosen = {path: row.steps[path, n] for path, n in sorted(row.steps) if iteration in (0, n)}
        steps, omitted = within([fresh_step(chosen[path]) for path in paths if path in chosen], most)
        return ExecutionSteps(row.fresh(), steps, omitted=omitted)

    async def list_item_steps(
        self, scope: Scope, execution_id: UUID, where: StepFilter, after: StepPlace | None, limit: int
    ) -> Sequence[tuple[StepPlace, str]]:
        """See ExecutionRepository."""
        row = self._tables.row(scope, execution_id)
        newest = {path: row.steps[path, iteration] for path, iteration in sorted(row.steps)}
        found = (
            (StepPlace(step.position, step.items), path)
            for path, step in newest.items()
            if step.items and (not where.states or step.state in where.states) and where.handler in ("", step.handler)
        )
        return sorted(each for each in found if after is None or each[0] > after)[:limit]

    async def list_forks(self, scope: Scope, execution_id: UUID, limit: int) -> Sequence[Execution]:
        """See ExecutionRepository."""
        return await self.list_executions(
            scope, ExecutionFilter(source=execution_id), ExecutionOrder.NEWEST, None, limit
        )

    async def list_executions(
        self, scope: Scope, where: ExecutionFilter, order: ExecutionOrder, after: PageKey | None, limit: int
    ) -> Sequence[Execution]:
        """See ExecutionRepository."""
        key = _SORT_KEYS[order]
        rows = sorted(self._matching(scope, where, order), key=lambda row: key(row.execution), reverse=True)
        if after is not None:
            seen = (0 if after.value is None else after.value, after.id)
            rows = [row for row in rows if key(row.execution) < seen]
        return [row.fresh() for row in rows[:limit]]

    async def count_executions(self, scope: Scope, where: ExecutionFilter, order: ExecutionOrder, limit: int) -> int:
        """See ExecutionRepository."""
        return min(limit, len(self._matching(scope, where, order)))

    async def read_events(self, scope: Scope, execution_id: UUID, after_seq: int, limit: int) -> Sequence[Event]:
        """See ExecutionRepository."""
        row = self._tables.row(scope, execution_id)
        if after_seq > row.execution.last_seq:
            raise CursorAheadError(after_seq, row.execution.last_seq)
        following = [event for event in row.events if event.seq > after_seq]
        if following and following[0].seq != after_seq + 1:
            raise CursorExpiredError(following[0].seq)
        return _page(following, limit)

    async def request_cancel(
        self, scope: Scope, execution_id: UUID, by: str, reason: str, request: Request | None = None
    ) -> Posted:
        """See ExecutionRepository."""
        if self._tables.known(scope.org, request) is not None:
            return _posted(self._tables, self._tables.row(scope, execution_id))
        row = self._tables.row(scope, execution_id)
        state = row.execution.state
        if state.is_end and state is not ExecutionState.CANCELLED:
            raise ExecutionFinishedError(execution_id, state)
        if not state.is_end:
            ask_to_cancel(self._tables, row, by, reason)
        self._tables.keep(scope.org, request, execution_id=execution_id)
        return _posted(self._tables, row)

    async def post(self, scope: Scope, execution_id: UUID, posting: Posting, request: Request | None = None) -> Posted:
        """See ExecutionRepository."""
        tables, was_asked = self._tables, self._tables.known(scope.org, request) is not None
        row = tables.row(scope, execution_id)
        unseen = [kind_of(message) for message in tables.unseen(row)]
        if was_asked or not admits(row.execution, unseen, posting):
            if not was_asked:
                tables.keep(scope.org, request, execution_id=execution_id)
            return Posted(row.fresh(), None)
        waiting = [size_of(message.body) for message in tables.unseen(row) if message.kind == MessageKind.SIGNAL]
        check_room(row.execution, [*(signal.size for signal in row.signals), *waiting], posting)
        message = Message(posting.id, posting.kind, tables.now(), posting.sender, copied(posting.body))
        send(tables, row, message)
        tables.keep(scope.org, request, execution_id=execution_id)
        return Posted(row.fresh(), message)

    async def find_asked(self, org: str, request: Request) -> Asked | None:
        """See ExecutionRepository."""
        first = self._tables.known(org, request)
        return None if first is None else Asked(first.execution_id)

    async def reopen(self, scope: Scope, reopening: Reopening, request: Request | None = None) -> Reopened:
        """See ExecutionRepository."""
        tables, was_asked = self._tables, self._tables.known(scope.org, request) is not None
        row = tables.row(scope, reopening.execution_id)
        if was_asked:
            return Reopened(row.fresh(), False)
        before = row.execution
        retriable(before, reopening)
        workflow = tables.workflows.get(before.workflow_id)
        if workflow is None or workflow.is_deleted:
            raise WorkflowNotFoundError(before.workflow_name)
        invariants.check_events([reopening.event], before.last_seq)
        after = replace(
            before,
            state=ExecutionState.RUNNING,
            run=reopening.run,
            counts=reopening.counts,
            last_seq=reopening.event.seq,
            reopened_seq=reopening.event.seq,
            start_time=reopening.start_time,
            end_time=None,
            deadline_time=reopening.deadline_time,
            failure=None,
            held_back=False,
            wake_time=tables.now(),
            epoch=before.epoch + 1,
            deaths=0,
            bytes=reopening.bytes,
        )
        invariants.check_execution(after)
        edit = reopening.edit and replace(reopening.edit, value=copied(reopening.edit.value))
        row.execution, row.result, row.edit = after, None, edit
        row.events.append(reopening.event)
        tables.leave_signals(before.org, before.id)
        if (pause := workflow.pause) is not None:
            message_id = uuid5(pause.id, f"{reopening.run} {before.id}")
            send(tables, row, Message(message_id, MessageKind.PAUSE, tables.now(), pause.by, body_for_retried(pause)))
        tables.keep(scope.org, request, execution_id=before.id)
        return Reopened(row.fresh(), True)

    def _matching(self, scope: Scope, where: ExecutionFilter, order: ExecutionOrder) -> list[ExecutionRow]:
        ended_only = order is not ExecutionOrder.NEWEST
        return [
            row
            for row in self._tables.executions.values()
            if in_scope(row.execution, scope)
            and (row.execution.state.is_end or not ended_only)
            and _matches(row.execution, where)
        ]


def ask_to_cancel(tables: Tables, row: ExecutionRow, by: str, reason: str) -> None:
    """Send an execution that has not ended the message, unless it is there or was seen."""
    if row.execution.state is ExecutionState.CANCELLING:
        return
    send(tables, row, Message(row.execution.id, MessageKind.CANCEL, tables.now(), by, {"reason": reason}))


def send(tables: Tables, row: ExecutionRow, message: Message) -> None:
    """Keep a message that binds, unless it is there."""
    invariants.check_message(message)
    before = row.execution
    if tables.send(before.org, before.id, message):
        # One that is due already keeps its place.
        wake_time = before.wake_time and min(before.wake_time, message.time)
        row.execution = replace(before, mail=before.mail + 1, wake_time=wake_time)


def _posted(tables: Tables, row: ExecutionRow) -> Posted:
    is_seen = row.execution.state.is_end or row.execution.state is ExecutionState.CANCELLING
    wanted = (each for each in tables.unseen(row) if each.id == row.execution.id and not is_seen)
    return Posted(row.fresh(), next(wanted, None))


def _page(events: Sequence[Event], limit: int) -> Sequence[Event]:
    page: list[Event] = []
    size = 0
    for _, group in groupby(events, key=lambda event: event.transition_seq):
        transition = list(group)
        size += sum(len(event.body) for event in transition)
        if page and (len(page) + len(transition) > limit or size > _PAGE_BYTES):
            break
        page += transition
    return page


def _newest(execution: Execution) -> _SortKey:
    return 0, execution.id


def _longest(execution: Execution) -> _SortKey:
    assert execution.end_time is not None  # noqa: S101 - only ended ones are sorted so
    begin = execution.start_time or execution.create_time
    return (execution.end_time - begin).total_seconds(), execution.id


def _last_ended(execution: Execution) -> _SortKey:
    assert execution.end_time is not None  # noqa: S101 - only ended ones are sorted so
    return execution.end_time, execution.id


_SORT_KEYS: dict[ExecutionOrder, Callable[[Execution], _SortKey]] = {
    ExecutionOrder.NEWEST: _newest,
    ExecutionOrder.LONGEST: _longest,
    ExecutionOrder.LAST_ENDED: _last_ended,
}


def _matches(execution: Execution, where: ExecutionFilter) -> bool:
    return (
        where.workflow in ("", execution.workflow_name, str(execution.workflow_id))
        and (not where.states or execution.state in where.states)
        and where.owner in ("", execution.owner)
        and set(where.tags) <= set(execution.tags)
        and where.labels.items() <= execution.labels.items()
        and where.correlation_id in ("", execution.correlation_id)
        and _within(execution.create_time, where.created_from, where.created_until)
        and _within(execution.end_time, where.ended_from, where.ended_until)
        and (where.source is None or (execution.lineage is not None and where.source == execution.lineage.source))
        and where.is_dry_run in (None, execution.is_dry_run)
        and (where.lowest_id is None or where.lowest_id <= execution.id)
        and (where.highest_id is None or execution.id <= where.highest_id)
    )


def _within(moment: datetime | None, begin: datetime | None, end: datetime | None) -> bool:
    if begin is None and end is None:
        return True
    return moment is not None and (begin is None or begin <= moment) and (end is None or moment < end)
