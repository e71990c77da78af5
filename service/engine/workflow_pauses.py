"""Pauses whole workflows, and lets them go on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from persistence import failpoints
from persistence.model import Scope, Workflow
from persistence.pauses import WorkflowPausing
from persistence.repository import Repository
from persistence.requests import Method
from service.engine.requests import asked
from service.engine.running.runner import Runner
from service.engine.slices import in_slices


class WorkflowPauses:
    """Has the store pause workflows, and lets what that sent take effect here; other processes are told by the store.

    A request id that was used so before changes nothing. Raises WorkflowNotFoundError, RequestIdReusedError.
    """

    def __init__(self, repository: Repository, runner: Runner, new_id: Callable[[datetime], UUID]) -> None:
        self._repository = repository
        self._runner = runner
        self._new_id = new_id

    async def pause(
        self,
        scope: Scope,
        reference: str,
        by: str,
        reason: str,
        request_id: str = "",
        *,
        pauses_running: bool = False,
        is_hard: bool = False,
        stops_deadline: bool = False,
    ) -> Workflow:
        """Let executions of a workflow wait before they start, or also pause those that run; return the workflow."""
        how: dict[str, Any] = {
            "reason": reason,
            "running": pauses_running,
            "hard": is_hard,
            "stop_deadline": stops_deadline,
        }
        asking = asked(Method.PAUSE_WORKFLOW, request_id, by, workflow=reference, **how)
        pausing = WorkflowPausing(self._new_id(self._runner.now()), by, reason, pauses_running, is_hard, stops_deadline)
        workflow = await self._repository.pause_workflow(scope, reference, pausing, await in_slices(asking))
        await self._let_take_effect(workflow)
        return workflow

    async def resume(self, scope: Scope, reference: str, by: str, reason: str, request_id: str = "") -> Workflow:
        """Let executions of a workflow start again, and those go on that its pause has paused; return the workflow."""
        asking = asked(Method.RESUME_WORKFLOW, request_id, by, workflow=reference, reason=reason)
        workflow = await self._repository.resume_workflow(scope, reference, by, reason, await in_slices(asking))
        await self._let_take_effect(workflow)
        return workflow

    async def _let_take_effect(self, workflow: Workflow) -> None:
        await failpoints.reach("workflow.after_commit_before_delivery")
        self._runner.tasks.spawn(self._runner.take_up(workflow.id), f"take up {workflow.id}")
