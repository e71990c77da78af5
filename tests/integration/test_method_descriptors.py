"""The servicers by method descriptor, without sockets: what each RPC answers through the whole pipeline.

grpcio-testing is made for sync servicers: it takes a coroutine for the response and reports OK. So the methods run
through a bridge on a loop of their own, and a test makes sure that the trap would be seen.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import grpc_testing
import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Struct

from flowkeep.payload import to_struct
from flowkeep.v1 import execution_service_pb2 as executions_pb
from flowkeep.v1 import step_test_pb2 as trials_pb
from flowkeep.v1 import workflow_service_pb2 as workflows_pb
from flowkeep.v1.comparison_pb2 import CompareExecutionsRequest
from flowkeep.v1.explanation_pb2 import ExplainExecutionRequest, ExplainQueueRequest
from flowkeep.v1.workflow_breakpoints_pb2 import SetWorkflowBreakpointsRequest
from persistence.memory import MemoryRepository
from service.api.admission import Admission
from service.api.execution_service import ExecutionServicer
from service.api.identity import DevelopmentAuthenticator
from service.api.large import reader
from service.api.page_tokens import PageTokens
from service.api.pipeline import Limits, Pipeline
from service.api.receiving import Receiving
from service.api.sending import Sending
from service.api.streams import StreamLimits, Streams
from service.api.workflow_service import WorkflowServicer
from service.app import running_engine
from service.config import Config
from service.engine.debugging import Debugging
from service.engine.explaining import Explaining
from service.engine.signal_starts import SignalStarts
from service.engine.signalling import Signalling
from tests.patience import PATIENCE

FILES = (workflows_pb, executions_pb)
STREAMED_OR_OF_WHAT_RUNS = (
    *("WatchExecution", "Cancel", "Pause", "Resume", "Terminate", "Retry", "SignalExecution"),
    *("SetBreakpoints", "EditStepInput", "EditVariables"),
)
SERVICES = {service.name: service for file in FILES for service in file.DESCRIPTOR.services_by_name.values()}
METHODS = {method.name: method for service in SERVICES.values() for method in service.methods}
ABSENT = "01900000-0000-7000-8000-000000000000"


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        self.loop.close()


class _Context:
    """The sync context of grpcio-testing as an aio handler sees it."""

    def __init__(self, context: Any, request: Any) -> None:
        self._context = context
        self._request = request
        self.written: list[bytes] = []

    async def read(self) -> Any:
        return self._request

    def peer(self) -> str:
        return "grpcio-testing"  # which does not know any

    async def send_initial_metadata(self, metadata: Any) -> None:
        self._context.send_initial_metadata(metadata)

    async def write(self, response: Any) -> None:
        self.written.append(response)

    async def abort_with_status(self, status: Any) -> None:
        self._context.abort(status.code, status.details)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class _Bridge:
    """A sync servicer whose methods run those of an aio one, each wrapped as the server wraps it."""

    def __init__(self, servicer: Any, service: Any, loop: _Loop) -> None:
        streams = Streams(StreamLimits(10, 10, PATIENCE))
        limits = Limits(Receiving(), Admission(10), Sending(PATIENCE), streams)
        pipeline = Pipeline(DevelopmentAuthenticator(), limits)
        for method in service.methods:
            name = f"/{service.full_name}/{method.name}"
            inner = getattr(servicer, method.name)
            if inspect.isasyncgenfunction(inner):
                setattr(self, method.name, _stream(pipeline._stream(name, inner), method, loop))
            else:
                setattr(self, method.name, _unary(pipeline._unary(name, inner), method, loop))


def _unary(call: Any, method: Any, loop: _Loop) -> Any:
    def response(request: Message, context: Any) -> Any:
        raw, _ = _called(call, request, context, loop)
        return raw if raw is None else GetMessageClass(method.output_type).FromString(raw)

    return response


def _stream(call: Any, method: Any, loop: _Loop) -> Any:
    def responses(request: Message, context: Any) -> Iterator[Any]:
        _, written = _called(call, request, context, loop)
        yield from map(GetMessageClass(method.output_type).FromString, written)

    return responses


def _called(call: Any, request: Message, context: Any, loop: _Loop) -> tuple[bytes | None, list[bytes]]:
    bridged = _Context(context, reader(type(request).FromString)(request.SerializeToString()))
    return loop.run(call(None, bridged)), bridged.written


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """Both servicers over a store in memory."""
    loop = _Loop()
    repository, config = MemoryRepository(), Config(log_level="error")
    context = running_engine(config, repository, alone=True)
    engine = loop.run(context.__aenter__())
    tokens = PageTokens(b"key")
    signalling = Signalling(repository, engine.workflows, engine.control)
    servicers = {
        "WorkflowService": WorkflowServicer(engine.workflows, engine.executions, repository, tokens),
        "ExecutionService": ExecutionServicer(
            engine.executions,
            engine.workflows,
            repository,
            tokens,
            5.0,
            engine.control,
            Debugging(repository, engine.workflows, engine.control, engine.runner.context.registry),
            signalling,
            SignalStarts(repository, engine.workflows, signalling, engine.executions.creations),
            Explaining(repository, engine.workflows, engine.runner),
        ),
    }
    bridges = {service: _Bridge(servicers[name], service, loop) for name, service in SERVICES.items()}
    yield grpc_testing.server_from_dictionary(bridges, grpc_testing.strict_real_time())
    loop.run(context.__aexit__(None, None, None))
    loop.close()


class Caller:
    """Calls methods by their descriptors."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def unary(self, name: str, request: Message) -> tuple[Any, grpc.StatusCode, str]:
        """The response, code and message of a call; grpcio-testing drops the details of an abort."""
        call = self._server.invoke_unary_unary(METHODS[name], (), request, PATIENCE)
        response, _, code, message = call.termination()
        return response, code, message

    def stream(self, name: str, request: Message) -> tuple[list[Any], grpc.StatusCode]:
        """The responses and the code of a streaming call that ends by itself."""
        call = self._server.invoke_unary_stream(METHODS[name], (), request, PATIENCE)
        _, code, _ = call.termination()
        responses = []
        while True:
            try:
                responses.append(call.take_response())
            except ValueError:
                return responses, code
            if len(responses) > 1_000:
                raise AssertionError("the stream does not end")


