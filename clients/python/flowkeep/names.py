"""The names that `import flowkeep` offers; they are imported when the first of them is asked for."""

from flowkeep.client import Client
from flowkeep.dry_runs import dry_run, failing, giving
from flowkeep.errors import (
    AlreadyExistsError,
    DefinitionError,
    ExecutionFailedError,
    FailedPreconditionError,
    FlowkeepError,
    InvalidArgumentError,
    NotFoundError,
    OutOfRangeError,
    PayloadError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    Violation,
)
from flowkeep.payload import from_struct, from_value, to_struct, to_value
from flowkeep.requests import execute_request
from flowkeep.v1.event_pb2 import ExecutionEvent
from flowkeep.v1.execution_pb2 import Execution, ExecutionView, Failure, StepExecution, StepView
from flowkeep.v1.workflow_pb2 import Workflow, WorkflowDefinition

# The functions of `flowkeep.definition` are not here: one bears the name of its module, which it would hide.
__all__ = [
    "AlreadyExistsError",
    "Client",
    "DefinitionError",
    "Execution",
    "ExecutionEvent",
    "ExecutionFailedError",
    "ExecutionView",
    "FailedPreconditionError",
    "Failure",
    "FlowkeepError",
    "InvalidArgumentError",
    "NotFoundError",
    "OutOfRangeError",
    "PayloadError",
    "PermissionDeniedError",
    "ResourceExhaustedError",
    "StepExecution",
    "StepView",
    "UnauthenticatedError",
    "UnavailableError",
    "Violation",
    "Workflow",
    "WorkflowDefinition",
    "dry_run",
    "execute_request",
    "failing",
    "from_struct",
    "from_value",
    "giving",
    "to_struct",
    "to_value",
]
