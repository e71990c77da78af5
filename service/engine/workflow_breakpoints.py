"""Lets the next executions of workflows be held at breakpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from persistence.breakpoints import Breakpoint, WorkflowBreakpoints
from persistence.model import Scope, Workflow
from persistence.repository import Repository
from persistence.requests import Asked, Method
from service.engine.debugging import check_points
from service.engine.repeats import unless_asked
from service.engine.requests import asked
from service.engine.running.runner import Runner
from service.engine.slices import in_slices
from service.engine.violations import ValidationError, Violation
from service.engine.workflows import Workflows

LONGEST = timedelta(days=30)
"""For so long executions may take breakpoints up."""

USUAL = timedelta(days=1)
"""For so long they do, where nobody says."""


class NextBreakpoints:
    """Sets where the next executions of workflows are held; the store gives each its own (`Creations`)."""

    def __init__(
        self, repository: Repository, workflows: Workflows, runner: Runner, new_id: Callable[[datetime], UUID]
    ) -> None:
        self._repository = repository
        self._workflows = workflows
        self._runner = runner
        self._new_id = new_id

    async def set(
        self,
        scope: Scope,
        reference: str,
        points: Sequence[Breakpoint],
        by: str,
        request_id: str = "",
        *,
        executions: int = 0,
        until: datetime | None = None,
    ) -> Workflow:
        """Let so many of the next executions of a workflow be held, without points none; return the workflow.

        A request id that was used so before changes nothing. Raises ValidationError, WorkflowNotFoundError,
        RequestIdReusedError.
        """
        named = [[point.path, point.condition] for point in points]
        end = until.isoformat() if until is not None else ""
        asking = asked(
            Method.BREAK_WORKFLOW, request_id, by, workflow=reference, points=named, executions=executions, until=end
        )
        request = await in_slices(asking)
        now = self._runner.now()
        kept = WorkflowBreakpoints(
            self._new_id(now), by, tuple(points), now, executions or 1, until if until is not None else now + USUAL
        )

        async def make() -> Workflow:
            if points:
                _, definition = await self._workflows.resolve(scope, reference, 0)
                await in_slices(check_points(definition, points))
            if points and not now < kept.until <= now + LONGEST:
                raise ValidationError([Violation("expire_time", "must be in the future, and at most 30 days from now")])
            return await self._repository.set_workflow_breakpoints(scope, reference, kept, request)

        async def again(_: Asked) -> Workflow:
            return await self._repository.set_workflow_breakpoints(scope, reference, kept, request)

        return await unless_asked(self._repository, scope.org, request, make, again)
