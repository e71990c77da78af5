"""Debugs executions: holds them before steps, and changes what a step is called with that is held."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from persistence.breakpoints import Breakpoint
from persistence.errors import ExecutionFinishedError, ExecutionStateError
from persistence.model import Execution, MessageKind, Scope, Step, WaitKind
from persistence.posting import Posting, admits
from persistence.repository import Repository
from persistence.requests import Asked, Method
from service.engine import paths
from service.engine.control import Control
from service.engine.definition import Call, Definition, Repeat, StepSpec
from service.engine.editing import NO_HANDLER, StepNotHeldError, judge_input
from service.engine.expressions import ExpressionError, compile_condition
from service.engine.handlers.registry import Registry
from service.engine.payload import check, normalising, size
from service.engine.planning.assigned import gathering_variables
from service.engine.planning.breakpoint_rules import EVERY, PARAMS
from service.engine.planning.draft import EVENT_BYTES
from service.engine.repeats import unless_asked
from service.engine.requests import asked
from service.engine.slices import Work, in_slices
from service.engine.steps import Steps
from service.engine.violations import ValidationError, Violation
from service.engine.workflows import Workflows

_COMPILED = 8_000
"""Microseconds that a condition may take to be compiled."""

_OF_ITEM = re.compile(r"(?:[^\[\].]+\[(?:0|[1-9]\d*)\]\.)+[^\[\].]+")

LOOKS = 5
"""How often variables are looked at before an edit of them is refused because others edit them, or steps go on."""

_SHOWN = 5
"""Steps or variables of a definition that a refusal names at most."""


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
        await in_slices(check_points(await self._workflows.of(execution), points))
        body = {"breakpoints": [{"path": point.path, "condition": point.condition} for point in points]}
        return await self._control.ask(scope, execution_id, MessageKind.BREAKPOINTS, by, body, request_id)

    async def resume(
        self, scope: Scope, execution_id: UUID, by: str, reason: str, halt: Mapping[str, Any], request_id: str
    ) -> Execution:
        """Let an execution go on as far as `halt` says, and return it. Raises what `set_breakpoints` does."""
        if path := halt.get("run_to"):
            execution = await self._repository.get_execution(scope, execution_id)
            if wrong := list(wrong_path(await self._workflows.of(execution), path, "run_to")):
                raise ValidationError(wrong)
        body = {"reason": reason, **halt}
        return await self._control.ask(scope, execution_id, MessageKind.RESUME, by, body, request_id)

    async def edit_input(
        self,
        scope: Scope,
        execution_id: UUID,
        path: str,
        given: Mapping[str, Any],
        by: str,
        request_id: str,
        *,
        moves_secrets: bool,
    ) -> Execution:
        """Let a step that is held be called with something else, and return the execution after that.

        Where it is called with secrets, only if the caller may send these anywhere: `moves_secrets`.

        Raises StepNotFoundError, StepNotHeldError, ValidationError, and what `Control.ask` raises.
        """
        given = await in_slices(normalising(dict(given), "input"))
        body: dict[str, Any] = {"path": path, "input": given}
        asking = asked(Method.EDIT, request_id, by, execution_id=str(execution_id), body=body)
        request = await in_slices(asking)

        async def make() -> None:
            # Read before the step: should the execution go on meanwhile, its pause is another one, and the edit is
            # refused.
            execution = await self._repository.get_execution(scope, execution_id)
            page = await self._steps.get(scope, execution_id, path, 0)
            ((spec, step),) = page.steps
            if execution.state.is_end:
                raise ExecutionFinishedError(execution_id, execution.state)
            if wanted := _unfit(spec, step):
                raise StepNotHeldError(execution_id, path, step.state.value, wanted)
            assert isinstance(spec.action, Call)  # noqa: S101 - else it would be unfit
            judge_input(self._registry, scope.org, spec.action, given, "input", moves_secrets=moves_secrets)
            if wrong := _beyond(execution, page.definition, given):
                raise ValidationError([Violation("input", wrong)])
            body["pause_seq"] = execution.pause.seq if execution.pause is not None else 0
            posting = Posting(self._control.new_id(), MessageKind.EDIT, by, body)
            await self._control.send(scope, execution_id, posting, request)

        await unless_asked(self._repository, scope.org, request, make, _nothing)
        return await self._repository.get_execution(scope, execution_id)

    async def edit_variables(
        self,
        scope: Scope,
        execution_id: UUID,
        given: Mapping[str, Any],
        by: str,
        request_id: str,
    ) -> Execution:
        """Set variables of an execution that is paused, and return it after that.

        Raises ValidationError, and what `Control.ask` raises.
        """
        given = await in_slices(normalising(dict(given), "vars"))
        body = {"vars": given}
        request = await in_slices(asked(Method.EDIT, request_id, by, execution_id=str(execution_id), body=body))

        async def make() -> None:
            for looks_left in reversed(range(LOOKS)):
                # Read before its variables: should it go on meanwhile, or others edit it, the edit is refused.
                execution = await self._repository.get_execution(scope, execution_id)
                seen = {
                    "pause_seq": execution.pause.seq if execution.pause is not None else 0,
                    "last_seq": execution.last_seq,
                }
                posting = Posting(self._control.new_id(), MessageKind.EDIT, by, {**body, **seen})
                admits(execution, (), posting)  # else it would be told what is wrong with what can never be
                await self._judge_variables(scope, execution, given)
                try:
                    return await self._control.send(scope, execution_id, posting, request)
                except ExecutionStateError:
                    if not looks_left:
                        raise

        await unless_asked(self._repository, scope.org, request, make, _nothing)
        return await self._repository.get_execution(scope, execution_id)

    async def _judge_variables(self, scope: Scope, execution: Execution, given: Mapping[str, Any]) -> None:
        """Raises ValidationError unless an execution may have these variables beside those that it has."""
        definition = await self._workflows.of(execution)
        detail = await self._repository.get_detail(scope, execution.id, first=1)
        before = await in_slices(gathering_variables(detail))
        known = sorted({*definition.variables, *before})
        if unknown := [name for name in given if name not in known]:
            some = f": it has {_some(known) or 'none'}"
            wrong = "is no variable of the workflow"
            raise ValidationError([Violation(f"vars.{name}", wrong, some) for name in unknown])
        if found := check({**before, **given}, "vars"):
            raise ValidationError(found)
        if wrong := _beyond(execution, definition, given):
            raise ValidationError([Violation("vars", wrong)])


async def _nothing(_: Asked) -> None:
    """Do nothing: an edit that was made is not made again."""


def _beyond(execution: Execution, definition: Definition, given: Mapping[str, Any]) -> str:
    """Return what is wrong with a value when the execution has no room to write it, empty where it has."""
    most = definition.max_bytes
    if (all_of_it := execution.bytes + EVENT_BYTES + size(given)) <= most:
        return ""
    return f"with it the execution would have written {all_of_it:,} bytes; it may write {most:,}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _unfit(spec: StepSpec, step: Step) -> str:
    """Return why the input of a step cannot be changed, empty where it can."""
    if not step.waits_for(WaitKind.BREAKPOINT):
        return "is not held by a breakpoint"
    if not isinstance(spec.action, Call):
        return NO_HANDLER
    return "" if step.is_fixed else "has parameters that cannot be had, because of which it will fail"


def check_points(definition: Definition, points: Sequence[Breakpoint]) -> Work[None]:
    """Raises ValidationError for steps that the definition does not have, and for conditions that cannot be."""
    found: list[Violation] = []
    for index, point in enumerate(points):
        found += wrong_path(definition, point.path, f"breakpoints[{index}].path")
        if point.condition:
            try:
                compile_condition(point.condition, frozenset({PARAMS}))
            except ExpressionError as error:
                found.append(Violation(f"breakpoints[{index}].condition", str(error)))
            yield _COMPILED
    if found:
        raise ValidationError(found)


def named(definition: Definition, path: str) -> StepSpec | None:
    """Return the step that a place or a path of an item names, None where there is none."""
    spec = definition.places.get(paths.place(path))
    return spec if "[" not in path or _OF_ITEM.fullmatch(path) else None


def no_step(definition: Definition, path: str, field: str) -> Violation:
    """Return what is wrong with a path that names no step."""
    return Violation(field, f"{path!r} is no step of the workflow", f": {_some(list(definition.places))}")


def wrong_path(definition: Definition, path: str, field: str) -> Iterator[Violation]:
    """Yield what is wrong with where an execution is to be held."""
    if path == EVERY:
        return
    if (spec := named(definition, path)) is None:
        yield no_step(definition, path, field)
    elif isinstance(spec.action, Repeat):
        yield Violation(field, f"runs other steps, and is not held itself: name one of them, such as {path}.…")
