"""Calls that hold executions, let them go on, and end them at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol
from uuid import UUID

from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1.execution_pb2 import Execution as ExecutionMessage
from persistence.model import MessageKind
from service.api.executions import execution_message
from service.api.identity import current_identity
from service.engine.control import Control


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
    """The part of ExecutionServicer that asks executions for something by a message."""

    _control: Control

    async def Pause(self, request: pb.PauseRequest, context: Any) -> pb.PauseResponse:
        how = {"hard": request.hard, "stop_deadline": request.stop_deadline}
        return pb.PauseResponse(execution=await self._asked(request, MessageKind.PAUSE, how))

    async def Resume(self, request: pb.ResumeRequest, context: Any) -> pb.ResumeResponse:
        return pb.ResumeResponse(execution=await self._asked(request, MessageKind.RESUME))

    async def Terminate(self, request: pb.TerminateRequest, context: Any) -> pb.TerminateResponse:
        return pb.TerminateResponse(execution=await self._asked(request, MessageKind.TERMINATE))

    async def _asked(
        self, request: _Asks, kind: MessageKind, how: Mapping[str, bool] | None = None
    ) -> ExecutionMessage:
        caller = current_identity.get()
        body = {"reason": request.reason, **(how or {})}
        execution_id = UUID(request.execution_id)
        execution = await self._control.ask(caller.scope, execution_id, kind, caller.subject, body, request.request_id)
        return execution_message(execution)
