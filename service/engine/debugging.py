"""Debugs executions: holds them before steps, and changes what a step is called with that is held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from persistence.breakpoints import Breakpoint, Breakpoints
from persistence.model import Execution, MessageKind, Scope, Step, WaitKind
from persistence.posting import Posting
from persistence.repository import Repository
from persistence.requests import Method
from service.engine import paths
from service.engine.control import Control
from service.engine.definition import Call, Definition, Repeat, StepSpec
from service.engine.expressions import ExpressionError, compile_condition
from service.engine.handlers.registry import Registry
from service.engine.payload import normalising
from service.engine.planning.breakpoint_rules import EVERY, PARAMS
from service.engine.requests import asked
from service.engine.slices import in_slices
from service.engine.steps import Steps
from service.engine.violations import ValidationError, Violation, below
from service.engine.workflows import Workflows

_SHOWN = 5
"""Steps of a definition that a refusal names at most."""


class StepNotHeldError(Exception):
    """No breakpoint holds the step, or nothing is known of what it would be called with."""

    def __init__(self, execution_id: UUID, path: str, state: str, wanted: str) -> None:
        super().__init__(f"step {path} of execution {execution_id} {wanted}")
        self.execution_id = execution_id
        self.path = path
        self.state = state


class Debugging:
    """Sends executions what whoever debugs them wants."""

    def __init__(self, repository: Repository, workflows: Workflows, control: Control, registry: Registry) -> None:
        self._repository = repository
        self._workflows = workflows
        self._control = control
        self._registry = registry
        self._steps = Steps(repository, workflows)

    async def set_breakpoints(
        self, scope: Scope, execution_id: UUID, points: Sequence[Breakpoint], by: str, request_id: str
    ) -> Execution:
        """Let an execution be held at these breakpoints and no others, and return it after that.

        Raises ValidationError, and what `Control.ask` raises.
        """
        execution = await self._repository.get_execution(scope, execution_id)
        check_points(await self._workflows.of(execution), points)
        body = {"breakpoints": [{"path": point.path, "condition": point.condition} for point in points]}
        return await self._control.ask(scope, execution_id, MessageKind.BREAKPOINTS, by, body, request_id)

    async def edit_input(
        self, scope: Scope, execution_id: UUID, path: str, given: Mapping[str, Any], by: str, request_id: str
    ) -> Execution:
        """Let a step that is held be called with something else, and return the execution after that.

        Raises StepNotFoundError, StepNotHeldError, ValidationError, and what `Control.ask` raises.
        """
        given = await in_slices(normalising(dict(given), "input"))
        body: dict[str, Any] = {"path": path, "input": given}
        asking = asked(Method.EDIT, request_id, by, execution_id=str(execution_id), body=body)
        request = await in_slices(asking)
        # Read before the step: should the execution go on meanwhile, its pause is another one, and the edit is refused.
        execution = await self._repository.get_execution(scope, execution_id)
        if request is not None and await self._repository.find_asked(scope.org, request) is not None:
            return execution
        page = await self._steps.get(scope, execution_id, path, 0)
        ((spec, step),) = page.steps
        if wanted := _unfit(spec, step):
            raise StepNotHeldError(execution_id, path, step.state.value, wanted)
        handler = self._registry.get(spec.handler, scope.org)
        secrets = spec.action.params.secrets if isinstance(spec.action, Call) else {}
        if handler is not None and (problems := handler.validate(given, secrets.keys())):
            raise ValidationError([Violation(below("input", where), message) for where, message in problems])
        body["pause_seq"] = execution.pause.seq if execution.pause is not None else 0
        await self._control.send(
            scope, execution_id, Posting(self._control.new_id(), MessageKind.EDIT, by, body), request
        )
        return await self._repository.get_execution(scope, execution_id)


def _unfit(spec: StepSpec, step: Step) -> str:
    """Return why the input of a step cannot be changed, empty where it can."""
    if not step.waits_for(WaitKind.BREAKPOINT):
        return "is not held by a breakpoint"
    if not isinstance(spec.action, Call):
        return "has no handler that could be called with another input"
    return "" if step.is_fixed else "has parameters that cannot be had, because of which it will fail"


def held_by(by: str, definition: Definition, points: Sequence[Breakpoint]) -> Breakpoints | None:
    """Return where a new execution is held; None for nowhere. Raises ValidationError."""
    if not points:
        return None
    check_points(definition, points)
    return Breakpoints(by, tuple(points))


def check_points(definition: Definition, points: Sequence[Breakpoint]) -> None:
    """Raises ValidationError for steps that the definition does not have, and for conditions that cannot be."""
    found = []
    for index, point in enumerate(points):
        if point.path == EVERY:
            pass
        elif definition.find(point.path) is None and point.path not in definition.places:
            named = list(definition.places)
            some = ", ".join(named[:_SHOWN]) + (", …" if len(named) > _SHOWN else "")
            found.append(Violation(f"breakpoints[{index}].path", f"{point.path!r} is no step of the workflow: {some}"))
        elif isinstance(definition.places[paths.place(point.path)].action, Repeat):
            wrong = f"runs other steps, and is not held itself: name one of them, such as {point.path}.…"
            found.append(Violation(f"breakpoints[{index}].path", wrong))
        if point.condition:
            try:
                compile_condition(point.condition, frozenset({PARAMS}))
            except ExpressionError as error:
                found.append(Violation(f"breakpoints[{index}].condition", str(error)))
    if found:
        raise ValidationError(found)
