"""How an execution is held before steps: at breakpoints, and after each step that somebody lets it make."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from msgspec.structs import replace

from persistence.breakpoints import Breakpoint, Breakpoints, Halt, halted, setting
from persistence.model import ExecutionState, Message, Pause, Step, StepState, Wait, WaitKind
from service.engine import paths, payload
from service.engine.definition import Action, Call, Repeat
from service.engine.expressions import ExpressionError, PutOffError, compile_condition
from service.engine.planning import events
from service.engine.planning.assigned import edited
from service.engine.planning.end_rules import EndRules
from service.engine.planning.step_rules import WORK_OF_STEP

EVERY = "*"
"""Stands for every step in a breakpoint."""

WORK_OF_LOOK = 20
"""Work of looking whether a step in work is held."""

PARAMS = "params"
"""What the condition of a breakpoint sees: what the step would be called with, null where the server runs it itself."""


class BreakpointRules(EndRules):
    """Holds the execution before a step, which waits for that long, and is due from the first moment on.

    So to resume the execution is all that lets it go on. A step is held before its first attempt alone.
    """

    def set_breakpoints(self, message: Message) -> None:
        """Hold the execution at other steps than so far."""
        if self.draft.state.ending is not None:
            return
        points = points_of(message.body.get("breakpoints"))
        self.draft.charge(sum(len(point.path) + len(point.condition) for point in points))
        self.draft.record(events.BreakpointsSet(message.sender, points))
        self.draft.change(breakpoints=setting(self.draft.state.breakpoints, message.sender, points))

    def edit_input(self, message: Message) -> None:
        """Let a step that is held be called with something else."""
        step = self.draft.steps.get(str(message.body.get("path")))
        given = message.body.get("input")
        if step is None or not step.is_fixed or not step.waits_for(WaitKind.BREAKPOINT) or not isinstance(given, dict):
            return
        size = payload.size(given)
        if not self.draft.has_room(size):
            return  # as was looked at before it was sent
        self.draft.charge(size)
        self.allowance.count_value(given, size)
        self.draft.put(replace(step, input=given, wait=step.wait and replace(step.wait, edited=True)))
        self.draft.record(events.StepEdited(step.path, message.sender, given, step.iteration))

    def edit_variables(self, message: Message) -> None:
        """Let expressions see other values of variables, until a step assigns them.

        What is held sees them, too, unless somebody has changed what it is called with. Where an end was decided first,
        they are kept for a later run.
        """
        state, given = self.draft.state, message.body.get("vars")
        is_kept = state.state is ExecutionState.PAUSED or state.ending is not None
        if not is_kept or not isinstance(given, dict) or not given:
            return
        size = payload.size(given)
        self.draft.charge(size)
        self._enough += size  # it was counted when it was sent, and nothing begins of it
        self.draft.change(vars={**state.vars, **given}, edited=edited(state.edited, given, self.draft.next_seq))
        self.draft.record(events.VariablesAssigned("", given, edited_by=message.sender))
        held = sorted(self.draft.open.values(), key=lambda step: step.path) if self.draft.is_paused else []
        for step in held:
            if step.waits_for(WaitKind.BREAKPOINT) and step.wait is not None and not step.wait.edited:
                self._look_again(step, step.wait)
        self.allowance.count(WORK_OF_LOOK * len(self.draft.open))
        self.allowance.count_value(given, size)

    def _look_again(self, step: Step, wait: Wait) -> None:
        """Show what a step that is held would be called with now; what cannot be had yet is seen when it begins.

        It is charged each time, also where it is as it was: each time it is written, in an event of its own, as the
        parameters of each attempt are.
        """
        action, params = self.spec(step).action, None
        with suppress(PutOffError):
            self.begin_part()
            params = self._params(replace(step, is_fixed=False), action)
        size = payload.size(params)
        if not self.draft.has_room(size):
            params, size = None, 0
        self.rendered = None
        if params is None and step.input is None:
            return
        self.draft.charge(size)
        self.draft.put(replace(step, input=params, is_fixed=params is not None))
        self.draft.record(events.StepWaiting(step.path, wait, step.iteration, input=params))

    def holds(self, step: Step) -> bool:
        """Hold the execution before a step, where it is to be; returns whether it is. Raises PutOffError."""
        if (kept := self.draft.state.breakpoints) is None:
            return False
        action = self.spec(step).action
        if isinstance(action, Repeat):
            return False  # of what runs other steps, those are held
        if not (is_named(kept, step.path) or kept.halt is Halt.NEXT):
            return False
        params = self._params(step, action)
        if not self._is_hit(kept, step.path, params):
            return False
        size = payload.size(params)
        if not self.draft.has_room(size):
            return False  # it fails for that when it begins
        self.rendered = None
        self.draft.charge(size)
        self.allowance.count(WORK_OF_STEP)
        wait = Wait(WaitKind.BREAKPOINT, self.time, self.time, "is held before it begins")
        self.draft.put(replace(step, state=StepState.WAITING, wait=wait, input=params, is_fixed=params is not None))
        self.draft.record(events.StepWaiting(step.path, wait, step.iteration, input=params))
        is_let_on = not any(_is_at(point.path, step.path) for point in kept.points)
        self.hold(Pause(kept.let_on_by if is_let_on else kept.by, f"before step {step.path}", self.time), step.path)
        return True

    @abstractmethod
    def go_in(self, step: Step) -> None:
        """Begin a step that is neither skipped nor held. Raises PutOffError."""

    def overdue(self, step: Step) -> None:
        if step.waits_for(WaitKind.BREAKPOINT):
            self.go_in(replace(step, wait=None))
        else:
            super().overdue(step)

    def hold(self, pause: Pause, step_path: str = "", bulk_id: str = "") -> None:
        """Let nothing begin from here on; of itself before the step at a path."""
        state, pause = self.draft.state, replace(pause, seq=self.draft.next_seq, step=step_path)
        how = pause.is_hard, pause.stops_deadline
        of = step_path, bulk_id, pause.workflow_pause_id
        self.draft.record(events.Paused(pause.by, pause.reason, *how, *of))
        breakpoints = halted(state.breakpoints) if step_path else state.breakpoints
        self.draft.change(state=ExecutionState.PAUSED, pause=pause.joining(state.pause), breakpoints=breakpoints)

    def let_go(self) -> None:
        """Begin the step that was held, before any other may, for which the execution would be held again."""
        pause = self.draft.state.pause
        step = self.draft.steps.get(pause.step) if pause is not None and pause.step else None
        self.draft.change(pause=None)
        if step is None or not step.waits_for(WaitKind.BREAKPOINT):
            return
        try:
            self.wake(step)
        except PutOffError:
            self.is_put_off = True

    def _params(self, step: Step, action: Action) -> Any:
        """Return what the step would be called with; None where that cannot be had, because of which it will fail."""
        if not isinstance(action, Call):
            return None
        try:
            params = self.params_of(step, action, self.variables_of_attempt(step))
        except ExpressionError:
            return None
        self.rendered = step.key, params  # its work is not done twice
        return params

    def _is_hit(self, kept: Breakpoints, path: str, params: Any) -> bool:
        if kept.halt is Halt.NEXT or (kept.halt is Halt.STEP and _is_at(kept.step, path)):
            return True
        return any(_is_at(point.path, path) and self._is_true(point.condition, params) for point in kept.points)

    def _is_true(self, condition: str, params: Any) -> bool:
        """Return whether a condition holds; one that fails is taken as true: whoever set it will want to see why."""
        if not condition:
            return True
        try:
            compiled = compile_condition(condition, frozenset({PARAMS}))
            return bool(compiled.spend({PARAMS: params}, self.allowance))
        except ExpressionError:
            return True


def points_of(given: Any) -> tuple[Breakpoint, ...]:
    """Return the breakpoints that a message brings; what is none is left out, as another version may have sent it."""
    found = []
    for each in given if isinstance(given, list) else ():
        if isinstance(each, dict) and isinstance(each.get("path"), str) and each["path"]:
            condition = each.get("condition")
            found.append(Breakpoint(each["path"], condition if isinstance(condition, str) else ""))
    return tuple(found)


def halt_of(body: Mapping[str, Any]) -> tuple[Halt, str]:
    """Return how far a message lets an execution go on, and to which step."""
    if body.get("step_over") is True:
        return Halt.NEXT, ""
    step = body.get("run_to")
    return (Halt.STEP, step) if isinstance(step, str) and step else (Halt.NONE, "")


def _is_at(named: str, path: str) -> bool:
    """Return whether a breakpoint that names a path, a place of the definition or any step is one of that at a path."""
    return named in (path, paths.place(path), EVERY)


def is_named(kept: Breakpoints, path: str) -> bool:
    """Return whether any breakpoint is one of the step at a path."""
    return any(_is_at(named, path) for named in (kept.step, *(point.path for point in kept.points)))
