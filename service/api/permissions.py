"""Which permission each RPC needs: the one table."""

from __future__ import annotations

from collections.abc import Mapping

READ_EXECUTIONS = "executions.read"
"""Needed by `Execute` too when its answer is to show all of the execution."""

READ_TASKS = "tasks.read"
"""Needed by `ExplainExecution` too, to tell whose task an execution waits for."""

PERMISSIONS: Mapping[str, str] = {
    "/flowkeep.v1.WorkflowService/CreateWorkflow": "workflows.write",
    "/flowkeep.v1.WorkflowService/GetWorkflow": "workflows.read",
    "/flowkeep.v1.WorkflowService/ListWorkflows": "workflows.read",
    "/flowkeep.v1.WorkflowService/UpdateWorkflow": "workflows.write",
    "/flowkeep.v1.WorkflowService/DeleteWorkflow": "workflows.write",
    "/flowkeep.v1.WorkflowService/ApplyWorkflows": "workflows.write",
    "/flowkeep.v1.WorkflowService/ValidateWorkflow": "workflows.read",
    "/flowkeep.v1.WorkflowService/ListHandlers": "workflows.read",
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
    "/flowkeep.v1.ExecutionService/Pause": "executions.control",
    "/flowkeep.v1.ExecutionService/Resume": "executions.control",
    "/flowkeep.v1.ExecutionService/SetBreakpoints": "executions.control",
    "/flowkeep.v1.ExecutionService/EditStepInput": "executions.control",
    "/flowkeep.v1.ExecutionService/Terminate": "executions.cancel",
    "/flowkeep.v1.ExecutionService/Retry": "executions.execute",
    "/flowkeep.v1.ExecutionService/ForkExecution": "executions.execute",
    "/flowkeep.v1.ExecutionService/SignalExecution": "executions.signal",
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
