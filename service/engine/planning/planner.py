"""Every rule of execution: `(definition, state, happening) -> (state, events, effects)`.

Pure: it reads no clock, draws no lots and does no I/O. The same happenings always give the same state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from persistence.model import CancelRequest, ExecutionState, Step, StepState, Wait, WaitKind
from service.engine import payload
from service.engine.clock import later
from service.engine.definition import Definition, Delivery, Ordering, StepSpec
from service.engine.expressions import ExpressionError, PutOffError
from service.engine.failure import EXPRESSION_ERROR, HANDLER_ERROR, Failure
from service.engine.paths import place
from service.engine.planning import events, happenings
from service.engine.planning.effects import CancelAttempt, Effect
from service.engine.planning.events import Event
from service.engine.planning.happenings import Happening
from service.engine.planning.state import Ending, State, cancelled, timed_out
from service.engine.planning.step_rules import CONDITION_IS_FALSE, THREADS, StepRules
from service.engine.planning.stopping import cut_off, late_result, still_running, unknown_outcome

# Nobody told it to: the handler cancelled itself, or awaited something that was cancelled.
_GAVE_UP = Failure(HANDLER_ERROR, "the handler stopped without a result, as if it had been cancelled", retryable=True)


@dataclass(frozen=True, slots=True)
class Plan:
    """What follows from a happening: the state after it, and what to record, store and do.

    `steps` are those that changed. Effects may be carried out only when the rest is durable. `is_partial`: some of what
    follows was put off, so that nobody else has to wait for all of it; let Continued happen. `work` is what it was.
    """

    state: State
    events: tuple[Event, ...] = ()
    steps: tuple[Step, ...] = ()
    effects: tuple[Effect, ...] = ()
    is_partial: bool = False
    work: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing follows: the happening was stale, early or came after the end."""
        return not (self.events or self.steps or self.effects)


def apply(definition: Definition, state: State, happening: Happening, *, begins: bool = True) -> Plan:
    """Return what follows from `happening`. A happening that no longer fits the state gives an empty plan.

    `begins`: whether steps may begin by it; else they are put off.
    """
    if state.state.is_end:
        return Plan(state)
    # A clock that was set back must not let an execution end before it started.
    planning = _Planning(definition, state, max(happening.time, state.start_time or happening.time))
    match happening:
        case happenings.Accepted():
            planning.accept()
        case happenings.Started():
            planning.start()
        case happenings.StepSucceeded():
            planning.succeed(happening)
        case happenings.StepFailed():
            planning.fail(happening)
        case happenings.StepSuspended():
            planning.suspend(happening)
        case happenings.StepProgressed():
            planning.report(happening)
        case happenings.StepStopped():
            planning.stopped(happening)
        case happenings.ThreadMissed():
            planning.miss_thread(happening)
        case happenings.ThreadFreed():
            planning.take_thread(happening)
        case happenings.HandlerMissed():
            planning.miss_handler(happening)
        case happenings.TimerFired():
            planning.fire()
        case happenings.CancelAsked():
            planning.cancel(happening.request)
        case happenings.Recovered():
            planning.recover(happening.handlers)
        case happenings.Continued():
            planning.go_on()
        case happenings.Condemned():
            planning.condemn(happening.failure)
    if begins or not planning.draft.ready:
        planning.settle()
    else:
        planning.is_put_off = True
    after, recorded = planning.draft.freeze()
    return Plan(
        after,
        recorded,
        tuple(planning.draft.touched.values()),
        tuple(planning.effects),
        planning.is_put_off and not after.state.is_end and after.ending is None,
        planning.allowance.spent,
    )


