"""The servicer of WorkflowService: reads the request, makes one call, builds the response."""

from __future__ import annotations

from typing import Any

from flowkeep.v1 import workflow_breakpoints_pb2 as points_pb
from flowkeep.v1 import workflow_service_pb2 as pb
from flowkeep.v1.workflow_pb2 import WORKFLOW_VIEW_FULL
from flowkeep.v1.workflow_service_pb2_grpc import WorkflowServiceServicer
from persistence.listing import PageKey, WorkflowFilter
from persistence.repository import WorkflowRepository
from service.api.breakpoints import next_breakpoints, read_breakpoints
from service.api.claims import READ_WORKFLOWS
from service.api.definitions import (
    bare_message,
    document,
    documents,
    handler_message,
    result_message,
    violation_messages,
    warning_messages,
    workflow_message,
)
from service.api.identity import current_identity
from service.api.mcp_tools import server_messages
from service.api.page_tokens import PageTokens
from service.api.paging import fitting_in_slices, page_limit
from service.api.times import moment
from service.engine.executions import Executions
from service.engine.plain_secrets import MOST as MOST_WARNINGS
from service.engine.slices import in_slices
from service.engine.violations import ValidationError, violations_under
from service.engine.workflows import Workflows


class WorkflowServicer(WorkflowServiceServicer):
    """Workflows over gRPC."""

    def __init__(
        self, workflows: Workflows, executions: Executions, repository: WorkflowRepository, tokens: PageTokens
    ) -> None:
        self._workflows = workflows
        self._executions = executions
        self._repository = repository
        self._tokens = tokens

    async def CreateWorkflow(self, request: pb.CreateWorkflowRequest, context: Any) -> pb.CreateWorkflowResponse:
        caller = current_identity.get()
        with violations_under("definition"):
            given = await in_slices(document(request.definition))
            workflow = await self._workflows.create(caller.org, given, caller.subject, request.request_id)
        shown = workflow_message(workflow, full=caller.may(READ_WORKFLOWS))
        warned = warning_messages(await self._workflows.warnings(given))
        return pb.CreateWorkflowResponse(workflow=await in_slices(shown), warnings=warned)

    async def GetWorkflow(self, request: pb.GetWorkflowRequest, context: Any) -> pb.GetWorkflowResponse:
        scope = current_identity.get().scope
        workflow = await self._repository.get_workflow(scope, request.workflow, request.revision)
        shown = await in_slices(workflow_message(workflow, full=True))
        return pb.GetWorkflowResponse(workflow=shown, breakpoints=next_breakpoints(workflow))

    async def ListWorkflows(self, request: pb.ListWorkflowsRequest, context: Any) -> pb.ListWorkflowsResponse:
        scope, limit = current_identity.get().scope, page_limit(request.page_size)
        after = self._tokens.read(request.page_token, request, scope)
        where = WorkflowFilter(request.name_prefix, tuple(request.tags))
        found = await self._repository.list_workflows(scope, where, after.id if after else None, limit + 1)
        full = request.view == WORKFLOW_VIEW_FULL
        page = await fitting_in_slices(workflow_message(each, full=full) for each in found[:limit])
        response = pb.ListWorkflowsResponse(workflows=page)
        if len(found) > len(page):
            response.next_page_token = self._tokens.make(request, scope, PageKey(None, found[len(page) - 1].id))
        return response

    async def UpdateWorkflow(self, request: pb.UpdateWorkflowRequest, context: Any) -> pb.UpdateWorkflowResponse:
        caller = current_identity.get()
        with violations_under("definition"):
            given = await in_slices(document(request.definition))
            workflow = await self._workflows.update(
                caller.scope,
                request.workflow,
                given,
                request.etag,
                caller.subject,
                request.request_id,
            )
        shown = workflow_message(workflow, full=caller.may(READ_WORKFLOWS))
        warned = warning_messages(await self._workflows.warnings(given))
        return pb.UpdateWorkflowResponse(workflow=await in_slices(shown), warnings=warned)

    async def ApplyWorkflows(self, request: pb.ApplyWorkflowsRequest, context: Any) -> pb.ApplyWorkflowsResponse:
        caller, dry_run = current_identity.get(), request.validate_only
        try:
            given = await in_slices(documents(request.definitions))
            applied = await self._workflows.apply(
                caller.org, given, caller.subject, request.request_id, dry_run=dry_run
            )
        except ValidationError as error:
            if not dry_run:
                raise
            return pb.ApplyWorkflowsResponse(violations=violation_messages(error.violations))
        response = pb.ApplyWorkflowsResponse(results=[result_message(each, kept=not dry_run) for each in applied])
        for index, each in enumerate(given):
            warned = warning_messages(await self._workflows.warnings(each), f"definitions[{index}]")
            response.warnings.extend(warned)
        del response.warnings[MOST_WARNINGS:]
        return response

    async def DeleteWorkflow(self, request: pb.DeleteWorkflowRequest, context: Any) -> pb.DeleteWorkflowResponse:
        caller = current_identity.get()
        await self._executions.delete_workflow(
            caller.scope, request.workflow, request.etag, request.force, caller.subject, request.request_id
        )
        return pb.DeleteWorkflowResponse()

    async def PauseWorkflow(self, request: pb.PauseWorkflowRequest, context: Any) -> pb.PauseWorkflowResponse:
        caller = current_identity.get()
        workflow = await self._executions.pauses.pause(
            caller.scope,
            request.workflow,
            caller.subject,
            request.reason,
            request.request_id,
            pauses_running=request.pause_running,
            is_hard=request.hard,
            stops_deadline=request.stop_deadline,
        )
        return pb.PauseWorkflowResponse(workflow=bare_message(workflow))

    async def ResumeWorkflow(self, request: pb.ResumeWorkflowRequest, context: Any) -> pb.ResumeWorkflowResponse:
        caller = current_identity.get()
        workflow = await self._executions.pauses.resume(
            caller.scope, request.workflow, caller.subject, request.reason, request.request_id
        )
        return pb.ResumeWorkflowResponse(workflow=bare_message(workflow))

    async def SetWorkflowBreakpoints(
        self, request: points_pb.SetWorkflowBreakpointsRequest, context: Any
    ) -> points_pb.SetWorkflowBreakpointsResponse:
        caller = current_identity.get()
        workflow = await self._executions.next_breakpoints.set(
            caller.scope,
            request.workflow,
            read_breakpoints(request.breakpoints),
            caller.subject,
            request.request_id,
            executions=request.executions,
            until=moment(request.expire_time) if request.HasField("expire_time") else None,
        )
        return points_pb.SetWorkflowBreakpointsResponse(breakpoints=next_breakpoints(workflow))

    async def ValidateWorkflow(self, request: pb.ValidateWorkflowRequest, context: Any) -> pb.ValidateWorkflowResponse:
        org = current_identity.get().org
        try:
            warned = await self._workflows.validate(org, await in_slices(document(request.definition)))
        except ValidationError as error:
            return pb.ValidateWorkflowResponse(violations=violation_messages(error.violations))
        return pb.ValidateWorkflowResponse(warnings=warning_messages(warned))

    async def ListHandlers(self, request: pb.ListHandlersRequest, context: Any) -> pb.ListHandlersResponse:
        org = current_identity.get().org
        shown = await self._workflows.handlers(org)
        response = pb.ListHandlersResponse(handlers=[handler_message(each) for each in shown])
        if request.include_mcp_tools:
            found = await self._workflows.mcp_offers(org)
            response.mcp_servers.extend(await in_slices(server_messages(found)))
        return response
