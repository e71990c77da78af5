"""What drives executions, fenced by incarnation and epoch."""

from __future__ import annotations

from asyncio import Future, get_running_loop
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from msgspec.structs import replace

from persistence.breakpoints import BreakpointsMetError, fits
from persistence.errors import (
    ExecutionNotFoundError,
    PersistenceError,
    RequestIdReusedError,
    WorkflowNotFoundError,
)
from persistence.journal import End, MessageKey
from persistence.memory import invariants, people
from persistence.memory.claims import deaths, in_turn, waits_since
from persistence.memory.json import copied, text
from persistence.memory.tables import (
    ExecutionRow,
    KeptRequest,
    Tables,
    fresh_dry_run,
    fresh_edited,
    fresh_ending,
    fresh_message,
    fresh_signal,
    fresh_step,
    in_scope,
)
from persistence.memory.transitions import after, is_fenced
from persistence.model import (
    SUSPECT_DEATHS,
    UNREAD,
    Event,
    Execution,
    ExecutionDetail,
    ExecutionState,
    Mail,
    MessageKind,
    Scope,
    Step,
    StepCounts,
    StepKey,
    StepState,
    Wanted,
)
from persistence.people import check_tasks
from persistence.requests import Method
from persistence.transition import Closing, CommitResult, Created, NewExecution, Transition

_Answer = TypeVar("_Answer")


