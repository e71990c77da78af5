"""A real gRPC server that follows a script, to try the client on."""

import asyncio
from contextlib import asynccontextmanager

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

import flowkeep
from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1.event_pb2 import ExecutionCreated, ExecutionEvent, ExecutionFinished, StepStarted
from flowkeep.v1.execution_pb2 import Execution
from flowkeep.v1.execution_service_pb2_grpc import (
    ExecutionServiceServicer,
    add_ExecutionServiceServicer_to_server,
)
from flowkeep.v1.workflow_service_pb2_grpc import WorkflowServiceServicer, add_WorkflowServiceServicer_to_server

ID = "01930000-0000-7000-8000-000000000000"
Code = grpc.StatusCode


def history(length=9, finished=None):
    """A history of transitions of three events each, ending with `finished`."""
    finished = finished or ExecutionFinished(
        state=Execution.STATE_COMPLETED, result=flowkeep.to_value({"total": 3, "tags": []})
    )
    events = [ExecutionEvent(seq=1, created=ExecutionCreated(workflow_name="onboarding"))]
    events += [ExecutionEvent(seq=seq, step_started=StepStarted(path=f"s{seq}")) for seq in range(2, length)]
    events.append(ExecutionEvent(seq=length, finished=finished))
    for event in events:
        event.transition_seq = min(length, (event.seq + 2) // 3 * 3)
    return events


class Script(ExecutionServiceServicer, WorkflowServiceServicer):
    """Answers each watch with the next scene, and then honestly; counts what it was asked."""

    def __init__(self, *scenes, events=None):
        self.scenes = list(scenes)
        self.events = events or history()
        self.watches = []
        self.requests = []
        self.batches = []  # the errors of each batch's requests, None for one that is started
        self.refusals = []  # what unary calls are answered with before they succeed
        self.cancelled = asyncio.Event()

    def messages(self, after_seq):
        """What an honest server sends: whole transitions, cut at the position asked for."""
        for end in sorted({event.transition_seq for event in self.events}):
            part = [event for event in self.events if event.transition_seq == end and event.seq > after_seq]
            if part:
                yield pb.WatchExecutionResponse(events=pb.EventBatch(events=part))

    async def WatchExecution(self, request, context):
        self.watches.append((request.after_seq, request.snapshot))
        scene = self.scenes.pop(0) if self.scenes else self.honest
        try:
            async for response in scene(self, request, context):
                yield response
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    @staticmethod
    async def honest(script, request, context):
        for message in script.messages(request.after_seq):
            yield message
        yield pb.WatchExecutionResponse(bookmark=pb.Bookmark(seq=len(script.events)))

    async def _answer(self, request, context, response):
        self.requests.append(request)
        if self.refusals:
            await context.abort(*self.refusals.pop(0))
        return response

    async def Execute(self, request, context):
        execution = Execution(execution_id=ID, last_seq=1, request_id=request.request_id)
        return await self._answer(request, context, pb.ExecuteResponse(execution=execution, created=True))

    async def BatchExecute(self, request, context):
        outcomes = self.batches.pop(0) if self.batches else [None] * len(request.requests)
        response = pb.BatchExecuteResponse()
        for each, error in zip(request.requests, outcomes, strict=True):
            if error is None:
                execution = Execution(execution_id=ID, last_seq=1, request_id=each.request_id)
                response.results.add(response=pb.ExecuteResponse(execution=execution, created=True))
            else:
                response.results.add(error=error)
        return await self._answer(request, context, response)

    async def GetExecution(self, request, context):
        execution = Execution(execution_id=ID, last_seq=len(self.events))
        return await self._answer(request, context, pb.GetExecutionResponse(execution=execution))

    async def ListExecutions(self, request, context):
        page = int(request.page_token or "0")
        executions = [Execution(execution_id=f"{page}-{index}") for index in range(2)]
        token = str(page + 1) if page < 2 else ""
        return await self._answer(
            request, context, pb.ListExecutionsResponse(executions=executions, next_page_token=token)
        )

    async def CreateWorkflow(self, request, context):
        return await self._answer(request, context, None)

    SignalExecution = CreateWorkflow
    TestStep = ForkExecution = CreateWorkflow
    SignalExecution = SignalWithStart = SetBreakpoints = EditStepInput = EditVariables = CreateWorkflow
    PauseWorkflow = ResumeWorkflow = SetWorkflowBreakpoints = CreateWorkflow
    Retry = Pause = Resume = Terminate = Cancel = UpdateWorkflow = DeleteWorkflow = ApplyWorkflows = CreateWorkflow

    # The stubs declare these abstract; no test calls them.
    ExplainQueue = ExplainExecution = CompareExecutions = None  # type: ignore[assignment]
    GetStep = ListSteps = GetWorkflow = ListWorkflows = ValidateWorkflow = ListHandlers = None  # type: ignore[assignment]


async def start(script, target):
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    add_ExecutionServiceServicer_to_server(script, server)
    add_WorkflowServiceServicer_to_server(script, server)
    port = server.add_insecure_port(target)
    await server.start()
    return server, port


@asynccontextmanager
async def serving(script, target="localhost:0", **options):
    """A client of a server that follows the script."""
    server, port = await start(script, target)
    address = target if target.startswith("unix:") else f"localhost:{port}"
    try:
        async with flowkeep.Client(address, **options) as client:
            yield client
    finally:
        await server.stop(None)


def breaking(code, message="", after=0, details=()):
    """A scene that sends `after` messages and then ends the stream with an error."""

    async def scene(script, request, context):
        for message_, _ in zip(script.messages(request.after_seq), range(after), strict=False):
            yield message_
        await abort(context, code, message, details)

    return scene


async def abort(context, code, message, details):
    if not details:
        await context.abort(code, message)
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    await context.abort_with_status(rpc_status.to_status(status))


RETRY_SOON = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=1_000_000))
