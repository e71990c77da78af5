"""What waits to be written: creations, and transitions gathered by execution, encoded as rows."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Sequence
from typing import Any, Generic, TypeAlias, TypeVar
from uuid import UUID

from persistence.errors import PersistenceError
from persistence.model import (
    CommitResult,
    Created,
    Event,
    Execution,
    ExecutionState,
    NewExecution,
    Step,
    StepState,
    Transition,
)
from persistence.postgres.records import encoded, encoded_or_none

Row: TypeAlias = tuple[Any, ...]
Outcome: TypeAlias = "CommitResult | Created | Exception"

_Answer = TypeVar("_Answer")


class _Item(Generic[_Answer]):
    """Something submitted, with the future of its caller."""

    __slots__ = ("event_rows", "future", "step_rows")

    def __init__(self, future: Future[_Answer], step_rows: Sequence[Row], event_rows: Sequence[Row]) -> None:
        self.future = future
        self.step_rows = step_rows
        self.event_rows = event_rows

    def resolve(self, outcome: Outcome) -> None:
        """Tell the caller, unless it has gone."""
        if self.future.done():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)  # type: ignore[arg-type]  # the writer answers each kind with its own


class Creation(_Item[Created]):
    """A new execution. `suspect`: an earlier try to write it may have succeeded."""

    __slots__ = ("execution", "new", "payload_row", "row", "suspect")

    def __init__(self, new: NewExecution, future: Future[Created]) -> None:
        execution = new.execution
        if execution.last_seq != len(new.events):
            raise PersistenceError("refused: last_seq is the number of the newest event")
        super().__init__(
            future,
            _step_rows(execution.org, execution.id, new.steps),
            _event_rows(execution.org, execution.id, 0, new.events),
        )
        self.new = new
        self.execution = execution
        self.row = _execution_row(execution)
        self.payload_row = (execution.org, execution.id, encoded(new.input), encoded_or_none(new.result))
        self.suspect = False


class Submission(_Item[CommitResult]):
    """A transition of an execution."""

    __slots__ = ("failure", "result", "transition")

    def __init__(self, transition: Transition, future: Future[CommitResult]) -> None:
        _check(transition)
        org, execution_id = transition.org, transition.execution_id
        super().__init__(
            future,
            _step_rows(org, execution_id, transition.steps),
            _event_rows(org, execution_id, transition.base_seq, transition.events),
        )
        self.transition = transition
        self.failure = encoded_or_none(transition.failure)
        self.result = encoded_or_none(transition.result) if transition.state.is_end else None


class Refusal(_Item[CommitResult]):
    """A transition that cannot be written at all."""

    __slots__ = ("error", "transition")

    def __init__(self, transition: Transition, future: Future[CommitResult], error: PersistenceError) -> None:
        super().__init__(future, (), ())
        self.transition = transition
        self.error = error


class Group:
    """Transitions of one execution that follow each other and are written as one."""

    __slots__ = ("behind", "items", "steps", "suspect")

    def __init__(self, item: Submission) -> None:
        self.items = [item]
        self.behind: list[Submission] = []
        self.steps = {row[2]: row for row in item.step_rows}
        self.suspect = False

    @property
    def last(self) -> Transition:
        """The newest transition; what the row becomes."""
        return self.items[-1].transition

    @property
    def base_seq(self) -> int:
        """What `last_seq` must be before."""
        return self.items[0].transition.base_seq

    @property
    def released(self) -> bool:
        """Whether nobody owns the execution afterwards."""
        return self.last.release or self.last.state.is_end

    @property
    def result(self) -> str | None:
        """The JSON text of the result, None without one."""
        return self.items[-1].result

    @property
    def event_rows(self) -> list[Row]:
        """The rows of all events in order."""
        return [row for item in self.items for row in item.event_rows]

    def accepts(self, item: Submission) -> bool:
        """Take the item in if it can be of the same write; False when it must wait for a later one."""
        last, transition = self.last, item.transition
        if (last.incarnation, last.epoch) != (transition.incarnation, transition.epoch):
            return False
        if self.released or self.behind or transition.base_seq != last.last_seq:
            self.behind.append(item)  # whatever becomes of those before it, it does not fit
            return True
        if any(not _may_follow(self.steps.get(row[2]), row) for row in item.step_rows):
            return False  # the table refuses it, alone
        self.items.append(item)
        self.steps.update((row[2], row) for row in item.step_rows)
        return True

    def resolve(self, outcome: Outcome) -> None:
        """Tell all callers. Items behind are fenced in any case."""
        for item in self.items:
            item.resolve(outcome)
        for item in self.behind:
            item.resolve(CommitResult.FENCED)

    def row(self) -> Row:
        """The values of the UPDATE; their order is that of `UPDATE_EXECUTIONS`."""
        last = self.last
        counts = last.counts
        return (
            last.org,
            last.execution_id,
            last.incarnation,
            last.epoch,
            self.base_seq,
            last.last_seq,
            last.state.value,
            last.cancel_seen,
            last.state.is_end and last.state is not ExecutionState.CANCELLED,
            self.released,
            counts.total,
            counts.completed,
            counts.failed,
            counts.skipped,
            counts.running,
            counts.cancelled,
            last.progress,
            last.start_time,
            last.end_time,
            last.deadline_time,
            last.wake_time,
            self.items[-1].failure,
        )


Unit: TypeAlias = "Creation | Group"


def columns(rows: Sequence[Row]) -> Sequence[Sequence[Any]]:
    """Return rows as columns, one list per column as unnest wants them."""
    return list(zip(*rows, strict=True))


def _check(transition: Transition) -> None:
    """What the constraints of the table would miss when a later transition of the same write covers it."""
    counts, is_end = transition.counts, transition.state.is_end
    parts = (counts.completed, counts.failed, counts.skipped, counts.running, counts.cancelled)
    is_sound = (
        is_end == (transition.end_time is not None)
        and 0 <= transition.progress <= (100 if transition.state is ExecutionState.COMPLETED else 99)
        and min(parts) >= 0
        and sum(parts) <= counts.total
        and all(step.state.is_end == (step.end_time is not None) for step in transition.steps)
    )
    if not is_sound:
        raise PersistenceError("refused: a transition contradicts itself in end times, progress or counts")


def _may_follow(before: Row | None, after: Row) -> bool:
    if before is None or before[12] is None:
        return True
    return bool(before[4] == StepState.COMPLETED and after[4] == StepState.COMPENSATED)


def _execution_row(execution: Execution) -> Row:
    counts, cancel = execution.counts, execution.cancel
    return (
        execution.org,
        execution.id,
        execution.owner,
        execution.workflow_id,
        execution.workflow_name,
        execution.revision,
        execution.state.value,
        execution.create_time,
        execution.timeout,
        execution.priority,
        _array(execution.tags),
        encoded(execution.metadata) if execution.metadata else "{}",
        execution.correlation_id,
        execution.request_id,
        execution.scheduled_time,
        execution.start_time,
        execution.end_time,
        execution.deadline_time,
        execution.progress,
        counts.total,
        counts.completed,
        counts.failed,
        counts.skipped,
        counts.running,
        counts.cancelled,
        execution.last_seq,
        encoded_or_none(execution.failure),
        cancel.time if cancel else None,
        cancel.by if cancel else None,
        cancel.reason if cancel else None,
        execution.incarnation,
        execution.epoch,
        execution.wake_time,
    )


def _step_rows(org: str, execution_id: UUID, steps: Sequence[Step]) -> list[Row]:
    rows = [_step_row(org, execution_id, step) for step in steps]
    if len(rows) > 1 and len({row[2] for row in rows}) != len(rows):
        raise PersistenceError("refused: a transition holds a step once")
    return rows


def _step_row(org: str, execution_id: UUID, step: Step) -> Row:
    return (
        org,
        execution_id,
        step.path,
        step.handler,
        step.state.value,
        step.attempt,
        step.failures,
        step.progress,
        encoded_or_none(step.input),
        encoded_or_none(step.output),
        encoded_or_none(step.failure),
        encoded(step.failed_attempts) if step.failed_attempts else None,
        step.end_time,
        encoded_or_none(step.assigned),
        step.skip_reason,
        step.start_time,
        step.attempt_time,
        step.wake_time,
        step.end_seq,
        step.worker,
    )


def _event_rows(org: str, execution_id: UUID, base_seq: int, events: Sequence[Event]) -> list[Row]:
    rows = []
    last_seq = base_seq + len(events)
    for seq, event in enumerate(events, start=base_seq + 1):
        if event.seq != seq or not seq <= event.transition_seq <= last_seq:
            raise PersistenceError("refused: events are numbered without gaps and end with a whole transition")
        rows.append((org, execution_id, seq, event.transition_seq, event.kind, event.time, event.body))
    return rows


def _array(texts: Sequence[str]) -> str:
    """Return the text of a Postgres array: arrays of arrays of unequal lengths have no other form."""
    if not texts:
        return "{}"
    return "{" + ",".join('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in texts) + "}"