class MemoryJournal:
    """Implements Journal; every future is resolved when it is returned."""

    _tables: Tables
    _loaded_at_once: int

    def create(self, new: NewExecution) -> Future[Created]:
        """See Journal."""
        return _resolved(lambda: self._create(new))

    def submit(self, transition: Transition) -> Future[CommitResult]:
        """See Journal."""
        return _resolved(lambda: self._submit_checked(transition))

    async def claim(
        self,
        incarnation: UUID,
        limit: int,
        suspects: int = 0,
        without: Collection[str] = (),
        handlers: Collection[str] = (),
    ) -> Sequence[ExecutionDetail]:
        """See Journal."""
        if not self._tables.is_live(incarnation):
            return []
        now = self._tables.now()
        claimable = [
            row
            for row in self._tables.executions.values()
            if self._is_claimable(row.execution, now)
            or (row.execution.incarnation is None and not row.awaits.isdisjoint(handlers))
        ]
        claimable.sort(key=lambda row: (waits_since(row.execution), row.execution.id))
        due = [
            row
            for row in claimable
            if deaths(row.execution) < SUSPECT_DEATHS
            and not (row.execution.incarnation is None and row.execution.org in without)
        ]
        suspect = [row for row in claimable if deaths(row.execution) >= SUSPECT_DEATHS]
        suspect.sort(key=lambda row: (row.execution.deaths, row.execution.id))
        return [self._taken(row, incarnation) for row in (*in_turn(due)[:limit], *suspect[:suspects])]

    async def claim_one(self, incarnation: UUID, org: str, execution_id: UUID) -> ExecutionDetail | None:
        """See Journal."""
        row = self._tables.executions.get(execution_id)
        is_free = (
            row is not None
            and row.execution.org == org
            and row.execution.incarnation is None
            and not row.execution.state.is_end
        )
        return self._taken(row, incarnation) if row and is_free and self._tables.is_live(incarnation) else None

    async def load(self, incarnation: UUID, execution_id: UUID) -> ExecutionDetail | None:
        """See Journal."""
        row = self._tables.executions.get(execution_id)
        is_ours = row is not None and row.execution.incarnation == incarnation
        return self._driven(row) if row and is_ours else None

    async def load_payloads(self, detail: ExecutionDetail, wanted: Wanted) -> ExecutionDetail:
        """See Journal."""
        row = self._tables.executions.get(detail.execution.id)
        return detail if row is None else row.filled(detail, wanted)

    async def undriven(self, incarnation: UUID, driven: Sequence[UUID]) -> Sequence[UUID]:
        """See Journal."""
        owned = (row.execution for row in self._tables.executions.values() if row.execution.incarnation == incarnation)
        return sorted({execution.id for execution in owned} - set(driven))

    async def deliver(self, incarnation: UUID, taken: Collection[MessageKey] = ()) -> Sequence[Mail]:
        """See Journal."""
        mail, now = [], self._tables.now()
        for row in self._tables.executions.values():
            execution, unseen = row.execution, self._tables.unseen(row)
            if unseen and execution.incarnation == incarnation:
                left = tuple(message for message in unseen if (execution.id, message.id) not in taken)
                mail += [Mail(execution.id, execution.epoch, left)] if left else []
            elif unseen and execution.wake_time is not None and execution.wake_time > now:
                row.execution = replace(execution, wake_time=now)
                mail.append(Mail(execution.id, execution.epoch, unseen))
        return sorted(mail, key=lambda each: each.execution_id)

    async def find_request(self, org: str, request_id: str, content_hashes: Collection[bytes]) -> Execution | None:
        """See Journal."""
        first = self._tables.requests.get((org, request_id))
        if first is None:
            return None
        return self._first(request_id, content_hashes, first)

    async def condemn(self, incarnation: UUID, execution_id: UUID, end: End) -> Event | None:
        """See Journal."""
        row = self._tables.executions.get(execution_id)
        if row is None or row.execution.incarnation != incarnation:
            return None
        before, now, seq = row.execution, self._tables.now(), row.execution.last_seq + 1
        for key, step in row.steps.items():
            if not step.state.is_end:
                row.steps[key] = replace(step, state=StepState.CANCELLED, end_time=now, end_seq=seq, output=None)
        kinds = {message.kind for message in self._tables.unseen(row)}
        is_asked = before.state is ExecutionState.CANCELLING or kinds & {MessageKind.CANCEL, MessageKind.TERMINATE}
        state = ExecutionState.CANCELLED if is_asked else ExecutionState.FAILED
        closing = Closing(state, seq, now, min(before.progress, 99), _closed(before.counts, row.steps))
        failure, event = end(closing)
        row.events.append(event)
        self._tables.leave_signals(before.org, before.id)
        people.cancel(self._tables, before.id, now)
        row.execution = replace(
            before,
            state=state,
            end_time=now,
            failure=copied(failure),
            ending=None,
            pause=None,
            last_seq=seq,
            counts=closing.counts,
            progress=closing.progress,
            incarnation=None,
            wake_time=None,
        )
        return event

    async def next_wake_time(self) -> datetime | None:
        """See Journal."""
        wakes = (row.execution.wake_time for row in self._tables.executions.values())
        return min((wake for wake in wakes if wake is not None), default=None)

    async def release(self, incarnation: UUID, execution_ids: Sequence[UUID] | None = None) -> int:
        """See Journal."""
        return release(self._tables, incarnation, execution_ids)

    def _create(self, new: NewExecution) -> Created:
        execution, tables = new.execution, self._tables
        key = execution.org, execution.request_id
        if execution.request_id and (first := tables.requests.get(key)) is not None:
            return Created(self._first(execution.request_id, [new.content_hash], first, new.method), False)
        if new.alone_in is not None and (others := self._going_on(execution, new.alone_in)):
            return Created(max(others, key=lambda row: row.execution.id).fresh(), False)
        workflow = tables.workflows.get(execution.workflow_id)
        if workflow is None or workflow.is_deleted or workflow.latest.org != execution.org:
            raise WorkflowNotFoundError(str(execution.workflow_id))
        if new.if_latest and workflow.latest.revision != execution.revision:
            raise WorkflowNotFoundError(str(execution.workflow_id))
        pending = workflow.pending(tables.now())
        if not fits(new.takes, execution.breakpoints, pending):
            raise BreakpointsMetError(pending)
        if workflow.pause is not None:
            new = new.held_back()
        row = _new_row(new)
        people.keep(tables, execution.org, execution.id, new.tasks)
        tables.executions[execution.id] = row
        if new.takes is not None and pending is not None:
            workflow.breakpoints = replace(pending, left=pending.left - 1)
        if execution.request_id:
            tables.requests[key] = KeptRequest(new.method, new.content_hash, execution.create_time, execution.id)
        return Created.anew(new, row.fresh())

    def _going_on(self, new: Execution, scope: Scope) -> Sequence[ExecutionRow]:
        """Return what goes on of the workflow and the correlation id of a new execution, and is no dry run."""
        same = new.workflow_id, new.correlation_id
        return [
            row
            for row in self._tables.executions.values()
            if (row.execution.workflow_id, row.execution.correlation_id) == same
            and in_scope(row.execution, scope)
            and not (row.execution.state.is_end or row.execution.is_dry_run)
        ]

    def _first(
        self,
        request_id: str,
        content_hashes: Collection[bytes],
        first: KeptRequest,
        method: Method = Method.EXECUTE,
    ) -> Execution:
        if first.method is not method or first.content_hash not in content_hashes:
            raise RequestIdReusedError(request_id)
        assert first.execution_id is not None  # noqa: S101 - of every Execute
        row = self._tables.executions.get(first.execution_id)
        if row is None:
            raise ExecutionNotFoundError(first.execution_id)
        return row.fresh()

    def _submit_checked(self, transition: Transition) -> CommitResult:
        """Refuse what contradicts itself whoever owns the execution, as a committer does before it writes."""
        invariants.check_events(transition.events, transition.base_seq)
        invariants.check_letters(transition)
        check_tasks(transition.tasks, transition.task_changes)
        return self._submit(transition)

    def _submit(self, transition: Transition) -> CommitResult:
        row = self._tables.executions.get(transition.execution_id)
        if row is None or is_fenced(row.execution, transition):
            return CommitResult.FENCED
        invariants.check_steps(row.steps, transition.steps)
        changed = after(row.execution, transition, self._tables.now())
        invariants.check_execution(changed)
        result, steps = copied(transition.result), _kept(transition.steps)
        signals = UNREAD if transition.signals is UNREAD else tuple(map(fresh_signal, transition.signals))
        edited = UNREAD if transition.edited is UNREAD else fresh_edited(transition.edited)
        people.keep(self._tables, changed.org, changed.id, transition.tasks, transition.task_changes)
        row.execution = changed
        row.awaits = frozenset(transition.awaits if changed.wake_time is not None else ())
        if signals is not UNREAD:
            row.signals = signals
        if edited is not UNREAD:
            row.edited = edited
        row.result = result if changed.state.is_end else None
        for step in steps.values():
            row.put(step)
        row.events.extend(transition.events)
        for message_id in transition.consumed:
            self._tables.messages.get((changed.org, changed.id), {}).pop(message_id, None)
        for letter in transition.letters:
            self._tables.send(changed.org, letter.execution_id, fresh_message(letter.message))
        return CommitResult.COMMITTED

    def _taken(self, row: ExecutionRow, incarnation: UUID) -> ExecutionDetail:
        before = row.execution
        row.awaits = frozenset()
        row.execution = replace(
            before, incarnation=incarnation, epoch=before.epoch + 1, wake_time=None, deaths=deaths(before)
        )
        return self._driven(row)

    def _driven(self, row: ExecutionRow) -> ExecutionDetail:
        return replace(row.driven(self._loaded_at_once), messages=self._tables.unseen(row))

    def _is_claimable(self, execution: Execution, now: datetime) -> bool:
        if execution.incarnation is not None:
            return not self._tables.is_live(execution.incarnation)
        return execution.wake_time is not None and execution.wake_time <= now


