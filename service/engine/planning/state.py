"""The state of an execution as the planner sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from persistence.model import (
    CancelRequest,
    Execution,
    ExecutionDetail,
    ExecutionState,
    Step,
    StepCounts,
    StepState,
    WaitKind,
)
from persistence.model import Ending as StoredEnding
from service.engine.failure import CANCELLED, EXECUTION_TIMEOUT, STEP_FAILED, Failure
from service.engine.payload import size
from service.engine.planning.effects import AttemptKey

_CANCEL_SEEN = frozenset({ExecutionState.CANCELLING, ExecutionState.CANCELLED})


@dataclass(frozen=True, slots=True)
class Ending:
    """The end that an execution has been given while attempts of it are still being stopped."""

    state: ExecutionState
    failure: Failure

    def stored(self) -> StoredEnding:
        """Return it as the store keeps it."""
        return StoredEnding(self.state, self.failure.to_json())


class State(msgspec.Struct, frozen=True):
    """All that decides how an execution goes on. `steps` holds those that left PENDING by path, each in its newest
    iteration.

    `facts` is what expressions see as `execution`. `ending` is set from the moment the end is decided. `worker` names
    the process that drives the execution. `bytes` is what it has written so far, as `Draft.charge` counts it.
    """

    facts: Mapping[str, Any]
    input: Mapping[str, Any]
    timeout: float
    counts: StepCounts
    state: ExecutionState = ExecutionState.PENDING
    steps: Mapping[str, Step] = msgspec.field(default_factory=dict)
    vars: Mapping[str, Any] = msgspec.field(default_factory=dict)
    progress: int = 0
    last_seq: int = 0
    start_time: datetime | None = None
    end_time: datetime | None = None
    deadline_time: datetime | None = None
    scheduled_time: datetime | None = None
    ending: Ending | None = None
    cancel: CancelRequest | None = None
    failure: Failure | None = None
    result: Any = None
    worker: str = ""
    bytes: int = 0

    @property
    def next_wake(self) -> datetime | None:
        """The next moment at which a timer fires: a start delay, a step's timer or the deadline. None at an end."""
        if self.state.is_end:
            return None
        if self.state is ExecutionState.PENDING:
            return self.scheduled_time
        waits = [step.wait for step in self.steps.values() if step.state is StepState.WAITING and step.wait]
        times = [wait.wake_time for wait in waits if wait.wake_time]
        if self.deadline_time is not None and self.ending is None:
            times.append(self.deadline_time)
        return min(times, default=None)

    @property
    def awaited_handlers(self) -> frozenset[str]:
        """The handlers that steps wait for."""
        waiting = (step.wait for step in self.steps.values() if step.waits_for(WaitKind.WORKER))
        return frozenset(wait.handler for wait in waiting if wait)

    @property
    def running(self) -> frozenset[AttemptKey]:
        """The attempts that run."""
        steps = (step for step in self.steps.values() if step.state is StepState.RUNNING)
        return frozenset((step.path, step.iteration, step.attempt) for step in steps)

    @property
    def is_idle(self) -> bool:
        """Whether no attempt runs: only a timer, or something outside, moves the execution."""
        return all(step.state is not StepState.RUNNING for step in self.steps.values())


def facts(execution: Execution) -> dict[str, Any]:
    """Return what expressions see as `execution`."""
    return {
        "id": str(execution.id),
        "workflow": execution.workflow_name,
        "workflow_id": str(execution.workflow_id),
        "revision": execution.revision,
        "owner": execution.owner,
        "tags": list(execution.tags),
        "labels": dict(execution.labels),
        "correlation_id": execution.correlation_id,
    }


def initial(execution: Execution, payload: Mapping[str, Any], worker: str = "") -> State:
    """Return the state of an execution of which nothing has happened yet, for the process `worker`."""
    return State(
        facts=facts(execution),
        input=payload,
        timeout=execution.timeout,
        counts=execution.counts,
        scheduled_time=execution.scheduled_time,
        worker=worker,
        bytes=size(payload),
    )


def restore(detail: ExecutionDetail, worker: str = "") -> State:
    """Return the state that was recorded, for the process `worker`. Variables are folded from what steps assigned."""
    execution, ending = detail.execution, detail.execution.ending
    return State(
        facts=facts(execution),
        input=detail.input,
        timeout=execution.timeout,
        counts=execution.counts,
        state=execution.state,
        steps=newest(detail.steps),
        vars=variables(detail.steps),
        progress=execution.progress,
        last_seq=execution.last_seq,
        start_time=execution.start_time,
        end_time=execution.end_time,
        deadline_time=execution.deadline_time,
        scheduled_time=execution.scheduled_time,
        ending=Ending(ending.state, Failure.from_json(ending.failure)) if ending else None,
        # A wish on the row that the planner has not seen is none of its state.
        cancel=execution.cancel if execution.state in _CANCEL_SEEN else None,
        failure=Failure.from_json(execution.failure) if execution.failure else None,
        result=detail.result,
        worker=worker,
        bytes=execution.bytes,
    )


def newest(steps: Iterable[Step]) -> dict[str, Step]:
    """Return the newest iteration of each step, by path."""
    return {step.path: step for step in sorted(steps, key=lambda step: step.iteration)}


def variables(steps: Iterable[Step]) -> dict[str, Any]:
    """Return the variables that steps have assigned, each as the last that ended left it."""
    assigned: dict[str, Any] = {}
    ended = sorted((step for step in steps if step.end_seq is not None), key=lambda step: step.end_seq or 0)
    for step in ended:
        assigned.update(step.assigned or {})
    return assigned


def cancelled(request: CancelRequest) -> Ending:
    """Return the end that a cancel request gives."""
    message = f"cancelled by {request.by}" + (f": {request.reason}" if request.reason else "")
    return Ending(ExecutionState.CANCELLED, Failure(CANCELLED, message))


def timed_out(timeout: float) -> Ending:
    """Return the end that the deadline gives."""
    message = f"the execution took longer than its timeout of {timeout:g} s"
    return Ending(ExecutionState.TIMED_OUT, Failure(EXECUTION_TIMEOUT, message))


def step_failed(step: Step) -> Ending:
    """Return the end that a failed step gives to its execution."""
    failure = Failure.from_json(step.failure or {})
    return Ending(
        ExecutionState.FAILED,
        Failure(
            STEP_FAILED,
            failure.message,
            details={"code": failure.code},
            step_path=step.path,
        ),
    )
