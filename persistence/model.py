"""The frozen values that a store takes and gives.

Those that change with every event are msgspec structs, which `msgspec.structs.replace` copies ten times as fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec

from persistence.breakpoints import Breakpoints, WorkflowBreakpoints
from persistence.dry_runs import DryRun
from persistence.lineage import Lineage
from persistence.mail import (
    BINDING_MESSAGES as BINDING_MESSAGES,  # what executions are told is known by this module, too
)
from persistence.mail import Mail as Mail
from persistence.mail import Message as Message
from persistence.mail import MessageKind as MessageKind
from persistence.pauses import Pause as Pause
from persistence.pauses import WorkflowPause
from persistence.signals import Signal
from persistence.usage import Usage
from persistence.waits import Wait as Wait  # what steps hold is known by this module, too
from persistence.waits import WaitKind as WaitKind

Json = Any  # a JSON value as plain Python: None, bool, int, float, str, list, dict

LARGE_PAYLOAD = 8 << 10
"""Bytes from which on a store may keep equal payloads of an execution once."""

LOADED_AT_ONCE = 64 << 10
"""Bytes of payloads of its steps, about, that come with an execution which is taken to be driven."""

UNREAD = msgspec.UNSET
"""Stands for the input, the output or the variables of a step that were not read. It is no JSON value."""

SUSPECT_DEATHS = 3
"""Owners in a row that must have died with an execution before it is driven apart from other such ones."""


class ExecutionState(StrEnum):
    """Where an execution stands. The names are what the database holds."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"
    COMPENSATING = "COMPENSATING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"

    @property
    def is_end(self) -> bool:
        """Whether nothing follows this state."""
        return self in FINAL_STATES


FINAL_STATES = frozenset(
    {
        ExecutionState.COMPLETED,
        ExecutionState.FAILED,
        ExecutionState.CANCELLED,
        ExecutionState.TIMED_OUT,
    }
)

RETRIABLE_STATES = FINAL_STATES - {ExecutionState.COMPLETED}
"""The ends after which an execution may be reopened."""


