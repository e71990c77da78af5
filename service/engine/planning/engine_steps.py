"""Steps that the planner runs itself: they begin and end without an attempt, in the application that frees them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec.structs import replace

from persistence.model import Step
from service.engine import pauses
from service.engine.definition import Action, Ask, Call, Decide, Listen, Pause, Repeat, Transform
from service.engine.expressions import Expression, ExpressionError
from service.engine.expressions.cost import PER_STEP
from service.engine.failure import EXPRESSION_ERROR, INVALID_PARAMS, Failure
from service.engine.planning.effects import Answer
from service.engine.planning.reasons import not_mocked
from service.engine.planning.signal_rules import SignalRules
from service.engine.planning.step_rules import WORK_OF_STEP


class EngineSteps(SignalRules):
    """The rules of single steps, and of those that need nobody to run them."""

    def begin(self, step: Step, action: Action) -> None:
        """Begin a step that is free to go. Raises PutOffError, before anything is changed."""
        if not isinstance(action, Call) and (answer := self.answer_to(step)) is not None:
            self._give(step, answer)
            return
        match action:
            case Call():
                self.start_attempt(step)
            case Pause() as pause:
                self._pause(step, pause)
            case Ask() if self.draft.state.dry_run is not None:
                self.fail_for_good(step, not_mocked(step.handler))
            case Ask() as ask:
                self.ask(step, ask)
            case Listen() as listen:
                self.listen(step, listen)
            case Transform() | Decide() as action:
                self._evaluate(step, action)
            case Repeat():
                raise TypeError(f"step {step.path} runs a block")

    def _give(self, step: Step, answer: Answer) -> None:
        """End a step as its mock says."""
        mocked = replace(step, is_mocked=True)
        if answer.failure is not None:
            self.fail_for_good(mocked, answer.failure)
        else:
            self.complete(mocked, answer.output)

    def _evaluate(self, step: Step, action: Transform | Decide) -> None:
        try:
            output = self._value(step, action) if isinstance(action, Transform) else self._outcome(step, action)
        except ExpressionError as error:
            self.fail_for_good(step, Failure(EXPRESSION_ERROR, str(error)))
        else:
            self.complete(step, output)

    def _value(self, step: Step, action: Transform) -> Any:
        if isinstance(action.value, Expression):
            return action.value.spend(self.draft.variables(self.scope(step)), self.allowance)
        return action.value.render(self.draft.variables(self.scope(step)), self.allowance)

    def _outcome(self, step: Step, action: Decide) -> dict[str, Any]:
        variables, begun = self.draft.variables(self.scope(step)), self.allowance.spent
        for name, condition in action.outcomes:
            # They are one part, which cannot be cut: where the first ones are heavy, the rest must not hold the loop.
            if condition is not None and self.allowance.spent - begun > PER_STEP:
                raise ExpressionError("outcomes may be too much work for values of this size; use several steps")
            if condition is None or condition.spend(variables, self.allowance):
                return {"outcome": name, "matched": True}
        return {"outcome": action.otherwise, "matched": False}

    def _pause(self, step: Step, action: Pause) -> None:
        try:
            params = action.params.render(self.draft.variables(self.scope(step)), self.allowance)
            end = pauses.end(params, self.latest)  # counted from there, a duration is never too short
        except ExpressionError as error:
            self.fail_for_good(step, Failure(EXPRESSION_ERROR, str(error)))
            return
        except ValueError as error:
            self.fail_for_good(step, Failure(INVALID_PARAMS, str(error)))
            return
        output = {"waited_until": _written(end)}
        if self.skips_waits or end <= (self.time if "until" in params else self.latest):
            self.complete(step, output)
        else:
            self.allowance.count(WORK_OF_STEP)
            self.put_off(step, end, output, f"waits until {output['waited_until']}")


def _written(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")
