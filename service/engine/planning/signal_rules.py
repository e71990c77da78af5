"""Steps that wait for signals: each takes what it waits for when that comes, or what came before; and only once."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from persistence.model import Message, Step, StepState, Wait, WaitKind
from persistence.signals import Signal
from service.engine import awaited_signals, payload
from service.engine.awaited_signals import Awaited
from service.engine.definition import Listen
from service.engine.expressions import ExpressionError, PutOffError
from service.engine.failure import (
    EXPRESSION_ERROR,
    INVALID_PARAMS,
    SIGNAL_INVALID,
    SIGNAL_TIMEOUT,
    Failure,
)
from service.engine.planning import events
from service.engine.planning.people_rules import PeopleRules
from service.engine.planning.step_rules import WORK_OF_STEP
from service.engine.schema import locate

WORK_OF_SCHEMA = 20
"""Work of judging a byte of what a step waits for, or of holding a byte of a payload against it."""

WORK_OF_LISTENER = 400
"""Work of looking whether a step that waits for a signal may take it."""

_MOST_SAID = 3


class SignalRules(PeopleRules):
    """The rules of single steps, and of those that wait for what comes from outside.

    A signal that has come and that no step has taken is kept with the state. It is taken by the first step that begins
    to wait for it; of those that wait already, by the one that has waited longest. So no step waits for what is kept,
    unless it is to end.
    """

    def listen(self, step: Step, action: Listen) -> None:
        """Take the signals that a step wants and that have come, or let it wait for them. Raises PutOffError."""
        try:
            params = action.params.render(self.draft.variables(self.scope(step)), self.allowance)
            size = payload.size(params)
            self.allowance.count(WORK_OF_SCHEMA * size)
            awaited = awaited_signals.read(params, self.latest)  # counted from there, a timeout is never too early
        except ExpressionError as error:
            self.fail_for_good(step, Failure(EXPRESSION_ERROR, str(error)))
            return
        except ValueError as error:
            self.fail_for_good(step, Failure(INVALID_PARAMS, str(error)))
            return
        if found := awaited.chosen(self.draft.signals):
            self._take(step, awaited, found)
        elif not self.draft.has_room(size):
            self.fail_for_good(step, self.too_large("its parameters", size))
        else:
            reason = f"waits for {'signals' if len(awaited.names) > 1 else 'the signal'} {', '.join(awaited.names)}"
            wait = Wait(WaitKind.SIGNAL, self.time, awaited.due_time, reason)
            wait = replace(wait, signals=awaited.names, every=awaited.of_each)
            self.allowance.count(WORK_OF_STEP)
            self.draft.charge(size)
            begun = replace(step, input=params, start_time=self.time, attempt_time=self.time)
            self.draft.put(replace(begun, state=StepState.WAITING, wait=wait))
            self.draft.record(events.StepStarted(step.path, step.handler, step.attempt, "", params, step.iteration))
            self.draft.record(events.StepWaiting(step.path, wait, step.iteration))

    def hear(self, message: Message) -> None:
        """Keep the signal that a message brings, and give it to the step that waits for it, if one does."""
        signal = Signal.brought(message.id, message.time, message.sender, message.body)
        self.draft.signals += (signal,)
        self.draft.charge(payload.size(signal.payload))
        self.draft.record(events.SignalReceived(signal))
        self._hand_out(signal.name)

    def _hand_out(self, name: str) -> None:
        """Give kept signals to the step that has waited longest for one of this name, also while nothing begins."""
        if self.draft.state.ending is not None:
            return
        listening = self.draft.listeners(name)
        self.allowance.count(WORK_OF_LISTENER * len(listening))
        for step in listening:
            if self.is_ending(step):
                continue
            awaited = awaited_signals.read_again(step.input)
            if found := awaited.chosen(self.draft.signals):
                self._take(step, awaited, found)
                return

    def _take(self, step: Step, awaited: Awaited, found: Sequence[Signal], *, timed_out: bool = False) -> None:
        """Complete a step with signals, or fail it by the first that does not fit. Raises PutOffError before that."""
        for signal in found:
            if problems := awaited.wrong(signal):
                said = [f"{locate('payload', each.path)} {each.message}" for each in problems[:_MOST_SAID]]
                details = {"signal": signal.name, "signal_id": str(signal.id)}
                self.draft.offered = (signal,)
                self.fail_for_good(step, Failure(SIGNAL_INVALID, f"signal {signal.name}: {'; '.join(said)}", details))
                return
        self.draft.offered = tuple(found)
        try:
            self.complete(step, awaited.output(found, timed_out=timed_out))
        except PutOffError:
            self.draft.offered = ()
            raise
        self.allowance.count(WORK_OF_SCHEMA * sum(signal.size for signal in found))

    def overdue(self, step: Step) -> None:
        """Go on with a step that waits for what has not come in time. Raises PutOffError."""
        if not step.waits_for(WaitKind.SIGNAL):
            super().overdue(step)
            return
        awaited = awaited_signals.read_again(step.input)
        here = awaited.here(self.draft.signals)
        if awaited.default is not None:
            self._take(step, awaited, tuple(here.values()), timed_out=True)
        else:
            missing = [name for name in awaited.names if name not in here]
            text = f"no signal {' or '.join(missing) if not awaited.of_each else ' and '.join(missing)} came in time"
            self.fail_for_good(step, Failure(SIGNAL_TIMEOUT, text, {"missing": missing}))
        self.draft.gives_up = True