class StepState(StrEnum):
    """Where a step stands. The names are what the database holds."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"
    COMPENSATED = "COMPENSATED"

    @property
    def is_end(self) -> bool:
        """Whether nothing follows this state in the normal course."""
        return self not in OPEN_STEP_STATES


OPEN_STEP_STATES = frozenset({StepState.PENDING, StepState.RUNNING, StepState.WAITING})


@dataclass(frozen=True, slots=True)
class Scope:
    """What a caller may see: one org, and in it one owner, or every owner when `owner` is None.

    Workflows belong to the org; only executions are narrowed by the owner.
    """

    org: str
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Workflow:
    """One revision of a workflow. `document` is the definition as canonical JSON, `pause` how all of it is paused now,
    `breakpoints` where its next executions are held.

    `unreadable` names the fields that the store holds and that cannot be read; they are empty.
    """

    id: UUID
    org: str
    name: str
    revision: int
    etag: str
    document: Mapping[str, Any]
    create_time: datetime
    update_time: datetime
    updated_by: str
    unreadable: tuple[str, ...] = ()
    pause: WorkflowPause | None = None
    breakpoints: WorkflowBreakpoints | None = None


class Outcome(StrEnum):
    """What became of a workflow that was to be as a document says."""

    CREATED = "CREATED"
    UPDATED = "UPDATED"
    UNCHANGED = "UNCHANGED"


@dataclass(frozen=True, slots=True)
class Applied:
    """A workflow that is as a document says, and what that took."""

    workflow: Workflow
    outcome: Outcome


class StepCounts(msgspec.Struct, frozen=True):
    """How many steps are in which state; what is missing to `total` is pending."""

    total: int = 0
    completed: int = 0
    failed: int = 0
    skipped: int = 0
    running: int = 0
    cancelled: int = 0


class Ending(msgspec.Struct, frozen=True):
    """The end that an execution has been given while attempts of it are still being stopped."""

    state: ExecutionState
    failure: Mapping[str, Any]


class Execution(msgspec.Struct, frozen=True):
    """The narrow row of an execution.

    `incarnation` is the replica process that drives it, None when nobody does; then, unless it has ended, `wake_time`
    says from when on it may be claimed. `epoch` rises at each change of owner. `timeout` is in seconds.
    `deaths` counts the owners that died while they drove it, since one last survived it.
    `bytes` is what it has written so far. `run` is 1, and one more each time that it is reopened after its end;
    `reopened_seq` is the number of the event that did so last, 0 in the first run.
    `usage` is what its attempts that have ended used, None for nothing.
    `failure` is a JSON object with code, message, details, step_path, step_iteration, retryable, stack_trace. `ending`
    is the end that is decided, from then until it has come. `pause` is there while it is PAUSED, `breakpoints` where
    something may hold it. `is_dry_run`: it sends nothing outside. `mail` is how many binding messages it was ever sent.
    `lineage` is that of one which was made from another execution. `held_back`: its workflow is paused, and it does not
    start until that is resumed.
    `unreadable` names the columns that the store holds and that cannot be read; something empty stands in their place.
    """

    id: UUID
    org: str
    owner: str
    workflow_id: UUID
    workflow_name: str
    revision: int
    state: ExecutionState
    create_time: datetime
    timeout: float
    counts: StepCounts
    priority: int = 0
    tags: Sequence[str] = ()
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    correlation_id: str = ""
    request_id: str = ""
    scheduled_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    deadline_time: datetime | None = None
    progress: int = 0
    last_seq: int = 0
    failure: Mapping[str, Any] | None = None
    ending: Ending | None = None
    pause: Pause | None = None
    mail: int = 0
    incarnation: UUID | None = None
    epoch: int = 1
    wake_time: datetime | None = None
    deaths: int = 0
    bytes: int = 0
    run: int = 1
    usage: Usage | None = None
    unreadable: tuple[str, ...] = ()
    reopened_seq: int = 0
    lineage: Lineage | None = None
    breakpoints: Breakpoints | None = None
    held_back: bool = False
    is_dry_run: bool = False

    @property
    def has_joinable_pause(self) -> bool:
        """Whether it is paused by a breakpoint or its workflow alone."""
        return self.pause is not None and self.pause.is_joinable


StepKey = tuple[str, int]
"""Path and iteration: what tells a step of an execution from all others."""


class Edit(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one iteration of a step has in place of what its definition gives it.

    `value` is what its handler is called with; or, of one that `is_skipped` by hand, its output.
    """

    path: str
    iteration: int
    value: Json = None
    is_skipped: bool = False


class EditedVariable(msgspec.Struct, frozen=True):
    """What somebody has set a variable to, which stands until a step assigns it.

    The event `seq` tells it; the first such event of the variable is `first_seq`.
    """

    value: Json
    seq: int
    first_seq: int


class Wanted(msgspec.Struct, frozen=True):
    """Of which steps it takes what to drive an execution on: the output and all about failures, the variables that they
    assigned, the input."""

    outputs: frozenset[StepKey] = frozenset()
    assigned: frozenset[StepKey] = frozenset()
    inputs: frozenset[StepKey] = frozenset()