@pytest.fixture
def caller(server: Any) -> Caller:
    """Calls the servicers."""
    return Caller(server)


@pytest.fixture(scope="module")
def workflow(server: Any) -> str:
    """Name of a workflow."""
    definition = {"name": "contract", "steps": [{"id": "one", "handler": "transform", "params": {"value": 1}}]}
    request = workflows_pb.CreateWorkflowRequest(definition=definition)  # type: ignore[arg-type]  # a dict will do
    response, code, _ = Caller(server).unary("CreateWorkflow", request)
    assert code is grpc.StatusCode.OK
    return str(response.workflow.name)


def _requests(workflow: str, execution_id: str) -> dict[str, Message]:
    """A sound request for each RPC."""
    definition: Any = {"name": "other", "steps": [{"id": "one", "handler": "transform", "params": {"value": 1}}]}
    same: Any = {**definition, "name": workflow}
    return {
        "CreateWorkflow": workflows_pb.CreateWorkflowRequest(definition=definition),
        "GetWorkflow": workflows_pb.GetWorkflowRequest(workflow=workflow),
        "ListWorkflows": workflows_pb.ListWorkflowsRequest(),
        "UpdateWorkflow": workflows_pb.UpdateWorkflowRequest(workflow=workflow, definition=same),
        "PauseWorkflow": workflows_pb.PauseWorkflowRequest(workflow=workflow),
        "SetWorkflowBreakpoints": SetWorkflowBreakpointsRequest(workflow=workflow),
        "ResumeWorkflow": workflows_pb.ResumeWorkflowRequest(workflow=workflow),
        "ApplyWorkflows": workflows_pb.ApplyWorkflowsRequest(definitions=[same]),
        "ValidateWorkflow": workflows_pb.ValidateWorkflowRequest(definition=definition),
        "ListHandlers": workflows_pb.ListHandlersRequest(),
        "Execute": executions_pb.ExecuteRequest(workflow=workflow),
        "BatchExecute": executions_pb.BatchExecuteRequest(requests=[executions_pb.ExecuteRequest(workflow=workflow)]),
        "GetExecution": executions_pb.GetExecutionRequest(execution_id=execution_id),
        "ListExecutions": executions_pb.ListExecutionsRequest(),
        "ListSteps": executions_pb.ListStepsRequest(execution_id=execution_id),
        "GetStep": executions_pb.GetStepRequest(execution_id=execution_id, path="one"),
        "CompareExecutions": CompareExecutionsRequest(execution_id=execution_id, other_execution_id=execution_id),
        "ExplainExecution": ExplainExecutionRequest(execution_id=execution_id),
        "ExplainQueue": ExplainQueueRequest(workflow=workflow),
        "Cancel": executions_pb.CancelRequest(execution_id=execution_id),
        "Pause": executions_pb.PauseRequest(execution_id=execution_id),
        "Resume": executions_pb.ResumeRequest(execution_id=execution_id),
        "Terminate": executions_pb.TerminateRequest(execution_id=execution_id),
        "SetBreakpoints": executions_pb.SetBreakpointsRequest(execution_id=execution_id),
        "EditStepInput": executions_pb.EditStepInputRequest(execution_id=execution_id, path="one", input=Struct()),
        "EditVariables": executions_pb.EditVariablesRequest(execution_id=execution_id, vars=to_struct({"n": 1})),
        "SignalExecution": executions_pb.SignalExecutionRequest(execution_id=execution_id, name="paid"),
        "SignalWithStart": executions_pb.SignalWithStartRequest(
            start=executions_pb.ExecuteRequest(workflow=workflow, correlation_id="A-17"), name="paid"
        ),
        "Retry": executions_pb.RetryRequest(execution_id=execution_id),
        "ForkExecution": executions_pb.ForkExecutionRequest(execution_id=execution_id),
        "TestStep": trials_pb.TestStepRequest(workflow=workflow, path="one"),
        "WatchExecution": executions_pb.WatchExecutionRequest(execution_id=execution_id),
        "DeleteWorkflow": workflows_pb.DeleteWorkflowRequest(workflow="other"),
    }


