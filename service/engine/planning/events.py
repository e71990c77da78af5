"""What an execution's history records.

`usage` is what the attempt used that ended, None for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from persistence.breakpoints import Breakpoint, Halt
from persistence.lineage import Lineage
from persistence.model import Edit, ExecutionState, StepCounts, Wait
from persistence.signals import Signal
from persistence.usage import Usage
from service.engine.failure import Failure


class Created(msgspec.Struct, frozen=True):
    """The execution was accepted."""

    workflow_id: str
    workflow_name: str
    revision: int
    owner: str
    scheduled_time: datetime | None
    lineage: Lineage | None = None
    dry_run: bool = False


class Started(msgspec.Struct, frozen=True):
    """The execution started."""

    deadline_time: datetime


class StepStarted(msgspec.Struct, frozen=True):
    """An attempt of a step started. `mocked`: nothing runs, and what it comes to was given for it."""

    path: str
    handler: str
    attempt: int
    worker: str
    input: Mapping[str, Any]
    iteration: int = 1
    mocked: bool = False


class StepProgressed(msgspec.Struct, frozen=True):
    """A running attempt reported progress."""

    path: str
    attempt: int
    progress_percent: int
    message: str
    iteration: int = 1


class StepWaiting(msgspec.Struct, frozen=True):
    """A step began to wait. `output` is what it will give, where it waits for a time; `input` what it is to
    be called with, where a breakpoint holds it.
    """

    path: str
    wait: Wait
    iteration: int = 1
    output: Any = None
    usage: Usage | None = None
    input: Mapping[str, Any] | None = None


class StepEdited(msgspec.Struct, frozen=True):
    """Somebody has changed what a step is to be called with that a breakpoint holds."""

    path: str
    edited_by: str
    input: Mapping[str, Any]
    iteration: int = 1


class StepRetrying(msgspec.Struct, frozen=True):
    """An attempt failed and another one follows. `failures` is how many count for the retry policy."""

    path: str
    attempt: int
    failure: Failure
    retry_time: datetime
    failures: int = 0
    iteration: int = 1
    usage: Usage | None = None


class StepCompleted(msgspec.Struct, frozen=True):
    """A step completed. `signals` are the ids of those that it has taken. `mocked` is as in StepStarted."""

    path: str
    attempt: int
    output: Any
    iteration: int = 1
    usage: Usage | None = None
    signals: tuple[UUID, ...] = ()
    mocked: bool = False


class StepFailed(msgspec.Struct, frozen=True):
    """A step failed for good. `is_of_attempt`: because its newest attempt did, and not between two of them.

    `signals` are the ids of those that it has taken and that did not fit, or because of which it failed afterwards.
    `mocked` is as in StepStarted.
    """

    path: str
    attempt: int
    failure: Failure
    failures: int = 0
    is_of_attempt: bool = False
    iteration: int = 1
    usage: Usage | None = None
    signals: tuple[UUID, ...] = ()
    mocked: bool = False


class StepSkipped(msgspec.Struct, frozen=True):
    """A step was skipped."""

    path: str
    reason: str
    iteration: int = 1


class StepCancelled(msgspec.Struct, frozen=True):
    """A step that had started was cancelled. `failure` says so when its attempt did not stop when told to."""

    path: str
    attempt: int
    failure: Failure | None = None
    iteration: int = 1
    usage: Usage | None = None


class VariablesAssigned(msgspec.Struct, frozen=True):
    """Variables were assigned: by the step at `path`; where that is empty, by somebody, or else they were given to an
    execution that was made from another one.
    """

    path: str
    vars: Mapping[str, Any]
    iteration: int = 1
    edited_by: str = ""


class SignalReceived(msgspec.Struct, frozen=True):
    """A signal came, and is kept until a step takes it."""

    signal: Signal


class Cancelling(msgspec.Struct, frozen=True):
    """Cancel was asked for."""

    cancelled_by: str
    reason: str
    terminated: bool = False
    bulk_id: str = ""


class Paused(msgspec.Struct, frozen=True):
    """Nothing of the execution begins from here on: by itself where it has reached `step_path`, which is held."""

    paused_by: str
    reason: str
    hard: bool = False
    stop_deadline: bool = False
    step_path: str = ""
    bulk_id: str = ""
    workflow_pause_id: str = ""


class Resumed(msgspec.Struct, frozen=True):
    """The execution goes on after a pause, so far as `halt` says, which may be to `step_path`.

    `deadline_time` is there where it has started.
    """

    resumed_by: str
    reason: str
    deadline_time: datetime | None = None
    halt: Halt = Halt.NONE
    step_path: str = ""
    bulk_id: str = ""
    workflow_pause_id: str = ""


class BreakpointsSet(msgspec.Struct, frozen=True):
    """The execution is to be held before other steps than so far."""

    set_by: str
    points: tuple[Breakpoint, ...]


class Finished(msgspec.Struct, frozen=True):
    """The execution ended: the last event of its run, and there is exactly one."""

    state: ExecutionState
    result: Any
    failure: Failure | None


class Reopened(msgspec.Struct, frozen=True):
    """The execution goes on after its end: the first event of a run after the first.

    Steps that did not complete, were not skipped, and did not fail in a way that others went on with, run again.
    """

    run: int
    reopened_by: str
    reason: str
    deadline_time: datetime | None = None
    edit: Edit | None = None
    bulk_id: str = ""


EventBody = (
    Created
    | Started
    | StepStarted
    | StepProgressed
    | StepWaiting
    | StepEdited
    | StepRetrying
    | StepCompleted
    | StepFailed
    | StepSkipped
    | StepCancelled
    | VariablesAssigned
    | SignalReceived
    | Cancelling
    | Paused
    | Resumed
    | BreakpointsSet
    | Finished
    | Reopened
)


class Event(msgspec.Struct, frozen=True):
    """One numbered entry of a history; `progress` and `counts` are those after it.

    `inherited`: it tells what was copied from the execution that this one was made from, or given then.
    """

    seq: int
    transition_seq: int
    time: datetime
    progress: int
    counts: StepCounts
    body: EventBody
    inherited: bool = False
