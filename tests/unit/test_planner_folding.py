"""What is stored of events, folded, gives what is stored in rows, after every transition.

Beyond the events stand: the end that is decided, until it has come; what a step that waits for a time will give; the
condition of a skipped step, which callers that may not read definitions must not see.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from msgspec.structs import replace

from flowkeep import payload
from flowkeep.v1.event_pb2 import ExecutionEvent, StepStarted, StepWaiting
from flowkeep.v1.execution_pb2 import Execution as ExecutionMessage
from flowkeep.v1.execution_pb2 import Failure
from flowkeep.v1.execution_pb2 import Wait as WaitMessage
from persistence.model import ExecutionState, Step, StepState, Wait, WaitKind
from service.api.events import counts_message, encode
from service.engine.planning.restoring import restore
from service.engine.planning.state import State
from tests.unit.planner_programs import Driver
from tests.unit.test_planner_properties import whatever_happens

_ENDS = {
    "step_completed": StepState.COMPLETED,
    "step_failed": StepState.FAILED,
    "step_skipped": StepState.SKIPPED,
    "step_cancelled": StepState.CANCELLED,
}


@dataclass
class Folded:
    """An execution as its events tell it so far."""

    state: ExecutionState = ExecutionState.PENDING
    steps: dict[tuple[str, int], Step] = field(default_factory=dict)
    vars: dict[str, Any] = field(default_factory=dict)
    result: Any = None
    failure: Failure | None = None
    deadline_time: datetime | None = None
    last: ExecutionEvent = field(default_factory=ExecutionEvent)

    def take(self, event: ExecutionEvent) -> None:
        self.last = event
        match event.WhichOneof("kind"):
            case "created":
                pass
            case "started":
                self.state, self.deadline_time = ExecutionState.RUNNING, _time(event.started.deadline_time)
            case "cancelling":
                self.state = ExecutionState.CANCELLING
            case "finished":
                self.state = ExecutionState(
                    ExecutionMessage.State.Name(event.finished.state).removeprefix("STATE_"),
                )
                self.failure = event.finished.failure if event.finished.HasField("failure") else None
                self.result = payload.from_value(event.finished.result) if self.failure is None else None
            case kind:
                content = getattr(event, str(kind))
                key = content.path, content.iteration
                step = self.steps.get(key) or Step(content.path, "", StepState.PENDING, content.iteration)
                self.steps[key] = self._step(step, str(kind), event)

    def _step(self, step: Step, kind: str, event: ExecutionEvent) -> Step:
        now = _time(event.time)
        match kind:
            case "step_started":
                return _started(step, event.step_started, now)
            case "step_progressed":
                return replace(step, progress=event.step_progressed.progress_percent)
            case "step_waiting":
                return _waiting(step, event.step_waiting)
            case "step_retrying":
                told = event.step_retrying
                wait = Wait(WaitKind.RETRY, now, _time(told.retry_time), attempt=told.attempt + 1)
                return replace(step, state=StepState.WAITING, wait=wait, failure=_failure(told.failure))
            case "variables_assigned":
                assigned = payload.from_struct(event.variables_assigned.vars)
                self.vars |= assigned
                return replace(step, assigned=assigned)
        return _ended(replace(step, state=_ENDS[kind], end_time=now, end_seq=event.seq), kind, event)


def _started(step: Step, told: StepStarted, now: datetime) -> Step:
    return replace(
        step,
        state=StepState.RUNNING,
        attempt=told.attempt,
        input=payload.from_struct(told.input),
        failure=None,
        wait=None,
        worker=told.worker,
        progress=0,
        start_time=step.start_time or now,
        attempt_time=now,
    )


def _waiting(step: Step, told: StepWaiting) -> Step:
    wait = _wait(told.wait)
    if wait.kind is WaitKind.TIMER:
        return replace(step, state=StepState.WAITING, wait=wait)
    start_time = step.start_time if step.attempt > 1 else None
    attempt = step.attempt - 1
    return replace(
        step, state=StepState.WAITING, wait=wait, attempt=attempt, start_time=start_time, attempt_time=None, worker=""
    )


def _ended(step: Step, kind: str, event: ExecutionEvent) -> Step:
    match kind:
        case "step_completed":
            output = payload.from_value(event.step_completed.output)
            return replace(step, output=output, failure=None, wait=None, progress=100)
        case "step_failed":
            return replace(step, failure=_failure(event.step_failed.failure), wait=None)
        case "step_cancelled" if event.step_cancelled.HasField("failure"):
            return replace(step, failure=_failure(event.step_cancelled.failure))
    return step


def _wait(told: WaitMessage) -> Wait:
    wake_time = _time(told.wake_time) if told.HasField("wake_time") else None
    kind = WaitKind(str(told.WhichOneof("kind")).upper())
    resource, handler = told.slot.resource, told.worker.handler
    return Wait(kind, _time(told.start_time), wake_time, told.reason, told.retry.attempt, resource, handler)


def _failure(told: Failure) -> dict[str, Any]:
    return {"code": told.code, "message": told.message}


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)


def _comparable(step: Step) -> Step:
    """Return of a row what events tell of it; attempts that failed stand in events of their own."""
    failure = step.failure and {"code": step.failure["code"], "message": step.failure["message"]}
    output = step.output if step.state is StepState.COMPLETED else None
    beyond = {"handler": "", "failed_attempts": (), "failures": 0, "position": 0, "skip_reason": ""}
    return replace(step, failure=failure, output=output, **beyond)


def _agree(folded: Folded, state: State) -> None:
    assert folded.state is state.state
    assert folded.steps == {step.key: _comparable(step) for step in state.steps.values()}
    assert (folded.vars, folded.deadline_time, folded.result) == (state.vars, state.deadline_time, state.result)
    assert (folded.failure.code if folded.failure else None) == (state.failure.code if state.failure else None)
    assert folded.last.progress_percent == state.progress and folded.last.step_counts == counts_message(state.counts)
    assert folded.last.seq == state.last_seq


@whatever_happens
def test_events_tell_what_rows_hold_after_every_transition(driver: Driver) -> None:
    folded = Folded()
    for turn in driver.turns:
        for event in turn.plan.events:
            folded.take(ExecutionEvent.FromString(encode(event).body))
        _agree(folded, restore(driver.definition, turn.stored))
