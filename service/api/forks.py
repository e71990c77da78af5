"""The call that makes executions of others, and what is shown of it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1.execution_pb2 import Execution as ExecutionMessage
from persistence.errors import UnavailableError
from persistence.model import Execution, Scope
from persistence.repository import ExecutionRepository
from service.api.encoded import Encoded
from service.api.errors import invalid
from service.api.executions import execution_message
from service.api.identity import current_identity
from service.api.payloads import read_struct, read_value
from service.api.times import put_time
from service.engine.executions import Executions
from service.engine.forks import ForkRequest
from service.engine.planning.inheriting import Check, CheckKind
from service.engine.slices import in_slices

FORKS_SHOWN = 20
"""Executions made of one that the FULL view of it names."""

CHECKS_SHOWN = 100

_LONGEST_CHECK = 1_024

_Checked = pb.ForkExecutionResponse.Check
_KINDS = {kind: _Checked.Kind.Value(f"KIND_{kind.value}") for kind in CheckKind}


class ForkCalls:
    """The part of ExecutionServicer that makes executions of others."""

    _executions: Executions
    _repository: ExecutionRepository

    async def ForkExecution(self, request: pb.ForkExecutionRequest, context: Any) -> pb.ForkExecutionResponse:
        caller = current_identity.get()
        forked = await self._executions.forks.fork(
            caller.scope,
            UUID(request.execution_id),
            caller.subject,
            await read_fork(request),
            request.request_id,
            validate_only=request.validate_only,
        )
        made = None if forked.execution is None else execution_message(forked.execution)
        checks = map(_check_message, forked.checks[:CHECKS_SHOWN])
        return pb.ForkExecutionResponse(execution=made, created=forked.created, checks=checks)

    async def _with_forks(self, shown: Encoded, scope: Scope, execution_id: UUID) -> Encoded:
        """Add to the view of an execution those that were made from it, as far as they can be had now."""
        message = ExecutionMessage()
        try:
            for each in await self._repository.list_forks(scope, execution_id, FORKS_SHOWN):
                _add_fork(message, each)
        except UnavailableError:  # what was asked for is at hand
            message.unreadable.append("forks")
        shown.add(message)
        return shown


async def read_fork(request: pb.ForkExecutionRequest) -> ForkRequest:
    """Return what is asked for. Raises ValidationError for what no rule of the protos sees."""
    outputs = dict[str, Any]()
    for index, each in enumerate(request.outputs):
        if each.path in outputs:
            raise invalid(f"outputs[{index}].path", f"{each.path!r} is given twice")
        outputs[each.path] = await in_slices(read_value(each.output))
    if request.step_iteration and not request.step_path:
        raise invalid("step_iteration", "is that of a step; name it as step_path")
    return ForkRequest(
        input=await in_slices(read_struct(request.input)) if request.HasField("input") else None,
        revision=request.revision if request.HasField("revision") else None,
        path=request.step_path,
        iteration=request.step_iteration,
        vars=await in_slices(read_struct(request.vars)),
        outputs=outputs,
    )


def _add_fork(message: ExecutionMessage, fork: Execution) -> None:
    shown = execution_message(fork)
    added = message.forks.add(execution_id=shown.execution_id, state=shown.state, revision=shown.revision)
    if "create_time" not in fork.unreadable:
        put_time(added.create_time, fork.create_time)
    if fork.lineage is not None:
        added.source_step_path = fork.lineage.step_path


def _check_message(check: Check) -> _Checked:
    return _Checked(kind=_KINDS[check.kind], path=check.path, message=check.message[:_LONGEST_CHECK])
