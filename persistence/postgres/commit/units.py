"""What waits to be written: creations, and transitions gathered by execution, encoded as rows."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Generic, TypeAlias, TypeVar
from uuid import UUID

from persistence.errors import PersistenceError
from persistence.model import OPEN_STEP_STATES, UNREAD, Event, ExecutionState, Step, StepKey, StepState
from persistence.people import check_tasks
from persistence.postgres.commit import columns, parts
from persistence.postgres.commit.encoding import document, in_utc
from persistence.postgres.commit.sharing import Payloads
from persistence.postgres.commit.statements import PARTS
from persistence.postgres.commit.step_rows import history_rows, step_rows
from persistence.postgres.shared_payloads import PayloadKey
from persistence.transition import CommitResult, Created, Letter, NewExecution, Transition

Outcome: TypeAlias = "CommitResult | Created | Exception"

WorkflowKey: TypeAlias = tuple[str, UUID, int]
"""Org and id of a workflow, and the revision that must be its latest, or 0."""

LARGE = 64 << 10
"""Bytes from which on an item is large: it takes the database as long as hundreds of usual ones."""

_Answer = TypeVar("_Answer")
_NONE: Mapping[PayloadKey, bytes] = {}


class _Item(Generic[_Answer]):
    """Something submitted, with the future of its caller."""

    __slots__ = ("future", "history_rows", "is_large", "known", "org", "parts", "payload_rows", "size", "step_rows")

    def __init__(self, org: str, future: Future[_Answer]) -> None:
        self.org = org
        self.future = future
        self.step_rows: Sequence[bytes] = ()
        self.history_rows: Sequence[bytes] = ()
        self.payload_rows: Mapping[PayloadKey, bytes] = _NONE
        self.known: Container[PayloadKey] = ()
        self.parts: parts.Parts = parts.NONE
        self.size = 0
        # Whether to write it takes long enough for others to be written without it.
        self.is_large = False

    def encode(
        self, org: str, execution_id: UUID, base_seq: int, steps: Sequence[Step], events: Sequence[Event]
    ) -> None:
        """Make the rows of steps and events, and those of large payloads that they share."""
        payloads = Payloads(org, execution_id)
        self.step_rows = step_rows(org, execution_id, steps, payloads)
        self.history_rows = history_rows(org, execution_id, base_seq, events, payloads)
        if payloads:
            self.payload_rows = {
                key: columns.SHARED.encode(each, document=each.document) for key, each in payloads.items()
            }

    def measure(self, *others: bytes) -> None:
        """Set `size`: about how many bytes its rows are, and these others, as far as they may be many."""
        self.size = sum(map(len, (*self.step_rows, *self.history_rows, *others)))
        for rows in (self.payload_rows.values(), *self.parts.values()):
            self.size += sum(map(len, rows))
        self.is_large = self.size >= LARGE

    def resolve(self, outcome: Outcome) -> None:
        """Tell the caller, unless it has gone."""
        if self.future.done():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)  # type: ignore[arg-type]  # the writer answers each kind with its own


class Creation(_Item[Created]):
    """A new execution. `in_doubt`: an earlier try to write it may have succeeded."""

    __slots__ = ("_asked", "execution", "in_doubt", "input_row", "new", "row")

    def __init__(self, new: NewExecution, future: Future[Created]) -> None:
        super().__init__(new.execution.org, future)
        self._asked = new
        self._make(new)
        self.in_doubt = False

    def hold_back(self, is_paused: bool) -> None:
        """Let it be written as what its workflow makes of it, which is paused or not."""
        if is_paused != self.is_held_back:
            self._make(self._asked.held_back() if is_paused else self._asked)

    def _make(self, new: NewExecution) -> None:
        execution = new.execution
        if execution.last_seq != len(new.events):
            raise PersistenceError("refused: last_seq is the number of the newest event")
        self.encode(execution.org, execution.id, 0, new.steps, new.events)
        self.new = new
        self.execution = execution
        signals = document(columns.signals_document(new.signals)) if new.signals else None
        ending = document(columns.ending_document(execution.ending)) if execution.ending is not None else None
        self.row = columns.EXECUTION.encode(execution, result=document(new.result), ending=ending, signals=signals)
        self.input_row = columns.INPUT.encode(new)
        self.parts = parts.of_creation(new) if new.tasks else parts.NONE
        self.measure(self.row, self.input_row)

    @property
    def is_held_back(self) -> bool:
        """Whether it is written as what waits for the resume of its workflow."""
        return self.execution.held_back

    @property
    def execution_id(self) -> UUID:
        """Which execution it makes."""
        return self.execution.id

    @property
    def key(self) -> tuple[str, str]:
        """Under which request id of which org it is made; the id is empty for one without."""
        return self.execution.org, self.execution.request_id

    @property
    def workflow(self) -> WorkflowKey:
        """What there must be for it."""
        execution = self.execution
        return execution.org, execution.workflow_id, execution.revision if self.new.if_latest else 0

    @property
    def is_free(self) -> bool:
        """Whether the execution is to be claimed now."""
        execution = self.execution
        is_unowned = execution.incarnation is None and execution.end_time is None and execution.scheduled_time is None
        return is_unowned and not execution.held_back


class Submission(_Item[CommitResult]):
    """A transition of an execution."""

    __slots__ = ("edited", "ending", "failure", "result", "signals", "transition")

    def __init__(self, transition: Transition, future: Future[CommitResult]) -> None:
        _check(transition)
        org, execution_id = transition.org, transition.execution_id
        super().__init__(org, future)
        self.encode(org, execution_id, transition.base_seq, transition.steps, transition.events)
        self.transition = transition
        self.failure = document(transition.failure)
        ending = transition.ending
        self.ending = None if ending is None else document(columns.ending_document(ending))
        self.result = document(transition.result) if transition.state.is_end else None
        self.signals = None if transition.signals is UNREAD else document(columns.signals_document(transition.signals))
        edited = transition.edited
        self.edited = None if edited is UNREAD else document(columns.edited_document(edited))
        self.parts = parts.of_transition(transition)
        self.measure()


def letters(items: Iterable[Submission]) -> list[Letter]:
    """Return what transitions send to other executions."""
    return [letter for item in items for letter in item.transition.letters]


def is_free(transition: Transition) -> bool:
    """Return whether the execution is to be claimed after it, perhaps by a process that has what it awaits."""
    return transition.release and (transition.wake_time is None or bool(transition.awaits))


class Refusal(_Item[CommitResult]):
    """A transition that cannot be written at all."""

    __slots__ = ("error", "transition")

    def __init__(self, transition: Transition, future: Future[CommitResult], error: PersistenceError) -> None:
        super().__init__(transition.org, future)
        self.transition = transition
        self.error = error


class Group:
    """Transitions of one execution that follow each other and are written as one."""

    __slots__ = ("_steps", "_tasks", "behind", "early", "items", "known", "payload_rows")

    def __init__(self, item: Submission) -> None:
        self.items = [item]
        self.behind: list[Submission] = []
        # What was written by itself, whatever becomes of the others.
        self.early: list[Submission] = []
        self.payload_rows: Mapping[PayloadKey, bytes] = _NONE
        self.known: Container[PayloadKey] = ()
        self._steps: dict[StepKey, tuple[Step, bytes]] = {}
        self._tasks: set[UUID] = set()
        self._take(item)

    @property
    def last(self) -> Transition:
        """The newest transition; what the row becomes."""
        return self.items[-1].transition

    @property
    def execution_id(self) -> UUID:
        """Which execution it changes."""
        return self.last.execution_id

    @property
    def is_free(self) -> bool:
        """Whether the execution is to be claimed now, perhaps by a process that has what it awaits."""
        return is_free(self.last)

    @property
    def base_seq(self) -> int:
        """What `last_seq` must be before."""
        return self.items[0].transition.base_seq

    @property
    def released(self) -> bool:
        """Whether nobody owns the execution afterwards."""
        return self.last.release or self.last.state.is_end

    @property
    def last_events(self) -> Sequence[Event]:
        """The events of the newest transition that has any."""
        return next((item.transition.events for item in reversed(self.items) if item.transition.events), ())

    @property
    def row(self) -> bytes:
        """The change of the row of the execution."""
        last = self.items[-1]
        return columns.CHANGE.encode(
            self.last,
            base_seq=self.base_seq,
            survived=any(item.transition.survived for item in self.items),
            bound=self._bound,
            result=last.result,
            failure=last.failure,
            ending=last.ending,
            signals=next((item.signals for item in reversed(self.items) if item.signals is not None), None),
            edited_vars=next((item.edited for item in reversed(self.items) if item.edited is not None), None),
        )

    @property
    def _bound(self) -> int | None:
        """How many binding messages there may be, None where that is all the same."""
        seen = [item.transition.mail_seen for item in self.items if item.transition.is_bound]
        return min(seen) if seen else None

    @property
    def step_rows(self) -> list[bytes]:
        """The newest row of each step."""
        return [row for _, row in self._steps.values()]

    @property
    def letters(self) -> list[Letter]:
        """What it sends to other executions."""
        return letters(self.items)

    @property
    def history_rows(self) -> list[bytes]:
        """The rows of all events in order, one for each transition."""
        return [row for item in self.items for row in item.history_rows]

    def accepts(self, item: Submission) -> bool:
        """Take the item in if it can be of the same write; False when it must wait for a later one."""
        last, transition = self.last, item.transition
        owner = transition.org, transition.incarnation, transition.epoch
        if (last.org, last.incarnation, last.epoch) != owner:
            return False
        if self.released or self.behind or transition.base_seq != last.last_seq:
            self.behind.append(item)  # whatever becomes of those before it, it does not fit
            return True
        if not all(self._may_follow(step) for step in transition.steps):
            return False  # the table refuses it, alone
        if self._tasks and not self._tasks.isdisjoint(parts.task_ids(transition)):
            return False  # one statement does not see what another makes of a row
        self.items.append(item)
        self._take(item)
        return True

    def resolve(self, outcome: Outcome) -> None:
        """Tell all callers. Items behind are fenced in any case."""
        for item in self.items:
            item.resolve(outcome)
        for item in self.behind:
            item.resolve(CommitResult.FENCED)

    def _take(self, item: Submission) -> None:
        if item.payload_rows:
            self.payload_rows = {**self.payload_rows, **item.payload_rows}
        if item.parts:
            self._tasks.update(parts.task_ids(item.transition))
        for step, row in zip(item.transition.steps, item.step_rows, strict=True):
            self._steps[step.key] = step, row

    def _may_follow(self, step: Step) -> bool:
        before, _ = self._steps.get(step.key, (None, b""))
        if before is None:
            return True
        if step.input is UNREAD and before.input is not UNREAD:
            return False  # it keeps what the one before has to write first
        if not before.state.is_end:
            return True
        return before.state is StepState.COMPLETED and step.state is StepState.COMPENSATED


Unit: TypeAlias = "Creation | Group"


def is_written(outcome: Outcome | None) -> bool:
    """Whether the database holds it, by this write."""
    return outcome is CommitResult.COMMITTED or (isinstance(outcome, Created) and outcome.created)


def missing_payloads(units: Iterable[Unit]) -> list[bytes]:
    """Return the rows of large payloads that are not known to be kept, in the order of their keys."""
    found = {key: row for unit in units for key, row in unit.payload_rows.items() if key not in unit.known}
    return [found[key] for key in sorted(found)] if found else []


def part_rows(creations: Iterable[Creation], groups: Iterable[Group]) -> dict[str, list[bytes]]:
    """Return the rows of each of PARTS of which there are some."""
    found: dict[str, list[bytes]] = {}
    items: list[Creation | Submission] = [creation for creation in creations if creation.parts]
    items += (item for group in groups for item in group.items if item.parts)
    for name in PARTS if items else ():
        if rows := [row for item in items for row in item.parts.get(name, ())]:
            found[name] = rows
    return found


def _is_consistent(step: Step) -> bool:
    """Whether a step has an end and a wait where its state has."""
    state = step.state
    says_its_wait = state is StepState.CANCELLED or (step.wait is not None) == (state is StepState.WAITING)
    return says_its_wait and (state not in OPEN_STEP_STATES) == (step.end_time is not None)


def _changes_a_row(letter: Letter) -> bool:
    return letter.message.binds or letter.message.id == letter.execution_id


def _check(transition: Transition) -> None:
    """Refuse what the constraints of the table would miss when a later transition of the same write covers it.

    And what no row can hold, before anything is written.
    """
    if transition.tasks or transition.task_changes:
        check_tasks(transition.tasks, transition.task_changes)
    for moment in (transition.start_time, transition.end_time, transition.deadline_time, transition.wake_time):
        if moment is not None:
            in_utc(moment)
    counts, is_end = transition.counts, transition.state.is_end
    counted = (counts.completed, counts.failed, counts.skipped, counts.running, counts.cancelled)
    is_sound = (
        is_end == (transition.end_time is not None)
        and 0 <= transition.progress <= (100 if transition.state is ExecutionState.COMPLETED else 99)
        and min(counted) >= 0
        and sum(counted) <= counts.total
        and transition.bytes >= 0
        and not (is_end and transition.ending is not None)
        and not (transition.state is ExecutionState.CANCELLING and transition.ending is None)
        and (not transition.letters or (bool(transition.events) and not any(map(_changes_a_row, transition.letters))))
        and all(map(_is_consistent, transition.steps))
    )
    if not is_sound:
        raise PersistenceError("refused: a transition contradicts itself in end times, progress, counts or letters")
