"""Calls that send executions signals, and start those that do not go on."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_FULL
from service.api.errors import invalid
from service.api.executions import execution_message
from service.api.identity import current_identity
from service.api.payloads import read_struct
from service.api.starts import start_request
from service.engine.requests import StartRequest
from service.engine.signal_starts import SignalStarts
from service.engine.signalling import Correlation, Signalling
from service.engine.slices import in_slices
from service.engine.violations import violations_under


class SignalCalls:
    """The part of ExecutionServicer that sends signals."""

    _signalling: Signalling
    _signal_starts: SignalStarts

    async def SignalExecution(self, request: pb.SignalExecutionRequest, context: Any) -> pb.SignalExecutionResponse:
        caller, given = current_identity.get(), await in_slices(read_struct(request.payload))
        execution, signal_id = await self._signalling.send(
            caller.scope, _target(request), request.name, given, caller.subject, request.request_id
        )
        return pb.SignalExecutionResponse(execution=execution_message(execution), signal_id=str(signal_id))

    async def SignalWithStart(self, request: pb.SignalWithStartRequest, context: Any) -> pb.SignalWithStartResponse:
        with violations_under("start"):
            start = await _start(request.start)
        caller, given = current_identity.get(), await in_slices(read_struct(request.payload))
        sent = await self._signal_starts.send(
            caller.scope, caller.subject, start, request.name, given, request.request_id
        )
        execution = execution_message(sent.execution)
        return pb.SignalWithStartResponse(execution=execution, signal_id=str(sent.signal_id), started=sent.started)


def _target(request: pb.SignalExecutionRequest) -> UUID | Correlation:
    if request.WhichOneof("target") == "execution_id":
        return UUID(request.execution_id)
    return Correlation(request.correlation.workflow, request.correlation.correlation_id)


async def _start(request: pb.ExecuteRequest) -> StartRequest:
    """Return how an execution is to be started. Raises ValidationError for what has no meaning here."""
    if not request.correlation_id:
        raise invalid("correlation_id", "is required: it tells which execution the signal is for")
    if request.request_id:
        raise invalid("request_id", "must not be set: the request_id beside start is that of the whole call")
    if request.wait:
        raise invalid("wait", "must not be set: watch the execution, which may wait for signals that come later")
    if request.view == EXECUTION_VIEW_FULL:
        raise invalid("view", "must be BASIC: read with GetExecution what else you need")
    if request.HasField("dry_run"):
        raise invalid("dry_run", "must not be set: Execute what is to be tried, and signal it by its id")
    return start_request(request, await in_slices(read_struct(request.input)))
