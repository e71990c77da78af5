"""Lets the next executions of workflows be held at breakpoints."""

from __future__ import annotations

from msgspec.structs import replace

from persistence.breakpoints import WorkflowBreakpoints
from persistence.memory import invariants
from persistence.memory.tables import Tables
from persistence.memory.workflow_pauses import as_it_is
from persistence.memory.workflows import current, fresh
from persistence.model import Scope, Workflow
from persistence.requests import Request


class MemoryWorkflowBreakpoints:
    """Implements `set_workflow_breakpoints` of WorkflowRepository."""

    _tables: Tables

    async def set_workflow_breakpoints(
        self, scope: Scope, reference: str, asked: WorkflowBreakpoints, request: Request | None = None
    ) -> Workflow:
        """See WorkflowRepository."""
        if (first := self._tables.known(scope.org, request)) is not None:
            return as_it_is(self._tables, first.workflow_id)
        row = current(self._tables, scope.org, reference)
        invariants.check_text(asked.by, *(text for point in asked.points for text in (point.path, point.condition)))
        row.breakpoints = replace(asked, time=self._tables.now()) if asked.points else None
        self._tables.keep(scope.org, request, workflow_id=row.latest.id)
        return fresh(row, now=self._tables.now())
