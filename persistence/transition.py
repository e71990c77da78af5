"""What changes together in one commit, and what becomes of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec
from msgspec.structs import replace

from persistence.breakpoints import Breakpoints
from persistence.dry_runs import DryRun
from persistence.errors import ExecutionStateError, PersistenceError
from persistence.model import (
    RETRIABLE_STATES,
    UNREAD,
    Edit,
    EditedVariable,
    Ending,
    Event,
    Execution,
    ExecutionOutcome,
    ExecutionState,
    Json,
    Message,
    Pause,
    Scope,
    Step,
    StepCounts,
)
from persistence.pauses import NEVER
from persistence.people import NewTask, TaskChange
from persistence.requests import Method
from persistence.signals import Signal
from persistence.usage import Usage

_KIND = re.compile(r"\w{1,64}")


class Closing(msgspec.Struct, frozen=True):
    """The end that `condemn` gives: what the last event tells beside the failure, and its number."""

    state: ExecutionState
    seq: int
    time: datetime
    progress: int
    counts: StepCounts


class Waiting(msgspec.Struct, frozen=True):
    """A new execution as it is kept where it has to wait before it starts: the row, and the steps, events and signals
    without those of its start."""

    execution: Execution
    steps: Sequence[Step]
    events: Sequence[Event]
    signals: Sequence[Signal] = ()


class NewExecution(msgspec.Struct, frozen=True):
    """What `create` writes in one transaction: the row, its input, its first steps and events, the request id.

    `content_hash` is half the SHA-256 of all that the caller asked for: it tells a repeated request from a reused id.
    With `if_latest` it is kept only while its revision is the latest of the workflow. `vars` are variables that it is
    given, which count as assigned by the last of the events of its lineage. `signals` are those that it was sent with
    its creation and that no step has taken. `method` is the call that makes it. Of one that starts with its creation,
    `waiting` is what is kept in its place while its workflow is paused. `dry_run` is there where the execution is one,
    and only there.

    `takes` is the id of the breakpoints of its workflow that it has taken up, None for none.

    With `alone_in` it is kept only while no other execution of its workflow with its correlation id goes on in that
    scope.
    """

    execution: Execution
    input: Mapping[str, Any]
    content_hash: bytes
    steps: Sequence[Step] = ()
    events: Sequence[Event] = ()
    result: Json = None
    if_latest: bool = False
    tasks: Sequence[NewTask] = ()
    vars: Mapping[str, Any] = msgspec.field(default_factory=dict)
    signals: Sequence[Signal] = ()
    method: Method = Method.EXECUTE
    alone_in: Scope | None = None
    waiting: Waiting | None = None
    takes: UUID | None = None
    dry_run: DryRun | None = None

    def held_back(self) -> NewExecution:
        """Return what is kept of it while its workflow is paused."""
        new, waiting = self, self.waiting
        if waiting is not None:
            kept = {"steps": waiting.steps, "events": waiting.events, "signals": waiting.signals}
            new = replace(self, **kept, result=None, tasks=(), waiting=None)
        execution = new.execution if waiting is None else waiting.execution
        return replace(new, execution=replace(execution, held_back=True, wake_time=NEVER))


class Created(msgspec.Struct, frozen=True):
    """Answer of `create`: the execution as it is now, and whether this call made it.

    `outcome` is that of an execution which this call made, and which has ended in its creation.
    """

    execution: Execution
    created: bool
    outcome: ExecutionOutcome | None = None

    @classmethod
    def anew(cls, new: NewExecution, execution: Execution) -> Created:
        """Return the answer to a call that made the execution, which is so now."""
        return cls(execution, True, ExecutionOutcome(execution, new.result) if new.execution.state.is_end else None)


class Letter(msgspec.Struct, frozen=True):
    """A message to another execution of the same org."""

    execution_id: UUID
    message: Message


class Transition(msgspec.Struct, frozen=True):
    """What changes together in one commit of one execution.

    It is written only while the row still has this `incarnation`, `epoch` and `base_seq` (the `last_seq` before it).
    `release` gives the execution up: nobody owns it then and it may be claimed from `wake_time` on, or at once when
    that is None, and at any time for a process that has one of the handlers that it `awaits`; an end releases by
    itself. `survived` says that the execution does not take down who drives it, and clears the count of deaths. Every
    field of the row is set to what the transition says, also to None; steps that it does not name stay as they are.

    `consumed` are the messages of the execution that it has seen: they are gone with its commit. `mail_seen` is how
    many binding ones it has seen of all that were ever sent (`Execution.mail`), those of earlier transitions included.
    While there are more, they bind: an end other than CANCELLED, which is what they ask for, is refused, as is what
    changes a task of people, who may have completed it, and a release leaves the execution claimable at once. `letters`
    go to other executions and change nothing of their rows: so they cannot bind, and there is an event with which they
    were sent. `tasks` of people are made; `task_changes` change those that have not ended. `signals` are those that no
    step has taken, and `edited` variables that somebody has set; UNREAD where they stay as they are. What `gives_up`
    waiting for a signal is refused as an end is: it may have come.
    """

    org: str
    execution_id: UUID
    incarnation: UUID
    epoch: int
    base_seq: int
    state: ExecutionState
    counts: StepCounts
    progress: int
    steps: Sequence[Step] = ()
    events: Sequence[Event] = ()
    start_time: datetime | None = None
    end_time: datetime | None = None
    deadline_time: datetime | None = None
    failure: Mapping[str, Any] | None = None
    ending: Ending | None = None
    pause: Pause | None = None
    breakpoints: Breakpoints | None = None
    result: Json = None
    consumed: Sequence[UUID] = ()
    mail_seen: int = 0
    letters: Sequence[Letter] = ()
    tasks: Sequence[NewTask] = ()
    task_changes: Sequence[TaskChange] = ()
    release: bool = False
    wake_time: datetime | None = None
    awaits: Sequence[str] = ()
    survived: bool = False
    bytes: int = 0
    usage: Usage | None = None
    signals: Sequence[Signal] | msgspec.UnsetType = UNREAD
    edited: Mapping[str, EditedVariable] | msgspec.UnsetType = UNREAD
    gives_up: bool = False

    @property
    def last_seq(self) -> int:
        """Number of the newest event after this transition."""
        return self.events[-1].seq if self.events else self.base_seq

    @property
    def is_bound(self) -> bool:
        """Whether it is refused while there are binding messages that it has not seen."""
        ends_otherwise = self.state.is_end and self.state is not ExecutionState.CANCELLED
        return ends_otherwise or bool(self.task_changes) or self.gives_up


class Reopening(msgspec.Struct, frozen=True):
    """What lets an execution go on after its end, in one commit: it is written only while the row stands at its end.

    That is while it has ended in one of RETRIABLE_STATES with `base_seq` as its last_seq, and its workflow is not
    deleted. It has no owner then and may be claimed at once; `counts` are those of what is done. `edit` takes the place
    of that of the run before, also as None.
    """

    execution_id: UUID
    base_seq: int
    run: int
    counts: StepCounts
    start_time: datetime
    deadline_time: datetime
    bytes: int
    event: Event
    edit: Edit | None = None


class Reopened(msgspec.Struct, frozen=True):
    """Answer of `reopen`: the execution as it is now, and whether this call reopened it."""

    execution: Execution
    is_new: bool


def retriable(execution: Execution, reopening: Reopening) -> None:
    """Raises ExecutionStateError unless the execution stands at the end that is to be gone on from."""
    if execution.state not in RETRIABLE_STATES:
        wanted = "only what has ended FAILED, TIMED_OUT or CANCELLED can be retried"
        raise ExecutionStateError(execution.id, execution.state, wanted)
    if execution.last_seq != reopening.base_seq:
        wanted = "it was retried meanwhile and has ended again; look at it, and retry it once more"
        raise ExecutionStateError(execution.id, execution.state, wanted)


def check_events(events: Sequence[Event], base_seq: int) -> None:
    """Raises PersistenceError unless the events can be written at once behind `base_seq`."""
    last_seq = base_seq + len(events)
    for seq, event in enumerate(events, start=base_seq + 1):
        if event.seq != seq or not seq <= event.transition_seq <= last_seq:
            raise PersistenceError("refused: events are numbered without gaps and end with a whole transition")
        if event.time != events[0].time:
            raise PersistenceError("refused: events that are written at once are of one time")
        if not _KIND.fullmatch(event.kind):
            raise PersistenceError("refused: the kind of an event is a word of up to 64 letters")


class CommitResult(StrEnum):
    """What became of a transition."""

    COMMITTED = "COMMITTED"
    """It is durable."""

    FENCED = "FENCED"
    """Nothing was written: the execution is no longer ours at this seq, or a binding message came first."""

    UNKNOWN = "UNKNOWN"
    """It may have been written and could not be read back; give the execution up."""