def _executed(caller: Caller, workflow: str, delay: int = 0) -> str:
    request = executions_pb.ExecuteRequest(workflow=workflow, wait=not delay)
    request.start_delay.seconds = delay
    response, code, _ = caller.unary("Execute", request)
    assert code is grpc.StatusCode.OK
    return str(response.execution.execution_id)


def _message_type(name: str) -> str:
    return str(METHODS[name].output_type.full_name)


def test_each_rpc_has_a_request(workflow: str) -> None:
    assert set(_requests(workflow, ABSENT)) == set(METHODS)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in STREAMED_OR_OF_WHAT_RUNS])
def test_a_sound_request_is_answered(caller: Caller, workflow: str, name: str) -> None:
    if name == "DeleteWorkflow":
        caller.unary("CreateWorkflow", _requests(workflow, ABSENT)["CreateWorkflow"])
    requests = _requests(workflow, _executed(caller, workflow))
    response, code, _ = caller.unary(name, requests[name])
    if name == "PauseWorkflow":
        caller.unary("ResumeWorkflow", requests["ResumeWorkflow"])  # what the others start would wait
    # Without a bridge the response would be a coroutine, and the code OK all the same.
    assert isinstance(response, Message)
    assert response.DESCRIPTOR.full_name == _message_type(name)
    assert code is grpc.StatusCode.OK


@pytest.mark.parametrize("name", ["Pause", "Terminate"])
def test_what_runs_is_held_or_ended(caller: Caller, workflow: str, name: str) -> None:
    execution_id = _executed(caller, workflow, delay=3600)
    response, code, _ = caller.unary(name, _requests(workflow, execution_id)[name])
    assert code is grpc.StatusCode.OK
    ended = {"Pause": "STATE_PAUSED", "Terminate": "STATE_CANCELLED"}
    assert response.execution.State.Name(response.execution.state) == ended[name]


def test_cancel_gives_a_receipt(caller: Caller, workflow: str) -> None:
    request = executions_pb.CancelRequest(execution_id=_executed(caller, workflow, delay=3600))
    response, code, _ = caller.unary("Cancel", request)
    assert code is grpc.StatusCode.OK
    assert [receipt.effect for receipt in response.steps] == [
        executions_pb.CancelResponse.StepReceipt.EFFECT_NEVER_STARTED
    ]


def test_watch_streams_to_the_end(caller: Caller, workflow: str) -> None:
    request = executions_pb.WatchExecutionRequest(execution_id=_executed(caller, workflow))
    responses, code = caller.stream("WatchExecution", request)
    events = [event for response in responses for event in response.events.events]
    assert code is grpc.StatusCode.OK
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events[-1].WhichOneof("kind") == "finished"


def test_a_signal_has_an_id(caller: Caller, workflow: str) -> None:
    execution_id = _executed(caller, workflow, delay=3600)
    response, code, _ = caller.unary("SignalExecution", _requests(workflow, execution_id)["SignalExecution"])
    assert code is grpc.StatusCode.OK
    assert (response.execution.execution_id, len(response.signal_id)) == (execution_id, 36)


@pytest.mark.parametrize("name", ["GetExecution", "Cancel", "Pause", "Resume", "Terminate", "SignalExecution", "Retry"])
def test_an_absent_execution_is_not_found(caller: Caller, workflow: str, name: str) -> None:
    _, code, message = caller.unary(name, _requests(workflow, ABSENT)[name])
    assert (code, message) == (grpc.StatusCode.NOT_FOUND, f"execution {ABSENT} not found")
