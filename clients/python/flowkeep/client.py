"""The client: the calls of the service as methods, plain Python in and messages out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from functools import partial
from typing import Any, Unpack

from flowkeep.advice import Applied, Checked, log_warnings, warnings_of
from flowkeep.arguments import flag, text, texts, whole
from flowkeep.batch import Outcome, execute_all, judge_of
from flowkeep.bulk import BulkCalls
from flowkeep.channel import call_metadata
from flowkeep.control import ControlCalls
from flowkeep.errors import (
    DefinitionError,
    ExecutionFailedError,
    FlowkeepError,
    InvalidArgumentError,
    Violation,
)
from flowkeep.explaining import ExplainCalls
from flowkeep.notifications import NotificationCalls
from flowkeep.payload import Input, from_value
from flowkeep.requests import (
    ExecuteOptions,
    ListOptions,
    RequestId,
    StepState,
    cancel_request,
    compare_request,
    execute_request,
    execution_view,
    list_request,
    steps_request,
)
from flowkeep.tasks import TaskCalls
from flowkeep.trials import TrialCalls
from flowkeep.v1 import execution_service_pb2 as executions_pb2
from flowkeep.v1 import worker_service_pb2 as workers_pb2
from flowkeep.v1 import workflow_service_pb2 as workflows_pb2
from flowkeep.v1.comparison_pb2 import CompareExecutionsResponse
from flowkeep.v1.event_pb2 import ExecutionEvent, ExecutionFinished
from flowkeep.v1.execution_pb2 import Execution, ExecutionView, StepExecution, StepView
from flowkeep.v1.handler_pb2 import Handler, McpServer
from flowkeep.v1.worker_service_pb2 import Worker
from flowkeep.v1.workflow_pb2 import Workflow, WorkflowView
from flowkeep.watch import WatchCall, events_of, follow
from flowkeep.workflow_requests import (
    Definition,
    Definitions,
    apply_request,
    create_request,
    definition_message,
    delete_request,
    update_request,
)

_WAIT_SECONDS = 300.0
_TOOLS_SECONDS = 30.0  # servers are given 10 s


class Client(ControlCalls, ExplainCalls, BulkCalls, NotificationCalls, TaskCalls, TrialCalls):
    """A connection to Flowkeep, used as `async with Client("host:port") as client`.

    Every method raises FlowkeepError or a subclass (`flowkeep.errors`). A call that met a broken connection, or a
    server that is away or has too much work, is sent again, with growing pauses, until `timeout` (30 s) has passed in
    all: safe, because reads may be repeated, and each call that changes something carries a `request_id`, under which
    the server does it once and answers it as often as it comes. It is made for each call, unless one is given to say
    that the call is the same as an earlier one whose answer was lost; AlreadyExistsError (REQUEST_ID_REUSED) when that
    had other content.

    `token` is a bearer token or a function that gives a fresh one; without `tls` it travels in plain text. `options`
    are gRPC channel options. The channel opens at the first call, inside the running event loop. It goes through the
    proxy of `https_proxy` or `http_proxy`, but not to this machine or to what `no_proxy` names.

    Raises TypeError, and ValueError for a target that is no address, and for a token that no header can carry, as calls
    do for one that a function gives.
    """

    # Workflows

    async def create_workflow(self, definition: Definition, *, request_id: RequestId = None) -> Workflow:
        """Create a workflow and return it at revision 1. What should be otherwise in it is logged (`flowkeep`).

        Raises DefinitionError for a document that is no definition, AlreadyExistsError when the name is taken,
        InvalidArgumentError with all violations when the definition is not sound.
        """
        response = await self._call(self._workflows.CreateWorkflow, create_request(definition, request_id))
        log_warnings(response.workflow.name, response)
        return response.workflow

    async def update_workflow(
        self, workflow: str, definition: Definition, *, etag: str = "", request_id: RequestId = None
    ) -> Workflow:
        """Make a new revision of a workflow, by id or name, and return it. What should be otherwise in it is logged.

        Raises as `create_workflow`, NotFoundError, and FailedPreconditionError when `etag` no longer fits.
        """
        request = update_request(workflow, definition, etag, request_id)
        response = await self._call(self._workflows.UpdateWorkflow, request)
        log_warnings(response.workflow.name, response)
        return response.workflow

    async def apply(
        self, definitions: Definitions, *, validate_only: bool = False, request_id: RequestId = None
    ) -> Applied:
        """Make one or more workflows be as their definitions say, all or none; return in order what became of each.

        What holds already is UNCHANGED; `warnings` of the list has what should be otherwise in the definitions. With
        `validate_only` nothing is written, and the results say what would be done. Raises DefinitionError for documents
        that are no definitions, or with `validate_only` not sound; else InvalidArgumentError; by paths such as
        `definitions[3].steps[0].id`.
        """
        request = apply_request(definitions, validate_only, request_id)
        response = await self._call(self._workflows.ApplyWorkflows, request)
        if response.violations:
            raise DefinitionError([Violation(each.field, each.description) for each in response.violations])
        return Applied(response.results, warnings_of(response))

    async def get_workflow(self, workflow: str, *, revision: int = 0) -> Workflow:
        """Return a workflow, by id or name, at its latest or another revision. Raises NotFoundError."""
        request = workflows_pb2.GetWorkflowRequest(
            workflow=text("workflow", workflow), revision=whole("revision", revision)
        )
        return (await self._call(self._workflows.GetWorkflow, request)).workflow

    async def list_workflows(
        self, *, name_prefix: str = "", tags: Iterable[str] = (), full: bool = False, page_size: int = 0
    ) -> AsyncIterator[Workflow]:
        """Yield the workflows, newest first; with `full` each with its definition. Pages are fetched as needed."""
        request = workflows_pb2.ListWorkflowsRequest(
            name_prefix=text("name_prefix", name_prefix),
            tags=texts("tags", tags),
            page_size=whole("page_size", page_size),
            view=WorkflowView.WORKFLOW_VIEW_FULL if flag("full", full) else WorkflowView.WORKFLOW_VIEW_BASIC,
        )
        while True:
            page = await self._call(self._workflows.ListWorkflows, request)
            for workflow in page.workflows:
                yield workflow
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return

    async def delete_workflow(
        self, workflow: str, *, etag: str = "", force: bool = False, request_id: RequestId = None
    ) -> None:
        """Delete a workflow with all its executions.

        Raises NotFoundError, and FailedPreconditionError when executions have not ended, unless `force` cancels them.
        """
        await self._call(self._workflows.DeleteWorkflow, delete_request(workflow, etag, force, request_id))

    async def validate_workflow(self, definition: Definition) -> Checked:
        """Return all that is wrong with a definition, an empty list if nothing is. Keeps nothing.

        Then `warnings` of the list has what should be otherwise in it, such as a token in plain text.
        """
        try:
            request = workflows_pb2.ValidateWorkflowRequest(definition=definition_message(definition))
            response = await self._call(self._workflows.ValidateWorkflow, request)
        except DefinitionError as error:
            return Checked(error.violations)
        except InvalidArgumentError as error:
            # Rules that stand in the protos are checked before the definition is looked at as a whole.
            if not error.violations:
                raise
            return Checked(Violation(field.removeprefix("definition."), text) for field, text in error.violations)
        found = (Violation(each.field, each.description) for each in response.violations)
        return Checked(found, warnings_of(response))

    async def list_handlers(self) -> list[Handler]:
        """Return what steps can run, by name."""
        response = await self._call(self._workflows.ListHandlers, workflows_pb2.ListHandlersRequest())
        return list(response.handlers)

    async def list_mcp_servers(self) -> list[McpServer]:
        """Return the MCP servers of the deployment, by name, each with its tools or why they are not known.

        The servers are asked for them, which takes up to 10 s.
        """
        request = workflows_pb2.ListHandlersRequest(include_mcp_tools=True)
        timeout = max(self._timeout, _TOOLS_SECONDS)
        return list((await self._call(self._workflows.ListHandlers, request, timeout=timeout)).mcp_servers)

    async def list_workers(self, handler: str = "") -> list[Worker]:
        """Return the workers of the org that are connected to any server, by name; with a handler, those that have it.

        What each runs is known where it is connected to the server that answers.
        """
        request = workers_pb2.ListWorkersRequest(handler=text("handler", handler))
        return list((await self._call(self._workers.ListWorkers, request)).workers)

    # Executions

    async def execute(self, workflow: str, input: Input | None = None, **options: Unpack[ExecuteOptions]) -> Execution:
        """Start an execution and return it; `flowkeep.requests.execute_request` describes the options.

        Once this returns, the execution is kept and will reach its end. When it raises UnavailableError it may have
        started: call again with the same `request_id`. Raises NotFoundError, PayloadError for an input that payloads
        cannot carry, InvalidArgumentError for one that the workflow refuses, AlreadyExistsError for a request id that
        was used with other content, ResourceExhaustedError when the queue stays full.
        """
        return (await self.start(execute_request(workflow, input, **options))).execution

    async def start(self, request: executions_pb2.ExecuteRequest) -> executions_pb2.ExecuteResponse:
        """Send a request made by `execute_request`; the response also tells whether this call made the execution."""
        timeout = max(self._timeout, _WAIT_SECONDS) if request.wait else self._timeout
        return await self._call(
            self._executions.Execute,
            request,
            may_repeat=judge_of(request),
            timeout=timeout,
        )

    async def batch_execute(self, requests: Iterable[executions_pb2.ExecuteRequest]) -> list[Outcome]:
        """Start up to 1,000 executions by requests that `execute_request` made; return in order what became of each.

        That is the response that `start` gives, or the error that it raises; what `start` sends again is sent again.
        Raises FlowkeepError for what is wrong with the call as a whole: too many requests, or more than 4 MiB of them.
        """
        send = partial(self._call, self._executions.BatchExecute)
        return await execute_all(send, list(requests), self._timeout)

    async def get_execution(
        self,
        execution_id: str,
        view: ExecutionView.ValueType = ExecutionView.EXECUTION_VIEW_FULL,
        *,
        at_seq: int = 0,
    ) -> Execution:
        """Return an execution, with its steps and payloads in the view FULL; as it was after an event with `at_seq`.

        Raises NotFoundError; with `at_seq` OutOfRangeError beyond the newest event, and FailedPreconditionError
        (HISTORY_TOO_LARGE) where the events up to it are too many or too large: then read them with `watch`.
        """
        request = executions_pb2.GetExecutionRequest(
            execution_id=text("execution_id", execution_id),
            view=execution_view(view),
            at_seq=whole("at_seq", at_seq, bits=64),
        )
        return (await self._call(self._executions.GetExecution, request)).execution

    async def list_steps(
        self,
        execution_id: str,
        *,
        states: Iterable[StepState] = (),
        handler: str = "",
        view: StepView.ValueType = StepView.STEP_VIEW_BASIC,
        page_size: int = 0,
    ) -> AsyncIterator[StepExecution]:
        """Yield the steps of an execution in the order of the definition, with their payloads in the view FULL.

        Pages are fetched as needed, however much there is in all. Raises NotFoundError.
        """
        request = steps_request(execution_id, states=states, handler=handler, view=view, page_size=page_size)
        while True:
            page = await self.steps_page(request)
            for step in page.steps:
                yield step
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return

    async def steps_page(self, request: executions_pb2.ListStepsRequest) -> executions_pb2.ListStepsResponse:
        """Send a request made by `steps_request`; the response also tells what of the steps is not shown."""
        return await self._call(self._executions.ListSteps, request)

    async def get_step(self, execution_id: str, path: str, *, iteration: int = 0) -> executions_pb2.GetStepResponse:
        """Return a step with all of its payloads, and what of it is not shown, in its newest or another iteration.

        Raises NotFoundError.
        """
        request = executions_pb2.GetStepRequest(
            execution_id=text("execution_id", execution_id),
            path=text("path", path),
            iteration=whole("iteration", iteration),
        )
        return await self._call(self._executions.GetStep, request)

    async def compare_executions(self, execution_id: str, other_execution_id: str) -> CompareExecutionsResponse:
        """Return how another execution, of any workflow, differs from one, step by step. Raises NotFoundError."""
        return await self._call(self._executions.CompareExecutions, compare_request(execution_id, other_execution_id))

    async def list_executions(self, *, page_size: int = 0, **options: Unpack[ListOptions]) -> AsyncIterator[Execution]:
        """Yield the executions that meet all filters, newest first by default. Pages are fetched as needed."""
        request = list_request(page_size=page_size, **options)
        while True:
            page = await self._call(self._executions.ListExecutions, request)
            for execution in page.executions:
                yield execution
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return

    async def list_page(
        self, *, page_size: int = 0, page_token: str = "", count_total: bool = False, **options: Unpack[ListOptions]
    ) -> executions_pb2.ListExecutionsResponse:
        """Return one page of executions, with the token of the next page and, if asked for, the total."""
        request = list_request(page_size=page_size, page_token=page_token, count_total=count_total, **options)
        return await self._call(self._executions.ListExecutions, request)

    async def cancel(
        self, execution_id: str, reason: str = "", *, request_id: RequestId = None
    ) -> executions_pb2.CancelResponse:
        """Cancel an execution and return it with what became of each step.

        Idempotent. Raises NotFoundError, and FailedPreconditionError (EXECUTION_FINISHED) when it ended otherwise.
        """
        return await self._call(self._executions.Cancel, cancel_request(execution_id, reason, request_id))

    async def watch(
        self, execution_id: str, after_seq: int = 0, snapshot: bool = False
    ) -> AsyncGenerator[ExecutionEvent, None]:
        """Yield the events of an execution, first those that happened, up to the finished event.

        Every event after `after_seq` comes exactly once and in order, through any broken connection, for as long as it
        takes; bound it with `asyncio.timeout`. With `snapshot` only events from now on come. Raises NotFoundError,
        OutOfRangeError for a position that is not, or no longer, in the history, and errors of identity.
        """
        responses = self.watch_responses(execution_id, after_seq, snapshot)
        async with aclosing(events_of(responses)) as events:
            async for event in events:
                yield event

    def watch_responses(
        self,
        execution_id: str,
        after_seq: int = 0,
        snapshot: bool = False,
        *,
        on_break: Callable[[FlowkeepError], None] | None = None,
    ) -> AsyncGenerator[executions_pb2.WatchExecutionResponse, None]:
        """Yield what `watch` does as whole messages: the events of a transition together, bookmarks, output of steps.

        With `snapshot`, which excludes `after_seq`, the first message holds the execution as it stands. `on_break` is
        called with the error of each break and of each try after it that fails.
        """
        if snapshot and after_seq:
            raise ValueError("a watch begins after a seq or with a snapshot, not both")
        request = executions_pb2.WatchExecutionRequest(
            execution_id=text("execution_id", execution_id),
            after_seq=whole("after_seq", after_seq, bits=64),
            snapshot=flag("snapshot", snapshot),
        )
        return follow(self._open_watch, request, on_break)

    async def result(self, execution_id: str) -> Any:
        """Wait for the end of an execution and return its result as plain Python.

        Raises ExecutionFailedError when it ended otherwise than COMPLETED, and what `watch` raises.
        """
        return await self._result_of(await self.get_execution(execution_id, ExecutionView.EXECUTION_VIEW_BASIC))

    async def run(self, workflow: str, input: Input | None = None, **options: Unpack[ExecuteOptions]) -> Any:
        """Start an execution, wait for its end and return its result. Raises as `execute` and `result` do.

        An execution goes on when this call is cancelled.
        """
        return await self._result_of(await self.execute(workflow, input, **options))

    async def _result_of(self, execution: Execution) -> Any:
        # From the newest event on: of an execution that has ended, that one is the finished event.
        after_seq = max(0, execution.last_seq - 1)
        async with aclosing(self.watch(execution.execution_id, after_seq)) as events:
            async for event in events:
                if event.HasField("finished"):
                    return _outcome(execution.execution_id, event.finished)
        raise RuntimeError(f"the history of execution {execution.execution_id} ended without its finished event")

    def _open_watch(self, request: executions_pb2.WatchExecutionRequest) -> WatchCall:
        return self._executions.WatchExecution(request, metadata=call_metadata(self._token))


def _outcome(execution_id: str, finished: ExecutionFinished) -> Any:
    if finished.state != Execution.STATE_COMPLETED:
        raise ExecutionFailedError(execution_id, finished.state, finished.failure)
    return from_value(finished.result)