class _Planning(StepRules):
    """One application of the rules to a draft of the next state."""

    # --- happenings

    def accept(self) -> None:
        if self.draft.state.last_seq:
            return
        facts = self.draft.state.facts
        self.draft.record(
            events.Created(
                workflow_id=facts["workflow_id"],
                workflow_name=facts["workflow"],
                revision=facts["revision"],
                owner=facts["owner"],
                scheduled_time=self.draft.state.scheduled_time,
            )
        )

    def start(self) -> None:
        draft = self.draft
        if draft.state.state is not ExecutionState.PENDING:
            return
        deadline = later(self.time, draft.state.timeout)
        draft.change(state=ExecutionState.RUNNING, start_time=self.time, deadline_time=deadline)
        draft.record(events.Started(deadline))
        for step in self.definition.root.steps:
            if not self.definition.root.predecessors[step.id]:
                draft.free(step.id)
        self.goes_on = True

    def succeed(self, happening: happenings.StepSucceeded) -> None:
        step = self.running(happening)
        if step is None:
            return
        if self.draft.state.ending:
            self.stop(step, late_result(step))
        else:
            self.complete(step, happening.output)

    def fail(self, happening: happenings.StepFailed) -> None:
        step = self.running(happening)
        if step is None:
            return
        if self.draft.state.ending:
            self.stop(step)
        else:
            self.fail_attempt(step, happening.failure, happening.draw, happening.retry_after)

    def suspend(self, happening: happenings.StepSuspended) -> None:
        step = self.running(happening)
        if step is None:
            return
        if self.draft.state.ending:
            self.stop(step)
        elif happening.until <= self.time:
            self.complete(step, happening.output)
        else:
            self.put_off(step, happening.until, happening.output, happening.reason)

    def report(self, happening: happenings.StepProgressed) -> None:
        step = self.running(happening)
        if step is None or self.draft.state.ending:
            return
        if self.draft.bytes > self.definition.max_bytes // 2:
            return  # the other half is for what the steps give
        percent = max(step.progress, min(happening.percent, 100))
        self.draft.put(replace(step, progress=percent))
        self.draft.record(events.StepProgressed(step.path, step.attempt, percent, happening.message, step.iteration))

    def stopped(self, happening: happenings.StepStopped) -> None:
        step = self.running(happening)
        if step is None:
            return
        if self.draft.state.ending:
            self.stop(step, None if happening.has_ended else still_running(step))
        else:
            self.fail_attempt(step, _GAVE_UP, 0.5, None)

    def miss_thread(self, happening: happenings.ThreadMissed) -> None:
        step = self.running(happening)
        if step is None:
            return
        if self.draft.state.ending:
            self.stop(step)
        else:
            self.take_back(step, Wait(WaitKind.SLOT, self.time, reason=happening.reason, resource=THREADS))

    def take_thread(self, happening: happenings.ThreadFreed) -> None:
        step = self.draft.steps.get(happening.path)
        if step is not None and step.iteration == happening.iteration and step.waits_for(WaitKind.SLOT):
            self.start_attempt(step)

    def miss_handler(self, happening: happenings.HandlerMissed) -> None:
        step = self.running(happening)
        if step is None:
            return
        if self.draft.state.ending:
            self.stop(step)
        else:
            self.take_back(step, Wait(WaitKind.WORKER, self.time, reason=happening.reason, handler=step.handler))

    def fire(self) -> None:
        state = self.draft.state
        if state.state is ExecutionState.PENDING:
            if state.scheduled_time is None or state.scheduled_time <= self.time:
                self.start()
            return
        if self._is_overdue():
            self.end(timed_out(state.timeout))
            return
        # A step woken before may have failed and ended it all.
        while self.draft.state.ending is None and (step := self.draft.due()) is not None:
            try:
                self.wake(step)
            except PutOffError:
                self.is_put_off = True
                return

    def cancel(self, request: CancelRequest) -> None:
        if self.draft.state.cancel is not None:
            return
        self.draft.record(events.Cancelling(request.by, request.reason))
        self.draft.change(state=ExecutionState.CANCELLING, cancel=request)
        self.end(cancelled(request))

    def go_on(self) -> None:
        if self.draft.state.state is ExecutionState.RUNNING:
            self.fire()
            self.goes_on = True

    def recover(self, handlers: frozenset[str]) -> None:
        if self.draft.state.state is ExecutionState.PENDING:
            return
        if self._is_overdue():
            self.end(timed_out(self.draft.state.timeout))
        for step in self.draft.in_work:
            if step.state is not StepState.RUNNING:
                continue
            if self.draft.state.ending:
                self.stop(step, cut_off(step))
            elif self.definition.places[place(step.path)].delivery is Delivery.AT_MOST_ONCE:
                self.fail_for_good(self.with_failed_attempt(step, unknown_outcome(step)), unknown_outcome(step))
            else:
                self.start_again(step)
        for waiting in self.draft.in_work:
            may_begin = waiting.waits_for(WaitKind.SLOT) or (
                waiting.waits_for(WaitKind.WORKER) and waiting.handler in handlers
            )
            # A step begun before may have failed and ended it all.
            if may_begin and not self.draft.state.ending:
                self.start_or_put_off(waiting)
        # What ran is gone with its process; there is nobody to tell.
        self.effects = [effect for effect in self.effects if not isinstance(effect, CancelAttempt)]
        self.goes_on = True

    def condemn(self, failure: Failure) -> None:
        """End at once, so that nothing of it is left to be restored, and not against an end that was decided."""
        self.end(self.draft.state.ending or Ending(ExecutionState.FAILED, failure))
        for step in self.draft.in_work:
            self.stop(step)

    def settle(self) -> None:
        """Start or skip every step that is ready, and what becomes free by that; then end what is done."""
        try:
            while self.goes_on and self.draft.ready:
                self.allowance.begin()
                self._open_first()
            self._finish_if_done()
        except PutOffError:
            self.is_put_off = True

    def _open_first(self) -> None:
        ready = self.draft.ready
        self.draft.ready = ready.pop()
        try:
            self._open(self.definition.root.by_id[ready.least[1]])
        except PutOffError:
            self.draft.ready = ready
            raise

    def _open(self, step: StepSpec) -> None:
        """Start, skip or fail a step that is free to go. Raises PutOffError."""
        position = self.definition.positions[step.id]
        fresh = Step(path=step.id, handler=step.handler, state=StepState.PENDING, position=position)
        if self._all_skipped(step):
            self.skip(fresh, "every step it depends on was skipped")
            return
        try:
            if step.condition is not None and not step.condition.spend(self.draft.variables(), self.allowance):
                self.skip(fresh, CONDITION_IS_FALSE, step.condition.source)
                return
        except ExpressionError as error:
            self.fail_for_good(fresh, Failure(EXPRESSION_ERROR, f"condition: {error}"))
            return
        self.start_attempt(fresh)

    def _all_skipped(self, step: StepSpec) -> bool:
        """Whether the step only depends on skipped ones. The mere order of a sequence is no dependency."""
        if self.definition.root.ordering is not Ordering.GRAPH or not step.depends_on:
            return False
        return all(self.draft.steps[before].state is StepState.SKIPPED for before in step.depends_on)

    # --- ends

    def _is_overdue(self) -> bool:
        state = self.draft.state
        return state.ending is None and state.deadline_time is not None and state.deadline_time <= self.time

    def _finish_if_done(self) -> None:
        draft = self.draft
        if draft.state.state.is_end or draft.counts.running:
            return
        if draft.state.ending is not None:
            self._finish(draft.state.ending.state, draft.state.ending.failure, None)
        elif draft.state.state is not ExecutionState.PENDING and draft.pending == 0:
            self._complete_execution()

    def _complete_execution(self) -> None:
        self.allowance.begin()
        try:
            result = self._result()
        except ExpressionError as error:
            self._finish(ExecutionState.FAILED, Failure(EXPRESSION_ERROR, str(error)), None)
        else:
            self._finish(ExecutionState.COMPLETED, None, result)

    def _result(self) -> Any:
        if self.definition.root.output is not None:
            return self.definition.root.output.render(self.draft.variables(), self.allowance)
        steps = self.draft.steps
        if self.definition.root.ordering is Ordering.GRAPH:
            completed = [i for i in self.definition.root.sinks if steps[i].state is StepState.COMPLETED]
            # It only repeats what the steps show: too large, it must not fail the work that is done.
            return {i: steps[i].output for i in completed} if self._fit(completed) else None
        for step in reversed(self.definition.root.steps):
            if steps[step.id].state is StepState.COMPLETED:
                return steps[step.id].output
        return None

    def _fit(self, step_ids: list[str]) -> bool:
        """Return whether the outputs of these steps are one payload. Of hundreds it looks at the first ones only."""
        size = 1
        for step_id in step_ids:
            size += payload.size({step_id: self.draft.steps[step_id].output}) - 1
            if size > payload.MAX_PAYLOAD_BYTES:
                return False
        return True

    def _finish(self, state: ExecutionState, failure: Failure | None, result: Any) -> None:
        if result is not None:
            size = payload.size(result)
            self.draft.charge(size)
            self.allowance.count_value(result, size)
        self.draft.finish(state, failure, result)
        self.draft.record(events.Finished(state, result, failure))
