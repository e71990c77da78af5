"""Requests of WorkflowService, built from plain Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

from flowkeep.arguments import flag, kind, text, whole
from flowkeep.definition import definition as read_definition
from flowkeep.errors import DefinitionError, Violation
from flowkeep.requests import Breakpoints, RequestId, breakpoint_messages, request_text
from flowkeep.times import to_timestamp
from flowkeep.v1.workflow_breakpoints_pb2 import SetWorkflowBreakpointsRequest
from flowkeep.v1.workflow_pb2 import WorkflowDefinition
from flowkeep.v1.workflow_service_pb2 import (
    ApplyWorkflowsRequest,
    CreateWorkflowRequest,
    DeleteWorkflowRequest,
    PauseWorkflowRequest,
    ResumeWorkflowRequest,
    UpdateWorkflowRequest,
)

Definition: TypeAlias = WorkflowDefinition | Mapping[str, Any]
"""A definition as a message, or in the written form that `flowkeep.definition` reads."""

Definitions: TypeAlias = Definition | Iterable[Definition]
"""One or several definitions."""


def create_request(definition: Definition, request_id: RequestId = None) -> CreateWorkflowRequest:
    """Return a request of CreateWorkflow."""
    return CreateWorkflowRequest(definition=definition_message(definition), request_id=request_text(request_id))


def update_request(
    workflow: str, definition: Definition, etag: str = "", request_id: RequestId = None
) -> UpdateWorkflowRequest:
    """Return a request of UpdateWorkflow."""
    return UpdateWorkflowRequest(
        workflow=text("workflow", workflow),
        definition=definition_message(definition),
        etag=text("etag", etag),
        request_id=request_text(request_id),
    )


def apply_request(
    definitions: Definitions, validate_only: bool = False, request_id: RequestId = None
) -> ApplyWorkflowsRequest:
    """Return a request of ApplyWorkflows."""
    return ApplyWorkflowsRequest(
        definitions=definition_messages(definitions),
        validate_only=flag("validate_only", validate_only),
        request_id=request_text(request_id),
    )


def delete_request(
    workflow: str, etag: str = "", force: bool = False, request_id: RequestId = None
) -> DeleteWorkflowRequest:
    """Return a request of DeleteWorkflow."""
    return DeleteWorkflowRequest(
        workflow=text("workflow", workflow),
        etag=text("etag", etag),
        force=flag("force", force),
        request_id=request_text(request_id),
    )


def pause_workflow_request(
    workflow: str,
    reason: str = "",
    pause_running: bool = False,
    hard: bool = False,
    stop_deadline: bool = False,
    request_id: RequestId = None,
) -> PauseWorkflowRequest:
    """Return a request of PauseWorkflow."""
    return PauseWorkflowRequest(
        workflow=text("workflow", workflow),
        reason=text("reason", reason),
        pause_running=flag("pause_running", pause_running),
        hard=flag("hard", hard),
        stop_deadline=flag("stop_deadline", stop_deadline),
        request_id=request_text(request_id),
    )


def resume_workflow_request(workflow: str, reason: str = "", request_id: RequestId = None) -> ResumeWorkflowRequest:
    """Return a request of ResumeWorkflow."""
    return ResumeWorkflowRequest(
        workflow=text("workflow", workflow), reason=text("reason", reason), request_id=request_text(request_id)
    )


def workflow_breakpoints_request(
    workflow: str,
    breakpoints: Breakpoints = (),
    executions: int = 1,
    expire_time: datetime | None = None,
    request_id: RequestId = None,
) -> SetWorkflowBreakpointsRequest:
    """Return a request of SetWorkflowBreakpoints."""
    request = SetWorkflowBreakpointsRequest(
        workflow=text("workflow", workflow),
        breakpoints=breakpoint_messages(breakpoints),
        executions=whole("executions", executions),
        request_id=request_text(request_id),
    )
    if expire_time is not None:
        request.expire_time.CopyFrom(to_timestamp(expire_time))
    return request


def definition_message(definition: Definition) -> WorkflowDefinition:
    """Return a definition as a message. Raises DefinitionError for a document that is none."""
    return definition if isinstance(definition, WorkflowDefinition) else read_definition(definition)


def definition_messages(definitions: Definitions) -> list[WorkflowDefinition]:
    """Return one or several definitions as messages. Raises DefinitionError with what is wrong with all of them."""
    if isinstance(definitions, WorkflowDefinition | Mapping):
        return [definition_message(definitions)]
    given: Any = definitions
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise TypeError(f"definitions must be one or several definitions, not {kind(given)}")
    messages, violations = list[WorkflowDefinition](), list[Violation]()
    for index, definition in enumerate(definitions):
        try:
            messages.append(definition_message(definition))
        except DefinitionError as error:
            place = f"definitions[{index}]"
            violations += (Violation(f"{place}.{path}" if path else place, text) for path, text in error.violations)
    if violations:
        raise DefinitionError(violations)
    return messages
