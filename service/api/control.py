"""Calls that hold executions, let them go on, and end them at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol
from uuid import UUID

from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1.execution_pb2 import Execution as ExecutionMessage
from persistence.model import MessageKind
from service.api.breakpoints import read_breakpoints
from service.api.claims import WRITE_WORKFLOWS
from service.api.errors import invalid
from service.api.executions import execution_message
from service.api.identity import current_identity
from service.api.payloads import read_struct
from service.engine.control import Control
from service.engine.debugging import Debugging
from service.engine.slices import in_slices


class _Asks(Protocol):
    """What the requests have in common."""

    @property
    def execution_id(self) -> str:
        """Id of the execution."""
        ...

    @property
    def reason(self) -> str:
        """Why, for the history."""
        ...

    @property
    def request_id(self) -> str:
        """Id of the request, or empty."""
        ...


class ControlCalls:
    """The part of ExecutionServicer that sends executions messages."""

    _control: Control
    _debugging: Debugging

    async def Pause(self, request: pb.PauseRequest, context: Any) -> pb.PauseResponse:
        how = {"hard": request.hard, "stop_deadline": request.stop_deadline}
        return pb.PauseResponse(execution=await self._asked(request, MessageKind.PAUSE, how))

    async def Resume(self, request: pb.ResumeRequest, context: Any) -> pb.ResumeResponse:
        caller, halt = current_identity.get(), request.WhichOneof("halt")
        how: dict[str, Any] = {str(halt): getattr(request, halt)} if halt else {}
        execution = await self._debugging.resume(
            caller.scope, UUID(request.execution_id), caller.subject, request.reason, how, request.request_id
        )
        return pb.ResumeResponse(execution=execution_message(execution))

    async def SetBreakpoints(self, request: pb.SetBreakpointsRequest, context: Any) -> pb.SetBreakpointsResponse:
        caller, points = current_identity.get(), read_breakpoints(request.breakpoints)
        execution_id = UUID(request.execution_id)
        execution = await self._debugging.set_breakpoints(
            caller.scope, execution_id, points, caller.subject, request.request_id
        )
        return pb.SetBreakpointsResponse(execution=execution_message(execution))

    async def EditStepInput(self, request: pb.EditStepInputRequest, context: Any) -> pb.EditStepInputResponse:
        if not request.HasField("input"):
            raise invalid("input", "is required")
        caller, given = current_identity.get(), await in_slices(read_struct(request.input))
        execution = await self._debugging.edit_input(
            caller.scope,
            UUID(request.execution_id),
            request.path,
            given,
            caller.subject,
            request.request_id,
            moves_secrets=caller.may(WRITE_WORKFLOWS),
        )
        return pb.EditStepInputResponse(execution=execution_message(execution))

    async def EditVariables(self, request: pb.EditVariablesRequest, context: Any) -> pb.EditVariablesResponse:
        if not request.vars.fields:
            raise invalid("vars", "is required: the variables to set, and their values")
        caller, given = current_identity.get(), await in_slices(read_struct(request.vars))
        execution = await self._debugging.edit_variables(
            caller.scope,
            UUID(request.execution_id),
            given,
            caller.subject,
            request.request_id,
        )
        return pb.EditVariablesResponse(execution=execution_message(execution))

    async def Terminate(self, request: pb.TerminateRequest, context: Any) -> pb.TerminateResponse:
        return pb.TerminateResponse(execution=await self._asked(request, MessageKind.TERMINATE))

    async def _asked(self, request: _Asks, kind: MessageKind, how: Mapping[str, Any] | None = None) -> ExecutionMessage:
        caller = current_identity.get()
        body = {"reason": request.reason, **(how or {})}
        execution_id = UUID(request.execution_id)
        execution = await self._control.ask(caller.scope, execution_id, kind, caller.subject, body, request.request_id)
        return execution_message(execution)
