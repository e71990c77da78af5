"""Which permission each RPC needs: the one table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_FULL, Breakpoint
from flowkeep.v1.execution_service_pb2 import (
    EditVariablesRequest,
    ExecuteRequest,
    ForkExecutionRequest,
    RetryRequest,
    SetBreakpointsRequest,
    SignalWithStartRequest,
)
from flowkeep.v1.step_test_pb2 import TestStepRequest
from flowkeep.v1.workflow_breakpoints_pb2 import SetWorkflowBreakpointsRequest
from flowkeep.v1.workflow_service_pb2 import PauseWorkflowRequest

READ_EXECUTIONS, SIGNAL = "executions.read", "executions.signal"
READ_WORKFLOWS, WRITE_WORKFLOWS = "workflows.read", "workflows.write"
CONTROL_EXECUTIONS = "executions.control"

READ_TASKS = "tasks.read"
"""Needed by `ExplainExecution` too, to tell whose task an execution waits for."""

PERMISSIONS: Mapping[str, str] = {
    "/flowkeep.v1.WorkflowService/CreateWorkflow": WRITE_WORKFLOWS,
    "/flowkeep.v1.WorkflowService/GetWorkflow": READ_WORKFLOWS,
    "/flowkeep.v1.WorkflowService/ListWorkflows": READ_WORKFLOWS,
    "/flowkeep.v1.WorkflowService/UpdateWorkflow": WRITE_WORKFLOWS,
    "/flowkeep.v1.WorkflowService/DeleteWorkflow": WRITE_WORKFLOWS,
    "/flowkeep.v1.WorkflowService/ApplyWorkflows": WRITE_WORKFLOWS,
    "/flowkeep.v1.WorkflowService/PauseWorkflow": WRITE_WORKFLOWS,
    "/flowkeep.v1.WorkflowService/ResumeWorkflow": WRITE_WORKFLOWS,
    "/flowkeep.v1.WorkflowService/SetWorkflowBreakpoints": CONTROL_EXECUTIONS,
    "/flowkeep.v1.WorkflowService/ValidateWorkflow": READ_WORKFLOWS,
    "/flowkeep.v1.WorkflowService/ListHandlers": READ_WORKFLOWS,
    "/flowkeep.v1.ExecutionService/Execute": "executions.execute",
    "/flowkeep.v1.ExecutionService/BatchExecute": "executions.execute",
    "/flowkeep.v1.ExecutionService/GetExecution": READ_EXECUTIONS,
    "/flowkeep.v1.ExecutionService/ListExecutions": READ_EXECUTIONS,
    "/flowkeep.v1.ExecutionService/ListSteps": READ_EXECUTIONS,
    "/flowkeep.v1.ExecutionService/GetStep": READ_EXECUTIONS,
    "/flowkeep.v1.ExecutionService/CompareExecutions": READ_EXECUTIONS,
    "/flowkeep.v1.ExecutionService/ExplainExecution": READ_EXECUTIONS,
    "/flowkeep.v1.ExecutionService/ExplainQueue": READ_EXECUTIONS,
    "/flowkeep.v1.ExecutionService/Cancel": "executions.cancel",
    "/flowkeep.v1.ExecutionService/Pause": CONTROL_EXECUTIONS,
    "/flowkeep.v1.ExecutionService/Resume": CONTROL_EXECUTIONS,
    "/flowkeep.v1.ExecutionService/SetBreakpoints": CONTROL_EXECUTIONS,
    "/flowkeep.v1.ExecutionService/EditStepInput": CONTROL_EXECUTIONS,
    "/flowkeep.v1.ExecutionService/EditVariables": CONTROL_EXECUTIONS,
    "/flowkeep.v1.ExecutionService/Terminate": "executions.cancel",
    "/flowkeep.v1.ExecutionService/Retry": "executions.execute",
    "/flowkeep.v1.ExecutionService/ForkExecution": "executions.execute",
    "/flowkeep.v1.ExecutionService/TestStep": "executions.execute",
    "/flowkeep.v1.ExecutionService/SignalExecution": SIGNAL,
    "/flowkeep.v1.ExecutionService/SignalWithStart": "executions.execute",
    "/flowkeep.v1.ExecutionService/WatchExecution": READ_EXECUTIONS,
    "/flowkeep.v1.NotificationService/ListNotifications": "notifications.read",
    "/flowkeep.v1.NotificationService/MarkNotificationsRead": "notifications.read",
    "/flowkeep.v1.NotificationService/WatchNotifications": "notifications.read",
    "/flowkeep.v1.TaskService/GetTask": READ_TASKS,
    "/flowkeep.v1.TaskService/ListTasks": READ_TASKS,
    "/flowkeep.v1.TaskService/WatchTasks": READ_TASKS,
    "/flowkeep.v1.TaskService/ClaimTask": "tasks.work",
    "/flowkeep.v1.TaskService/ReleaseTask": "tasks.work",
    "/flowkeep.v1.TaskService/CompleteTask": "tasks.work",
    "/flowkeep.v1.TaskService/DelegateTask": "tasks.work",
    "/flowkeep.v1.TaskService/CommentTask": "tasks.work",
    # To start one, and to stop it, needs the permission of its action, too.
    "/flowkeep.v1.BulkService/StartBulk": READ_EXECUTIONS,
    "/flowkeep.v1.BulkService/GetBulk": READ_EXECUTIONS,
    "/flowkeep.v1.BulkService/ListBulks": READ_EXECUTIONS,
    "/flowkeep.v1.BulkService/WatchBulk": READ_EXECUTIONS,
    "/flowkeep.v1.BulkService/StopBulk": READ_EXECUTIONS,
    "/flowkeep.v1.BulkService/ListBulkResults": READ_EXECUTIONS,
    "/flowkeep.v1.WorkerService/Work": "workers.work",
    "/flowkeep.v1.WorkerService/ListWorkers": "workers.read",
}


def also_needed(request: Any) -> Iterator[str]:
    """Yield the permissions that a request needs beside that of its RPC, for what it asks for."""
    if any(point.condition for point in _breakpoints(request)):
        yield READ_WORKFLOWS  # a condition sees what the step is called with: whether it holds would tell of that
    match request:
        case ExecuteRequest():
            if request.view == EXECUTION_VIEW_FULL:
                yield READ_EXECUTIONS  # its answer is what GetExecution shows
            dry_run = request.dry_run
            if dry_run.mocks or dry_run.handlers or dry_run.HasField("default_mock"):
                yield WRITE_WORKFLOWS  # by these, the steps that run are called with anything
        case SignalWithStartRequest():
            yield SIGNAL
        case SetWorkflowBreakpointsRequest():
            yield WRITE_WORKFLOWS  # it holds executions of others
        case PauseWorkflowRequest() if request.pause_running:
            yield CONTROL_EXECUTIONS
        case TestStepRequest():
            if request.execution_id:
                yield READ_EXECUTIONS
            is_own = request.WhichOneof("source") in ("definition", "step") or request.HasField("params")
            if is_own or any(each.fields for each in (request.outputs, request.variables, request.items)):
                yield WRITE_WORKFLOWS  # who may only run what others wrote could call anything, with their secrets
        case ForkExecutionRequest() if request.outputs or request.vars.fields:
            yield WRITE_WORKFLOWS  # as above, by what steps are called with that come after
        case EditVariablesRequest():
            yield WRITE_WORKFLOWS
        case RetryRequest() if request.HasField("skip"):
            yield WRITE_WORKFLOWS


def _breakpoints(request: Any) -> Iterable[Breakpoint]:
    match request:
        case ExecuteRequest() | SetBreakpointsRequest() | SetWorkflowBreakpointsRequest():
            return request.breakpoints
        case SignalWithStartRequest():
            return request.start.breakpoints
    return ()
