"""What becomes of single steps: the rules of starting, completing, failing, waking and stopping one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from persistence.model import Step, StepState, Wait, WaitKind
from service.engine import payload
from service.engine.clock import later
from service.engine.definition import LEAST_PAUSE, Call, Delivery, StepSpec
from service.engine.durations import TEN_YEARS
from service.engine.expressions import ExpressionError, PutOffError
from service.engine.failure import (
    EXECUTION_TOO_LARGE,
    EXPRESSION_ERROR,
    INVALID_OUTPUT,
    WORKER_LOST,
    Failure,
)
from service.engine.planning import events
from service.engine.planning.assigning import assign
from service.engine.planning.effects import StartAttempt
from service.engine.planning.failed_attempts import lost_in_a_row, may_retry, with_failed_attempt
from service.engine.planning.reasons import unknown_outcome
from service.engine.planning.reopened import edit_of
from service.engine.planning.rules import Rules
from service.engine.planning.variables import shown
from service.engine.violations import ValidationError

SMALL = 2 << 10
"""Bytes that are kept of an output or a failure in any case: they are all that tells what a step has done."""

MOST_LOST = 5
"""Workers that a step may lose in a row: it is probably the step that ends them, and it fails."""

WORK_OF_STEP = 5_000
"""Work of starting, completing or skipping a step, its event and row among it, without its expressions and values."""

WORK_OF_EDGE = 100
"""Work of looking at a step that another one waits for, or at one that waits for it: a graph may have 100,000 such."""

_OUTSIDE = frozenset({WaitKind.TASK, WaitKind.SIGNAL, WaitKind.BREAKPOINT})
"""What waits for something from outside and has not got it in time, or needs it no more."""


class StepRules(Rules, ABC):
    """Changes single steps in a draft of the next state, and gathers effects."""

    @abstractmethod
    def overdue(self, step: Step) -> None:
        """Go on with a step that waits for what has not come from outside in time. Raises PutOffError."""

    @abstractmethod
    def ended(self, step: Step) -> None:
        """Do what follows for others from the end of a step, which is recorded."""

    def skip(self, step: Step, reason: str, condition: str = "") -> None:
        """Skip a step. Its condition stands in the row alone: events go to callers that may not read definitions."""
        why = f"{reason}: {condition}" if condition else reason
        skipped = replace(
            step, state=StepState.SKIPPED, skip_reason=why, end_time=self.time, end_seq=self.draft.next_seq
        )
        self.allowance.count(WORK_OF_STEP)
        self.draft.put(skipped)
        self.draft.record(events.StepSkipped(step.path, reason, step.iteration))
        self.ended(skipped)

    def start_attempt(self, step: Step) -> None:
        """Start the next attempt, or fail the step when its parameters cannot be had. Raises PutOffError."""
        spec = self.spec(step)
        if not isinstance(spec.action, Call):
            raise TypeError(f"step {step.path} has no attempts")
        attempt, variables = step.attempt + 1, self.variables_of_attempt(step)
        try:
            params = self.params_of(step, spec.action, variables)
        except ExpressionError as error:
            self.fail_for_good(step, Failure(EXPRESSION_ERROR, str(error)))
            return
        size = payload.size(params)
        if not self.draft.has_room(size):
            self.fail_for_good(step, self.too_large("its parameters", size))
            return
        answer = self.answer_to(step)
        self.draft.charge(size)
        self.allowance.count(WORK_OF_STEP)
        self.allowance.count_value(params, size)
        self.draft.put(
            replace(
                step,
                state=StepState.RUNNING,
                attempt=attempt,
                input=params,
                output=None,
                failure=None,
                start_time=step.start_time or self.time,
                attempt_time=self.time,
                wait=None,
                worker=self.draft.state.worker,
                progress=0,
                is_mocked=answer is not None,
            )
        )
        worker, is_mocked = self.draft.state.worker, answer is not None
        self.draft.record(
            events.StepStarted(step.path, spec.handler, attempt, worker, params, step.iteration, is_mocked)
        )
        self.effects.append(
            StartAttempt(
                step.path,
                attempt,
                spec.handler,
                params,
                self.time_left(spec, step),
                shown(spec, variables),
                step.iteration,
                answer=answer,
                is_dry=self.draft.state.dry_run is not None,
            )
        )

    def variables_of_attempt(self, step: Step) -> dict[str, Any]:
        """Return what the parameters of the next attempt of a step see."""
        return self.draft.variables(self.scope(step), attempt=step.attempt + 1)

    def params_of(self, step: Step, action: Call, variables: Mapping[str, Any]) -> Any:
        """Return what the next attempt of a step is called with. Raises ExpressionError, PutOffError."""
        if self.rendered is not None and self.rendered[0] == step.key:
            return self.rendered[1]
        if step.is_fixed:
            return step.input
        if (edit := edit_of(self.draft.state.edit, step)) is not None:
            return edit.value
        return action.params.render(variables, self.allowance)

    def time_left(self, spec: StepSpec, step: Step) -> float:
        """Return the seconds that the next attempt may take."""
        if spec.total_timeout is None or step.start_time is None:
            return min(spec.timeout, spec.total_timeout or spec.timeout)
        spent = (self.time - step.start_time).total_seconds()
        return max(0.0, min(spec.timeout, spec.total_timeout - spent))

    def complete(self, step: Step, output: Any) -> None:
        """Complete a step, or fail it when what it assigns cannot be had. Raises PutOffError."""
        done = replace(
            step,
            state=StepState.COMPLETED,
            output=output,
            failure=None,
            wait=None,
            start_time=step.start_time or self.time,
            end_time=self.time,
            end_seq=self.draft.next_seq,
            progress=100,
        )
        try:
            assigned = self._assign(done)
        except ExpressionError as error:
            self.fail_for_good(step, Failure(EXPRESSION_ERROR, f"assign: {error}"))
            return
        except ValidationError as error:
            self.fail_for_good(step, Failure(INVALID_OUTPUT, f"assign: {error}"))
            return
        written, values = payload.size(output), payload.size(assigned) if assigned else 0
        # That of a step which waited was counted when it began to, and is now written once more.
        is_counted = output is step.output
        size = (0 if is_counted else written) + values
        if size > SMALL and not self.draft.has_room(size):
            self.fail_for_good(step, self.too_large("its output", size))
            return
        self.draft.charge(size)
        if is_counted:
            self._enough -= written
        self.allowance.count(WORK_OF_STEP)
        self.allowance.count_value(output, written)
        if assigned:
            done = replace(done, assigned=assigned)
        self.draft.put(done)
        usage = self.draft.told_usage()
        self.draft.record(
            events.StepCompleted(step.path, step.attempt, output, step.iteration, usage, mocked=step.is_mocked)
        )
        if assigned:
            self.allowance.count_value(assigned, values)
            self.draft.change(vars={**self.draft.state.vars, **assigned})
            self.draft.record(events.VariablesAssigned(step.path, assigned, step.iteration))
        self.ended(done)

    def _assign(self, step: Step) -> dict[str, Any] | None:
        spec = self.spec(step)
        if not spec.assign:
            return None
        variables = {**self.draft.variables(self.scope(step), attempt=step.attempt, ended=step), "result": step.output}
        return assign(spec, variables, self.draft.state.vars, self.allowance)

    def fail_attempt(self, step: Step, failure: Failure, draw: float, retry_after: float | None) -> None:
        spec = self.spec(step)
        failure = self.fitting(failure)
        failures = step.failures + 1
        failed = replace(with_failed_attempt(step, failure, self.time), failures=failures, failure=failure.to_json())
        pause = min(max(spec.retry.pause(failures, draw), retry_after or 0.0), TEN_YEARS)
        if self.skips_waits:
            pause = LEAST_PAUSE
        retry_time = later(self.time, pause)
        if not may_retry(spec, failed, failure, retry_time):
            self.fail_for_good(failed, failure, is_of_attempt=True)
            return
        wait = Wait(WaitKind.RETRY, self.time, retry_time, attempt=step.attempt + 1)
        self.draft.put(replace(failed, state=StepState.WAITING, wait=wait))
        usage = self.draft.told_usage()
        self.draft.record(
            events.StepRetrying(step.path, step.attempt, failure, retry_time, failures, step.iteration, usage)
        )

    def put_off(self, step: Step, until: datetime, output: Any, reason: str) -> None:
        """Let a step wait until a time and then complete with the output."""
        size = payload.size(output)
        if size > SMALL and not self.draft.has_room(size):
            self.fail_for_good(step, self.too_large("its output", size))
            return
        self.draft.charge(size)
        wait = Wait(WaitKind.TIMER, self.time, until, reason)
        start_time = step.start_time or self.time
        self.draft.put(replace(step, state=StepState.WAITING, wait=wait, output=output, start_time=start_time))
        self.draft.record(events.StepWaiting(step.path, wait, step.iteration, output, self.draft.told_usage()))

    def take_back(self, step: Step, wait: Wait) -> None:
        """Let an attempt that could not begin wait for what it needs: it counts for nothing, nor does its time."""
        start_time = step.start_time if step.attempt > 1 else None
        self.draft.put(
            replace(
                step,
                state=StepState.WAITING,
                attempt=step.attempt - 1,
                start_time=start_time,
                attempt_time=None,
                wait=wait,
                worker="",
            )
        )
        self.draft.record(events.StepWaiting(step.path, wait, step.iteration))

    def begin_anew(self, step: Step, failure: Failure) -> None:
        """Go on after an attempt of which nobody knows how it ended: it does not count as failed, the next one begins.

        Unless the step is AT_MOST_ONCE and has run, or has lost too many workers in a row.
        """
        if self.spec(step).delivery is Delivery.AT_MOST_ONCE and not step.is_mocked:
            failure = self.fitting(unknown_outcome(step))
            self.fail_for_good(with_failed_attempt(step, failure, self.time), failure, is_of_attempt=True)
        elif failure.code == WORKER_LOST and lost_in_a_row(step) + 1 >= MOST_LOST:
            failure = self.fitting(failure)
            self.fail_for_good(with_failed_attempt(step, failure, self.time), failure, is_of_attempt=True)
        else:
            self._start_again(step, failure)

    def _start_again(self, step: Step, failure: Failure) -> None:
        """Start the attempt that follows one that was cut off."""
        usage = self.draft.told_usage()
        self.draft.record(
            events.StepRetrying(step.path, step.attempt, failure, self.time, step.failures, step.iteration, usage)
        )
        failed = with_failed_attempt(step, failure, self.time)
        wait = Wait(WaitKind.RETRY, self.time, self.time, attempt=step.attempt + 1)
        self.start_or_put_off(replace(failed, state=StepState.WAITING, failure=failure.to_json(), wait=wait))

    def start_or_put_off(self, waiting: Step) -> None:
        """Start the next attempt of a waiting step, or let it be due."""
        if not self.draft.is_paused:
            try:
                self.begin_part()
                return self.start_attempt(waiting)
            except PutOffError:
                self.is_put_off = True
        if waiting.waits_for(WaitKind.RETRY):  # it is due, and its event has told so
            self.draft.put(waiting)
            return None
        due = Wait(WaitKind.RETRY, self.time, self.time, attempt=waiting.attempt + 1)
        self.draft.put(replace(waiting, wait=due))
        self.draft.record(events.StepWaiting(waiting.path, due, waiting.iteration))
        return None

    def fail_for_good(self, step: Step, failure: Failure, *, is_of_attempt: bool = False) -> None:
        """Let a step end as failed. `is_of_attempt`: its newest attempt did, and is among those that failed."""
        if not is_of_attempt:  # else it was, and stands among those that failed as it is now
            failure = self.fitting(failure)
        failed = replace(
            step,
            state=StepState.FAILED,
            failure=failure.to_json(),
            output=None,
            wait=None,
            end_time=self.time,
            end_seq=self.draft.next_seq,
        )
        self.allowance.count(WORK_OF_STEP)
        self.draft.put(failed)
        usage = self.draft.told_usage()
        self.draft.record(
            events.StepFailed(
                step.path,
                step.attempt,
                failure,
                step.failures,
                is_of_attempt,
                step.iteration,
                usage,
                mocked=step.is_mocked,
            )
        )
        self.ended(failed)

    def fitting(self, failure: Failure) -> Failure:
        """Count a failure and return it, without what is large of it when there is no room for that."""
        size = payload.size(failure.to_json())
        if size > SMALL and not self.draft.has_room(size):
            failure = failure.bare
            size = payload.size(failure.to_json())
        self.draft.charge(size)
        return failure

    def too_large(self, what: str, size: int) -> Failure:
        """Return the failure of a step for whose payload the execution has no room."""
        most, all_of_it = self.definition.max_bytes, self.draft.bytes + size
        return Failure(
            EXECUTION_TOO_LARGE,
            f"with {what}, the execution would have written {all_of_it:,} bytes; it may write {most:,}",
            details={"bytes": all_of_it, "limit": most},
        )

    def wake(self, step: Step) -> None:
        """Go on with a waiting step that is due: what waited for a time is over, else the next attempt begins.

        One that a sweep is about to stop is stopped. Raises PutOffError.
        """
        self.begin_part()
        if self.is_ending(step):
            self.stop(step)
        elif step.waits_for(WaitKind.TIMER):
            self.complete(step, step.output)
        elif step.wait is not None and step.wait.kind in _OUTSIDE:
            self.overdue(step)
        else:
            self.start_attempt(step)

    def stop(self, step: Step, failure: Failure | None = None) -> None:
        """Cancel a step. `failure` tells of an attempt that has not stopped, or not in time."""
        stopped = replace(
            step,
            state=StepState.CANCELLED,
            failure=failure.to_json() if failure else step.failure,
            output=None,
            end_time=self.time,
            end_seq=self.draft.next_seq,
        )
        self.allowance.count(WORK_OF_STEP)
        self.draft.put(stopped)
        usage = self.draft.told_usage()
        self.draft.record(events.StepCancelled(step.path, step.attempt, failure, step.iteration, usage))
        self.ended(stopped)