class Step(msgspec.Struct, frozen=True):
    """The row of one iteration of a step. A step that never left PENDING has none.

    `start_time` is that of the first attempt, `attempt_time` that of the newest. `end_seq` is the number of the event
    that ended it: variables are folded in this order. `wait` stays on a cancelled step that was waiting.
    `failed_attempts` holds at most the last 20 as JSON objects with attempt, start_time, end_time, failure; `failures`
    counts all that the retry policy counts: attempts that a crash cut off are not among them. `progress` is the
    percentage that the running attempt reported. `usage` is what the attempts of this iteration that have ended used,
    None for nothing. `position` is the place in the definition, from 1, of the step of the root that it is, or is of;
    `items` has the number of its item and its own place, for each item around it: in the order of both, what is of an
    item stands together. A step that is written with an UNREAD `input` keeps the one that it has.
    `is_fixed`: each attempt of this iteration is called with that, whatever the definition says. `is_mocked`: what it
    gives was given for it, and nothing ran.
    """

    path: str
    handler: str
    state: StepState
    iteration: int = 1
    attempt: int = 0
    input: Json = None
    output: Json = None
    failure: Mapping[str, Any] | None = None
    failed_attempts: Sequence[Mapping[str, Any]] = ()
    assigned: Mapping[str, Any] | None = None
    skip_reason: str = ""
    start_time: datetime | None = None
    attempt_time: datetime | None = None
    end_time: datetime | None = None
    wait: Wait | None = None
    end_seq: int | None = None
    worker: str = ""
    failures: int = 0
    progress: int = 0
    position: int = 0
    items: tuple[int, ...] = ()
    usage: Usage | None = None
    is_fixed: bool = False
    is_mocked: bool = False

    @property
    def key(self) -> StepKey:
        """What it is told by in its execution."""
        return self.path, self.iteration

    def waits_for(self, kind: WaitKind) -> bool:
        """Return whether it waits now, and for this."""
        return self.state is StepState.WAITING and self.wait is not None and self.wait.kind is kind


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the history. `body` is what watchers get, byte for byte.

    `kind` is a word. `time` is the same for all that is written at once. `payload` says where in the body a large
    payload begins and ends that other events may hold too.
    """

    seq: int
    transition_seq: int
    kind: str
    time: datetime
    body: bytes
    payload: tuple[int, int] | None = field(default=None, compare=False)


class ExecutionDetail(msgspec.Struct, frozen=True):
    """An execution with its payloads and steps, all as of the same `last_seq`.

    `messages` are those that nobody has seen, in the order in which they came, where it was read to be driven,
    and `signals` those that no step has taken.
    `unreadable` names all that cannot be read, such as `deadline_time`, `input`, `steps.fetch.output`; without it, the
    rest is shown, but the execution cannot be driven. `omitted` are the keys of steps whose payloads were not read:
    None where an execution is shown, and UNREAD where it is loaded to be driven. `time` is when it was so, where it is
    shown as it was. `edit` is that of its run, `vars` are what it was given when it was made from another one, and
    `edited` what somebody has set variables to since, by their names. `dry_run` is that of one which sends nothing.
    """

    execution: Execution
    input: Mapping[str, Any]
    result: Json
    steps: Sequence[Step]
    unreadable: tuple[str, ...] = ()
    omitted: frozenset[StepKey] = frozenset()
    messages: Sequence[Message] = ()
    signals: Sequence[Signal] = ()
    time: datetime | None = None
    edit: Edit | None = None
    vars: Mapping[str, Any] = msgspec.field(default_factory=dict)
    edited: Mapping[str, EditedVariable] = msgspec.field(default_factory=dict)
    dry_run: DryRun | None = None


class Posted(msgspec.Struct, frozen=True):
    """An execution after something was sent to it; `message` is what stands of that, None once it was seen."""

    execution: Execution
    message: Message | None


class ExecutionOutcome(msgspec.Struct, frozen=True):
    """An execution and its result, None unless it COMPLETED; one that cannot be read is among its `unreadable`."""

    execution: Execution
    result: Json


class ExecutionSteps(msgspec.Struct, frozen=True):
    """Some steps of an execution, all as of the same `last_seq`.

    `unreadable` names what of them cannot be read, `omitted` those whose payloads were not read, as in ExecutionDetail.
    """

    execution: Execution
    steps: Sequence[Step]
    unreadable: tuple[str, ...] = ()
    omitted: frozenset[StepKey] = frozenset()
