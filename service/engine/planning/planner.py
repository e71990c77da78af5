"""Every rule of execution: `(definition, state, happening) -> (state, events, effects)`.

Pure: it reads no clock, draws no lots and does no I/O. The same happenings always give the same state.

The rules are one object for each application, in classes that lie on each other, so that a rule finds those below it:
_Planning (what a happening does) -> PauseRules (pause, resume, terminate) -> BlockRules (steps and items begin,
outputs) -> BreakpointRules (steps are held before they begin) -> EndRules (blocks end, sweeps) -> EngineSteps (steps
that the planner runs) -> SignalRules (those that wait for signals) -> PeopleRules (those that ask people) -> StepRules
(single steps, effects) -> Rules (what all have). StepRules call upwards in `ended` and `overdue` alone,
BreakpointRules in `go_in`.
All change one Draft, the next state in the making, which is a Course: what may begin, is in work and is due in it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, assert_never

from msgspec.structs import replace

from persistence.lineage import Lineage
from persistence.model import RETRIABLE_STATES, ExecutionState, Message, MessageKind, Step, Wait, WaitKind
from service.engine import payload
from service.engine.clock import later
from service.engine.definition import Definition
from service.engine.expressions import ExpressionError, PutOffError
from service.engine.failure import EXPRESSION_ERROR, HANDLER_ERROR, Failure
from service.engine.planning import events, happenings
from service.engine.planning.course import WORK_OF_FORGETTING
from service.engine.planning.happenings import Happening, OfAttempt, wish
from service.engine.planning.pause_rules import PauseRules
from service.engine.planning.plan import Plan as Plan
from service.engine.planning.reasons import cut_off, interrupted, late_result, lost, still_running
from service.engine.planning.retry_rules import reopening
from service.engine.planning.state import Ending, State, Sweep, cancelled, timed_out
from service.engine.slices import in_one_go

# Of an attempt that stopped untold: its handler cancelled itself, or awaited something that was cancelled.
_GAVE_UP = Failure(HANDLER_ERROR, "the handler stopped without a result, as if it had been cancelled", retryable=True)


def apply(
    definition: Definition,
    state: State,
    happening: Happening,
    *,
    begins: bool = True,
    settles: bool = True,
    latest: datetime | None = None,
) -> Plan:
    """Return what follows from `happening`. A happening that no longer fits the state gives an empty plan.

    `begins`: whether steps may begin by it; else they are put off. `settles`: whether what follows for other steps and
    for the end is seen to; else that is left to the next message, because more has been sent than this one. `latest` is
    the latest that it can be, where the time of the happening is the earliest: what must not be too short is counted
    from there.
    """
    if isinstance(happening, happenings.Reopened):
        return _reopened(definition, state, happening)
    if state.state.is_end:
        return Plan(state)
    # A clock that was set back must not let an execution end before it started, and what waited for its turn may have
    # happened before what did not have to wait.
    time = max(happening.time, state.time or state.start_time or happening.time)
    planning = _Planning(definition, state, time, max(time, latest or time))
    match happening:
        case happenings.Accepted():
            planning.accept(happening.lineage)
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
        case happenings.SlotMissed():
            planning.miss_slot(happening)
        case happenings.SlotFreed():
            planning.take_slot(happening)
        case happenings.HandlerMissed():
            planning.miss_handler(happening)
        case happenings.AttemptLost():
            planning.lose(happening)
        case happenings.HandlersCame():
            planning.take_handlers(happening.handlers)
        case happenings.TimerFired():
            planning.fire()
        case happenings.MessageCame():
            planning.receive(happening.message, settles=settles)
            planning.catch_up()
        case happenings.Recovered():
            planning.recover(happening.handlers, happening.remote)
        case happenings.Continued():
            planning.go_on()
        case happenings.Condemned():
            planning.condemn(happening.failure)
        case _:
            assert_never(happening)
    if settles and (begins or planning.draft.is_paused or not planning.draft.is_any_ready()):
        planning.settle(begins=begins)
    elif settles:
        planning.is_put_off = True
    after, recorded = planning.draft.freeze()
    return Plan(
        after,
        recorded,
        tuple(planning.draft.touched.values()),
        tuple(planning.effects),
        planning.is_put_off and not after.state.is_end and (after.ending is None or bool(after.sweeps)),
        planning.allowance.spent + WORK_OF_FORGETTING * planning.draft.forgotten,
        (happening.message,) if isinstance(happening, happenings.MessageCame) else (),
        after.ending != state.ending,
        tuple(planning.draft.tasks.values()),
        tuple(planning.draft.task_changes.values()),
        planning.draft.gives_up,
    )


def _reopened(definition: Definition, state: State, happening: happenings.Reopened) -> Plan:
    """Return the first plan of the next run, which begins nothing: whoever takes the execution goes on from it."""
    if state.state not in RETRIABLE_STATES:
        return Plan(state)
    after, event = in_one_go(reopening(definition, state, happening))
    return Plan(after, (event,), is_partial=True)


class _Planning(PauseRules):
    """One application of the rules to a draft of the next state."""

    # --- happenings

    def accept(self, lineage: Lineage | None) -> None:
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
                lineage=lineage,
                dry_run=self.draft.state.dry_run is not None,
            )
        )
        if (kept := self.draft.state.breakpoints) is not None:
            self.draft.record(events.BreakpointsSet(kept.by, kept.points))

    def start(self) -> None:
        draft = self.draft
        if draft.state.state is not ExecutionState.PENDING:
            return
        deadline = later(self.time, draft.state.timeout)
        draft.change(state=ExecutionState.RUNNING, start_time=self.time, deadline_time=deadline)
        draft.record(events.Started(deadline))
        for path in draft.open_block("", self.definition.root):
            draft.free(path)
        self.goes_on = True

    def heed(self, told: OfAttempt, end: Callable[[Step], Failure | None] = lambda _: None) -> Step | None:
        """Return the step if this attempt of it runs here and is to go on.

        One that was told to stop is stopped instead; `end` gives what its step tells of the attempt.
        """
        step = self.running(told)
        if step is None:
            return None
        if isinstance(told, happenings.EndOfAttempt) and told.usage is not None:
            step = self.draft.use(step, told.usage)
        if not self.is_ending(step):
            return step
        self.stop(step, end(step))
        return None

    def succeed(self, happening: happenings.StepSucceeded) -> None:
        if (step := self.heed(happening, late_result)) is not None:
            self.complete(step, happening.output)

    def fail(self, happening: happenings.StepFailed) -> None:
        step = self.heed(happening)
        if step is not None and not (self.draft.is_stopping_attempt(step) and self.put_back(step)):
            self.fail_attempt(step, happening.failure, happening.draw, happening.retry_after)

    def suspend(self, happening: happenings.StepSuspended) -> None:
        if (step := self.heed(happening)) is None:
            return
        if self.skips_waits or happening.until <= self.time:
            self.complete(step, happening.output)
        else:
            self.put_off(step, happening.until, happening.output, happening.reason)

    def report(self, happening: happenings.StepProgressed) -> None:
        step = self.running(happening)
        if step is None or self.is_ending(step):
            return
        if self.draft.bytes > self.definition.max_bytes // 2:
            return  # the other half is for what the steps give
        percent = max(step.progress, min(happening.percent, 100))
        self.draft.put(replace(step, progress=percent))
        self.draft.record(events.StepProgressed(step.path, step.attempt, percent, happening.message, step.iteration))

    def stopped(self, happening: happenings.StepStopped) -> None:
        step = self.heed(happening, lambda step: None if happening.has_ended else still_running(step))
        if step is not None and not self.put_back(step):
            self.fail_attempt(step, _GAVE_UP, 0.5, None)

    def miss_slot(self, happening: happenings.SlotMissed) -> None:
        if (step := self.heed(happening)) is not None:
            self.take_back(step, Wait(WaitKind.SLOT, self.time, reason=happening.reason, resource=happening.resource))

    def take_slot(self, happening: happenings.SlotFreed) -> None:
        step = self.draft.steps.get(happening.path)
        if step is not None and step.iteration == happening.iteration and step.waits_for(WaitKind.SLOT):
            if self.draft.is_paused:
                self.start_or_put_off(step)  # what is kept for it is for others
            else:
                self.wake(step)

    def miss_handler(self, happening: happenings.HandlerMissed) -> None:
        if (step := self.heed(happening)) is not None:
            wait = Wait(WaitKind.WORKER, self.time, reason=happening.reason, handler=step.handler)
            self.take_back(step, replace(wait, wishes=happening.wishes))

    def lose(self, happening: happenings.AttemptLost) -> None:
        if (step := self.heed(happening, cut_off)) is not None:
            self.begin_anew(step, interrupted(step) if happening.is_cut_off else lost(step, happening.reason))

    def take_handlers(self, handlers: frozenset[str]) -> None:
        """Begin to see to all that waits for these handlers."""
        came = Sweep(handlers=handlers)
        if self.draft.state.ending is None and self.draft.sweeps[-1:] != (came,):
            self.draft.sweeps += (came,)
            self.is_sweeping = True

    def fire(self) -> None:
        state = self.draft.state
        if state.state is ExecutionState.PENDING:
            if not state.is_held_back and (state.scheduled_time is None or state.scheduled_time <= self.time):
                self.start()
            return
        if self._is_overdue():
            self.end(timed_out(state))
            return
        if self.draft.is_paused:
            return
        # A step that was woken before may have failed, and so have decided the end of the execution.
        while self.draft.state.ending is None and (step := self.draft.due()) is not None:
            try:
                self.wake(step)
            except PutOffError:
                self.is_put_off = True
                return

    def receive(self, message: Message, *, settles: bool) -> None:
        """Do what a message asks for; of what is done already, or not understood, nothing is left but that it came.

        Where it is not the last one (`settles`), timers are left to fire by themselves: a task that is overdue may have
        been completed by the next message, and to end it before that is seen is refused, however often it is tried.
        """
        match message.kind:
            case MessageKind.CANCEL:
                self.cancel(*wish(message))
            case MessageKind.TASK_COMPLETED:
                self.answer(message)
            case MessageKind.PAUSE:
                self.pause(message)
            case MessageKind.RESUME:
                if self.resume(message) and (settles or self.draft.state.state is ExecutionState.PENDING):
                    self.fire()
            case MessageKind.TERMINATE:
                self.terminate(message)
            case MessageKind.SIGNAL:
                self.hear(message)
            case MessageKind.BREAKPOINTS:
                self.set_breakpoints(message)
            case MessageKind.EDIT if "vars" in message.body:
                self.edit_variables(message)
            case MessageKind.EDIT:
                self.edit_input(message)

    def cancel(self, by: str, reason: str, bulk_id: str = "") -> None:
        if self.draft.state.state is ExecutionState.CANCELLING:
            return
        self.draft.record(events.Cancelling(by, reason, bulk_id=bulk_id))
        self.draft.change(state=ExecutionState.CANCELLING, pause=None)
        self.end(cancelled(by, reason))

    def go_on(self) -> None:
        self.catch_up()
        if self.draft.state.state is ExecutionState.RUNNING:
            self.fire()

    def catch_up(self) -> None:
        """See to what an application before this one has left to it."""
        self.is_sweeping = True
        self.goes_on = self.goes_on or self.draft.state.state is ExecutionState.RUNNING

    def recover(self, handlers: frozenset[str], remote: frozenset[str]) -> None:
        if self.draft.state.state is ExecutionState.PENDING:
            return
        if self._is_overdue():
            self.end(timed_out(self.draft.state))
        self.forget_outputs()
        self.take_over(handlers, remote)
        self.goes_on = True

    def condemn(self, failure: Failure) -> None:
        """Decide that the execution fails, unless its end is decided already; what is in work of it is cut off."""
        self.end(self.draft.state.ending or Ending(ExecutionState.FAILED, failure))
        self.draft.inherited = self.draft.open  # what a message began is not called either
        self.take_over()

    def settle(self, *, begins: bool) -> None:
        """See to what is in work, begin all that is ready, and what becomes free by that; then end what is done.

        Where nothing `begins`, what a sweep has freed is put off.
        """
        try:
            while True:
                if self.is_sweeping and self.draft.sweeps:
                    self.sweep()
                elif self.goes_on and self.draft.is_any_ready() and not self.draft.is_paused:
                    if not begins:
                        raise PutOffError
                    self.begin_part()
                    self.begin_first()
                else:
                    break
        except PutOffError:
            self.is_put_off = True
        try:
            self._finish_if_done()
        except PutOffError:
            self.is_put_off = True

    # --- ends

    def _is_overdue(self) -> bool:
        state = self.draft.state
        return state.ending is None and state.deadline is not None and state.deadline <= self.time

    def _finish_if_done(self) -> None:
        draft = self.draft
        if draft.counts.running or draft.state.state.is_end:
            return
        if draft.state.ending is not None:
            self._finish(draft.state.ending.state, draft.state.ending.failure, None)
        elif "" in draft.blocks and draft.is_closed("") and not draft.is_paused:
            self._complete_execution()

    def _complete_execution(self) -> None:
        self.allowance.begin()
        try:
            result = self.output("", self.definition.root)
        except ExpressionError as error:
            self._finish(ExecutionState.FAILED, Failure(EXPRESSION_ERROR, str(error)), None)
        else:
            self._finish(ExecutionState.COMPLETED, None, result)

    def _finish(self, state: ExecutionState, failure: Failure | None, result: Any) -> None:
        if result is not None:
            size = payload.size(result)
            self.draft.charge(size)
            self.allowance.count_value(result, size)
        self.draft.finish(state, failure, result)
        self.draft.record(events.Finished(state, result, failure))
