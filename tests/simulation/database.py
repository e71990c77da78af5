"""The one database of a simulated world."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import msgspec
from msgspec import structs

from persistence.errors import PersistenceError
from persistence.memory import MemoryRepository
from persistence.model import UNREAD, EditedVariable, Event, ExecutionDetail, Scope, Step
from persistence.postgres.commit import columns
from persistence.postgres.commit.units import Group
from persistence.processes import News
from persistence.requests import Request
from persistence.signals import Signal
from persistence.transition import CommitResult, Created, NewExecution, Reopened, Reopening, Transition
from tests.simulation.history import Claim, History, Write
from tests.simulation.loop import Process, VirtualLoop

if TYPE_CHECKING:
    from tests.simulation.link import Link

_Answer = TypeVar("_Answer")

BEGINNING = datetime(2030, 1, 1, tzinfo=UTC)


def finished(coroutine: Coroutine[Any, Any, _Answer]) -> _Answer:
    """Return the result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    raise AssertionError("the store waits for something")


def merged(group: Group) -> Transition:
    """Return the one transition as which a group is written, by the rows that the real writer sends."""
    row = dict(zip(columns.CHANGE.names, msgspec.json.decode(group.row), strict=True))
    steps: dict[bytes, Step] = {}
    events: dict[bytes, Sequence[Event]] = {}
    for item in group.items:
        steps |= zip(item.step_rows, item.transition.steps, strict=True)
        events |= dict.fromkeys(item.history_rows, item.transition.events)
    return structs.replace(
        group.last,
        base_seq=row["base_seq"],
        mail_seen=row["mail_seen"] if row["bound"] is None else row["bound"],
        survived=row["survived"],
        steps=[steps[each] for each in group.step_rows],
        events=[event for each in group.history_rows for event in events[each]],
        consumed=[each for item in group.items for each in item.transition.consumed],
        letters=group.letters,
        tasks=[each for item in group.items for each in item.transition.tasks],
        task_changes=[each for item in group.items for each in item.transition.task_changes],
        signals=UNREAD if row["signals"] is None else msgspec.convert(row["signals"], tuple[Signal, ...]),
        edited=UNREAD if row["edited_vars"] is None else msgspec.convert(row["edited_vars"], dict[str, EditedVariable]),
        gives_up=any(item.transition.gives_up for item in group.items),
    )


class Database:
    """The shared store. Its time is the virtual time, and what it accepts it writes into the history."""

    def __init__(self, loop: VirtualLoop, history: History) -> None:
        self.loop = loop
        self.history = history
        self.memory = MemoryRepository(self.now, loaded_at_once=0)
        self.tables = self.memory._tables
        self.listeners: dict[Link, Callable[[News], None]] = {}
        self.is_away = False

    def now(self) -> datetime:
        """Return the time of the store."""
        return BEGINNING + timedelta(seconds=self.loop.time())

    def create(self, process: Process, new: NewExecution, decided: float) -> Created:
        """Carry out a creation, which leaves what the execution is made from as it is (RE3)."""
        execution = new.execution
        source = execution.lineage and execution.lineage.source
        before = source and self._held(source)
        created = self.memory.create(new).result()
        if source and before != self._held(source):
            self.history.problems.append(f"RE3: to make {execution.id} of {source} has changed that")
        if created.created:
            self.history.note(self.loop.time(), process, "created", execution.id)
            incarnation = execution.incarnation or UUID(int=0)
            kept = new.held_back() if created.execution.held_back else new
            write = (execution.id, process.name, incarnation, execution.epoch, 0, tuple(kept.events))
            self.history.writes.append(Write(*write, decided, self.loop.time(), CommitResult.COMMITTED, True))
        return created

    def reopen(self, process: Process, scope: Scope, reopening: Reopening, request: Request | None) -> Reopened:
        """Carry out a retry in place. Raises PersistenceError."""
        reopened: Reopened = finished(self.memory.reopen(scope, reopening, request))
        execution, now = reopened.execution, self.loop.time()
        if reopened.is_new:
            self.history.note(now, process, "reopened", execution.id, f"run {execution.run}")
            write = (execution.id, process.name, UUID(int=0), execution.epoch, reopening.base_seq, (reopening.event,))
            self.history.writes.append(Write(*write, now, now, CommitResult.COMMITTED, True))
        return reopened

    def submit(self, process: Process, group: Group, decided: Callable[[Transition], float]) -> CommitResult:
        """Carry out the transitions of a group as one, or none of them. Raises PersistenceError."""
        whole = merged(group)
        before = self._held(whole.execution_id)
        outcome: CommitResult | PersistenceError
        try:
            outcome = self.memory._submit(whole)
        except PersistenceError as error:
            outcome = error
        result = None if isinstance(outcome, PersistenceError) else outcome
        is_changed = before != self._held(whole.execution_id)
        for place, item in enumerate(group.items, start=1):
            transition = item.transition
            self.history.note(
                self.loop.time(),
                process,
                result.value if result else repr(outcome),
                transition.execution_id,
                f"epoch {transition.epoch}, {transition.base_seq}..{transition.last_seq} {transition.state.value}",
                " ".join(f"{event.seq}:{event.kind}" for event in transition.events),
                *([f"{place} of {len(group.items)}"] if len(group.items) > 1 else []),
            )
            self.history.writes.append(
                Write(
                    transition.execution_id,
                    process.name,
                    transition.incarnation,
                    transition.epoch,
                    transition.base_seq,
                    tuple(transition.events),
                    decided(transition),
                    self.loop.time(),
                    result,
                    is_changed,
                    tuple(transition.consumed),
                )
            )
        if isinstance(outcome, PersistenceError):
            raise outcome
        return outcome

    def fate(self, group: Group) -> CommitResult | None:
        """Tell what became of a group by what the tables hold, as the real writer does; None: not yet written."""
        last = group.last
        row = self.tables.executions.get(last.execution_id)
        if row is None:
            return CommitResult.FENCED
        now = row.execution
        if events := group.last_events:
            if now.last_seq >= last.last_seq and row.events[last.last_seq - 1] == events[-1]:
                return CommitResult.COMMITTED
        elif group.released and (now.epoch, now.last_seq, now.incarnation) == (last.epoch, last.last_seq, None):
            return CommitResult.COMMITTED
        ours = (last.incarnation, last.epoch, group.base_seq)
        return None if (now.incarnation, now.epoch, now.last_seq) == ours else CommitResult.FENCED

    def _held(self, execution_id: UUID) -> tuple[Any, ...] | None:
        row = self.tables.executions.get(execution_id)
        return None if row is None else (row.execution, len(row.events), dict(row.steps), row.result)

    def taken(self, process: Process, details: Sequence[ExecutionDetail]) -> None:
        """Write down what was claimed."""
        for detail in details:
            execution = detail.execution
            assert execution.incarnation is not None
            self.history.claims.append(Claim(execution.id, execution.incarnation, execution.epoch, self.loop.time()))
            self.history.note(self.loop.time(), process, "claimed", execution.id, f"epoch {execution.epoch}")
            if execution.state.is_end:
                self.history.problems.append(f"I6: {execution.id} was claimed although it is {execution.state}")
