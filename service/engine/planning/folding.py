"""An execution as its events tell it: folded one by one, they give what the rows held after each transition.

Beyond the events stand the end that is decided, until it has come; stack traces, which not every caller may see; how
many bytes were written; and of an execution, all that never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from persistence.breakpoints import halted, halting, setting
from persistence.dry_runs import DryRun
from persistence.model import (
    Edit,
    EditedVariable,
    Execution,
    ExecutionDetail,
    ExecutionState,
    Json,
    Pause,
    Step,
    StepCounts,
    StepKey,
    StepState,
    Wait,
    WaitKind,
)
from persistence.signals import Signal
from service.engine.definition import Definition
from service.engine.planning import events
from service.engine.planning.assigned import edited
from service.engine.planning.events import Event
from service.engine.planning.failed_attempts import with_failed_attempt
from service.engine.planning.reasons import CONDITION_IS_FALSE
from service.engine.planning.scopes import order


class Folding:
    """Takes the events of an execution in their order, those of steps if `has_steps`.

    Of `execution` it takes what never changes.
    """

    def __init__(
        self,
        definition: Definition,
        execution: Execution,
        given: Mapping[str, Any],
        *,
        dry_run: DryRun | None = None,
        has_steps: bool = True,
    ) -> None:
        self._definition = definition
        self._has_steps = has_steps
        self._input = given
        self._dry_run = dry_run
        self._result: Json = None
        self._steps: dict[StepKey, Step] = {}
        self._signals: tuple[Signal, ...] = ()
        self._execution = replace(
            execution,
            state=ExecutionState.PENDING,
            counts=StepCounts(),
            progress=0,
            last_seq=0,
            start_time=None,
            end_time=None,
            deadline_time=None,
            failure=None,
            ending=None,
            pause=None,
            breakpoints=None,
            incarnation=None,
            wake_time=None,
            bytes=0,
            run=1,
            reopened_seq=0,
            usage=None,
        )
        self._edit: Edit | None = None
        self._vars: Mapping[str, Any] = {}
        self._edited: Mapping[str, EditedVariable] = {}

    @property
    def detail(self) -> ExecutionDetail:
        """The execution after the events so far."""
        steps = tuple(self._steps[key] for key in sorted(self._steps))
        return ExecutionDetail(
            self._execution,
            self._input,
            self._result,
            steps,
            signals=self._signals,
            edit=self._edit,
            vars=self._vars,
            edited=self._edited,
            dry_run=self._dry_run,
        )

    def take(self, event: Event) -> None:
        """Take the next event."""
        changes: dict[str, Any] = {"last_seq": event.seq, "progress": event.progress, "counts": event.counts}
        if (usage := getattr(event.body, "usage", None)) is not None:
            changes["usage"] = usage.plus(self._execution.usage)
        match event.body:
            case events.Created():
                pass
            case events.Started(deadline_time=deadline_time):
                changes |= {"state": ExecutionState.RUNNING, "start_time": event.time, "deadline_time": deadline_time}
            case events.SignalReceived(signal=signal):
                self._signals += (signal,)
            case events.Cancelling():
                changes |= {"state": ExecutionState.CANCELLING, "pause": None}
            case events.Paused() as paused:
                pause = Pause(
                    paused.paused_by,
                    paused.reason,
                    event.time,
                    paused.hard,
                    paused.stop_deadline,
                    event.seq,
                    paused.step_path,
                    paused.workflow_pause_id,
                )
                joined = pause.joining(self._execution.pause)
                changes |= {"state": ExecutionState.PAUSED, "pause": joined}
                if paused.step_path:
                    changes["breakpoints"] = halted(self._execution.breakpoints)
            case events.Resumed() as resumed:
                has_started = self._execution.start_time is not None
                state = ExecutionState.RUNNING if has_started else ExecutionState.PENDING
                changes |= {"state": state, "pause": None, "deadline_time": resumed.deadline_time}
                held = self._execution.breakpoints
                changes["breakpoints"] = halting(held, resumed.resumed_by, resumed.halt, resumed.step_path)
            case events.BreakpointsSet(set_by=by, points=points):
                changes["breakpoints"] = setting(self._execution.breakpoints, by, points)
            case events.Finished(state=state, result=result, failure=failure):
                changes |= {"state": state, "end_time": event.time, "pause": None}
                changes |= {"failure": failure.to_json() if failure else None}
                self._result = result
                self._cut_off(event)
            case events.Reopened(run=run, deadline_time=deadline_time, edit=edit):
                changes |= {"state": ExecutionState.RUNNING, "run": run, "end_time": None, "failure": None}
                changes |= {"reopened_seq": event.seq, "start_time": self._execution.start_time or event.time}
                changes |= {"deadline_time": deadline_time or self._execution.deadline_time}
                self._result, self._edit = None, edit
            case events.VariablesAssigned(path="", vars=given, edited_by=by):
                if by:
                    self._edited = edited(self._edited, given, event.seq)
                else:
                    self._vars = given
            case body if self._has_steps:
                key = body.path, body.iteration
                step = self._steps.get(key) or self._fresh(key)
                if usage is not None:
                    step = replace(step, usage=usage.plus(step.usage))
                self._steps[key] = _FOLDS[type(body)](step, body, event)
                if isinstance(body, events.StepSkipped):
                    self._name_condition(key)
        if taken := getattr(event.body, "signals", ()):
            self._signals = tuple(signal for signal in self._signals if signal.id not in taken)
        self._execution = replace(self._execution, **changes)

    def _fresh(self, key: StepKey) -> Step:
        path, iteration = key
        spec = self._definition.find(path)
        if spec is None:
            return Step(path, "", StepState.PENDING, iteration)
        position, *items = order(self._definition, path)
        return Step(path, spec.handler, StepState.PENDING, iteration, position=position, items=tuple(items))

    def _name_condition(self, key: StepKey) -> None:
        """Add the condition that was false: events go to callers that may not read definitions."""
        spec, step = self._definition.find(key[0]), self._steps[key]
        if spec is not None and spec.condition is not None and step.skip_reason == CONDITION_IS_FALSE:
            self._steps[key] = replace(step, skip_reason=f"{step.skip_reason}: {spec.condition.source}")

    def _cut_off(self, event: Event) -> None:
        """End what is open: an execution that could not go on has ended without a word of its steps."""
        for key, step in self._steps.items():
            if not step.state.is_end:
                end = {"end_time": event.time, "end_seq": event.seq}
                self._steps[key] = replace(step, state=StepState.CANCELLED, output=None, **end)


def _started(step: Step, body: events.StepStarted, event: Event) -> Step:
    return replace(
        step,
        handler=step.handler or body.handler,
        state=StepState.RUNNING,
        attempt=body.attempt,
        input=body.input,
        output=None,
        failure=None,
        wait=None,
        worker=body.worker,
        progress=0,
        start_time=step.start_time or event.time,
        attempt_time=event.time,
        is_mocked=body.mocked,
    )


def _progressed(step: Step, body: events.StepProgressed, event: Event) -> Step:
    return replace(step, progress=body.progress_percent)


def _waiting(step: Step, body: events.StepWaiting, event: Event) -> Step:
    waiting = replace(step, state=StepState.WAITING, wait=body.wait)
    match body.wait.kind:
        case WaitKind.BREAKPOINT:
            return replace(waiting, input=body.input, is_fixed=body.input is not None)
        case WaitKind.TIMER:
            return replace(waiting, output=body.output, start_time=step.start_time or event.time)
        case WaitKind.RETRY | WaitKind.TASK | WaitKind.SIGNAL:
            return waiting
    # The attempt has not begun, and counts for nothing.
    start_time = step.start_time if step.attempt > 1 else None
    return replace(waiting, attempt=step.attempt - 1, start_time=start_time, attempt_time=None, worker="")


def _edited(step: Step, body: events.StepEdited, event: Event) -> Step:
    return replace(step, input=body.input, wait=step.wait and replace(step.wait, edited=True))


def _retrying(step: Step, body: events.StepRetrying, event: Event) -> Step:
    wait = Wait(WaitKind.RETRY, event.time, body.retry_time, attempt=body.attempt + 1)
    failed = with_failed_attempt(step, body.failure, event.time)
    return replace(failed, state=StepState.WAITING, wait=wait, failure=body.failure.to_json(), failures=body.failures)


def _completed(step: Step, body: events.StepCompleted, event: Event) -> Step:
    done = replace(step, state=StepState.COMPLETED, output=body.output, failure=None, wait=None, progress=100)
    # One without attempts has begun in the moment in which it ends.
    start_time = step.start_time or event.time
    return replace(done, start_time=start_time, end_time=event.time, end_seq=event.seq, is_mocked=body.mocked)


def _failed(step: Step, body: events.StepFailed, event: Event) -> Step:
    before = with_failed_attempt(step, body.failure, event.time) if body.is_of_attempt else step
    failed = replace(before, state=StepState.FAILED, failure=body.failure.to_json(), failures=body.failures)
    failed = replace(failed, output=None, wait=None, is_mocked=body.mocked)
    return replace(failed, end_time=event.time, end_seq=event.seq)


def _skipped(step: Step, body: events.StepSkipped, event: Event) -> Step:
    skipped = replace(step, state=StepState.SKIPPED, skip_reason=body.reason)
    return replace(skipped, end_time=event.time, end_seq=event.seq)


def _cancelled(step: Step, body: events.StepCancelled, event: Event) -> Step:
    failure = body.failure.to_json() if body.failure else step.failure
    cancelled = replace(step, state=StepState.CANCELLED, failure=failure, output=None)
    return replace(cancelled, end_time=event.time, end_seq=event.seq)


def _assigned(step: Step, body: events.VariablesAssigned, event: Event) -> Step:
    return replace(step, assigned=body.vars)


_FOLDS: Mapping[type[Any], Callable[[Step, Any, Event], Step]] = {
    events.StepStarted: _started,
    events.StepProgressed: _progressed,
    events.StepWaiting: _waiting,
    events.StepEdited: _edited,
    events.StepRetrying: _retrying,
    events.StepCompleted: _completed,
    events.StepFailed: _failed,
    events.StepSkipped: _skipped,
    events.StepCancelled: _cancelled,
    events.VariablesAssigned: _assigned,
}
