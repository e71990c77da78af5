"""One step that runs by itself: its attempt is made as any other is, and nothing of it is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from uuid import UUID

from persistence.model import Execution, Step, StepState, WaitKind
from service.engine.definition import Definition
from service.engine.expressions import PutOffError
from service.engine.planning import happenings
from service.engine.planning.effects import StartAttempt
from service.engine.planning.one_step import Next, OneStep
from service.engine.planning.state import State, runs
from service.engine.running.attempts import Attempts
from service.engine.running.context import Context


class NoHandlerError(Exception):
    """Nobody here has the handler any more; the message says what was waited for."""


class Trial:
    """A step that runs by itself, as its attempt sees what drives it.

    It is over when the step has ended, or waits for anything but a thread, or for its items.
    """

    def __init__(self, execution: Execution, definition: Definition, path: str, state: State, context: Context) -> None:
        self.execution = execution
        self.definition = definition
        self.state = state
        self.incarnation: UUID = context.ownership.incarnation
        self.share = context.turns.share(execution)
        self.is_closing = False
        self.is_withheld = False
        self._path = path
        self._context = context
        self._attempts = Attempts(self, context)
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> tuple[Step, Sequence[Next]]:
        """Return what has become of the step, and what would come next.

        When it is cancelled, so is the attempt. Raises NoHandlerError.
        """
        try:
            self._apply(lambda rules: rules.begin_alone(self._path))
            await self._over
        finally:
            self.is_closing = True
            if left := self._attempts.stop():
                await asyncio.wait(left, timeout=self._context.settings.cancel_grace)
        return self.state.steps[self._path], tuple(self._rules().following(self._path))

    def apply(self, happening: happenings.Happening) -> None:
        """Let something happen to the step."""
        if isinstance(happening, happenings.HandlerMissed):
            self.fail(NoHandlerError(happening.reason))
        elif not self._over.done():
            self._apply(lambda rules: rules.take(happening))

    def keep(self, happening: happenings.Happening) -> None:
        """Do nothing: nobody waits for the end of the attempt any more."""

    def fail(self, error: BaseException) -> None:
        """Give up with an error."""
        if not self._over.done():
            self._over.set_exception(error)

    def _rules(self) -> OneStep:
        now = self._context.now()
        return OneStep(self.definition, self.state, now, max(now, self._context.clock.latest()))

    def _apply(self, act: Callable[[OneStep], None]) -> None:
        rules = self._rules()
        try:
            act(rules)
            self.state, _ = rules.draft.freeze()
        except PutOffError:  # it has an allowance to itself, so nothing ever is
            self.fail(RuntimeError(f"the step {self._path} was put off"))
            return
        except Exception as error:
            self.fail(error)
            return
        self.share.spend(rules.allowance.spent)
        self._attempts.look_after_queue(rules.draft.touched.values())
        for effect in rules.effects:
            if isinstance(effect, StartAttempt):
                self._attempts.start(effect)
        step = self.state.steps.get(self._path)
        if step is not None and not _goes_on(step) and not self._over.done():
            self._over.set_result(None)


def _goes_on(step: Step) -> bool:
    return runs(step) or (step.state is StepState.WAITING and step.waits_for(WaitKind.SLOT))
