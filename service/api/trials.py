"""The call that runs one step by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

from flowkeep.v1 import step_test_pb2 as pb
from flowkeep.v1.workflow_pb2 import ORDERING_GRAPH, ORDERING_SEQUENTIAL, WorkflowDefinition
from flowkeep.v1.workflow_pb2 import Step as StepMessage
from persistence.gate import Gate
from persistence.model import ExecutionDetail, Scope
from persistence.repository import ExecutionRepository
from service.api.claims import DEBUG, READ_WORKFLOWS
from service.api.definitions import document
from service.api.encoded import Encoded, tag
from service.api.errors import invalid
from service.api.identity import current_identity
from service.api.payloads import read_struct
from service.api.steps import Sight, outline, payloads
from service.engine.executions import Executions
from service.engine.history import History
from service.engine.paths import place
from service.engine.planning.one_step import Given
from service.engine.slices import in_slices
from service.engine.trials import MOST_RECORDED, MOST_STEPS, Source, StepNotTestedError, Tried
from service.engine.violations import ValidationError, Violation, violations_under
from service.engine.workflows import Workflows

_STEP = tag(pb.TestStepResponse, "step")

_SMALL = 256 << 10

MOST_OUTPUTS = 500
"""Outputs that a single step may refer to: as many as a workflow may have steps."""


class TrialCalls:
    """The part of ExecutionServicer that tries definitions."""

    _executions: Executions
    _workflows: Workflows
    _repository: ExecutionRepository
    _history: History
    _large: Gate
    _time_to_wait: Callable[[Any], float]

    async def TestStep(self, request: pb.TestStepRequest, context: Any) -> Any:  # put together from bytes
        caller, left = current_identity.get(), self._time_to_wait(context)
        path = request.path or request.step.id
        if not path:
            raise invalid("path", "is required")
        try:
            async with asyncio.timeout(left):
                source, given = await self._source(caller.org, request), await self._given(caller.scope, request)
                tried = await self._executions.trials.run(caller.scope, caller.subject, source, path, given)
        except TimeoutError:
            why = f"it took more than {left:g} s, as long as the call had; its attempt was told to stop"
            raise StepNotTestedError(path, "", why) from None
        is_own = request.WhichOneof("source") in ("definition", "step")
        return await _response(tried, Sight(caller.may(DEBUG), is_own or caller.may(READ_WORKFLOWS)))

    async def _source(self, org: str, request: pb.TestStepRequest) -> Source:
        match request.WhichOneof("source"):
            case "definition":
                with violations_under("definition"):
                    given = await in_slices(document(request.definition))
                    return Source(definition=await self._workflows.parsed(org, given))
            case "step":
                if len(request.outputs.fields) > MOST_OUTPUTS:
                    raise invalid("outputs", f"must be of at most {MOST_OUTPUTS:,} steps")
                around = _around(request.step, request.outputs.fields)
                try:
                    given = await in_slices(document(around))
                    return Source(definition=await self._workflows.parsed(org, given))
                except ValidationError as error:
                    last = len(around.steps) - 1
                    raise ValidationError([_of_step(each, last) for each in error.violations]) from None
        return Source(request.workflow, request.revision)

    async def _given(self, scope: Scope, request: pb.TestStepRequest) -> Given:
        return Given(
            input=await in_slices(read_struct(request.input)) if request.HasField("input") else None,
            variables=await in_slices(read_struct(request.variables)),
            outputs=await in_slices(read_struct(request.outputs)),
            items=await in_slices(read_struct(request.items)),
            params=await in_slices(read_struct(request.params)) if request.HasField("params") else None,
            recorded=await self._recorded(scope, request),
        )

    async def _recorded(self, scope: Scope, request: pb.TestStepRequest) -> ExecutionDetail | None:
        if not request.execution_id:
            if request.at_seq:
                raise invalid("at_seq", "is that of an execution; give execution_id, too")
            return None
        execution_id = UUID(request.execution_id)
        async with AsyncExitStack() as places:

            async def wait_for_turn() -> None:
                await places.enter_async_context(self._large.place(scope.org))

            if request.at_seq:
                return await self._history.at(
                    scope, execution_id, request.at_seq, has_steps=True, small=_SMALL, beyond=wait_for_turn
                )
            first = MOST_STEPS + 1
            detail = await self._repository.get_detail(scope, execution_id, _SMALL, first=first)
            if not detail.omitted:
                return detail
            await wait_for_turn()
            return await self._repository.get_detail(scope, execution_id, MOST_RECORDED, first=first)


def _around(step: StepMessage, outputs: Iterable[str]) -> WorkflowDefinition:
    """Return a definition in which a step, the last one, may refer to others of which there is only the output."""
    others = [StepMessage(id=name, handler="transform") for name in sorted(outputs) if name != step.id]
    for other in others:
        other.params["value"] = None
    ordering = ORDERING_GRAPH if step.depends_on else ORDERING_SEQUENTIAL
    return WorkflowDefinition(name="step-test", ordering=ordering, steps=[*others, step])


def _of_step(violation: Violation, last: int) -> Violation:
    """Return a violation of a definition as one of its last step, of which it was made."""
    return violation.under(violation.field.replace(f"steps[{last}]", "step", 1) or "step")


async def _response(tried: Tried, sight: Sight) -> bytes:
    gaps, response = list[str](), Encoded()
    content = await payloads(tried.step, sight, gaps)
    content.add(outline(tried.step, tried.definition.places[place(tried.step.path)], tried.definition, sight))
    response.add_field(_STEP, content)
    response.add(
        pb.TestStepResponse(
            next_steps=[
                pb.TestStepResponse.NextStep(
                    path=each.path,
                    runs=each.runs,
                    error=each.error if sight.definition or not each.error else "its condition cannot be evaluated",
                )
                for each in tried.following
            ],
            definition_withheld=not sight.definition,
            unreadable=gaps,
        )
    )
    return response.serialized()