def release(tables: Tables, incarnation: UUID, execution_ids: Iterable[UUID] | None = None) -> int:
    """Give up these executions of an incarnation, or all; they are claimable at once. Returns how many."""
    chosen = tables.executions if execution_ids is None else set(execution_ids) & tables.executions.keys()
    owned = [row for row in map(tables.executions.__getitem__, chosen) if row.execution.incarnation == incarnation]
    for row in owned:
        row.execution = replace(row.execution, incarnation=None, wake_time=tables.now())
    return len(owned)


def _closed(before: StepCounts, steps: Mapping[StepKey, Step]) -> StepCounts:
    newest = {path: steps[path, iteration] for path, iteration in sorted(steps)}
    states = Counter(step.state for step in newest.values())
    completed = states[StepState.COMPLETED] + states[StepState.COMPENSATED]
    failed, skipped = states[StepState.FAILED], states[StepState.SKIPPED]
    total = max(before.total, len(newest))
    return StepCounts(total, completed, failed, skipped, 0, total - completed - failed - skipped)


def _resolved(act: Callable[[], _Answer]) -> Future[_Answer]:
    future: Future[_Answer] = get_running_loop().create_future()
    try:
        future.set_result(act())
    except PersistenceError as error:
        future.set_exception(error)
    return future


def _new_row(new: NewExecution) -> ExecutionRow:
    execution = new.execution
    invariants.check_execution(execution)
    invariants.check_events(new.events, 0)
    invariants.check_steps({}, new.steps)
    if execution.last_seq != len(new.events):
        raise PersistenceError("refused: last_seq is the number of the newest event")
    kept = replace(
        execution,
        tags=tuple(map(text, execution.tags)),
        labels=copied(execution.labels),
        failure=copied(execution.failure),
        ending=fresh_ending(execution.ending),
    )
    given = kept, copied(new.input), copied(new.result)
    return ExecutionRow(
        *given,
        steps=_kept(new.steps),
        events=list(new.events),
        signals=tuple(map(fresh_signal, new.signals)),
        vars=copied(new.vars),
        dry_run=fresh_dry_run(new.dry_run),
    )


def _kept(steps: Sequence[Step]) -> dict[StepKey, Step]:
    return {step.key: fresh_step(step) for step in steps}
