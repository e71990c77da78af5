"""Lets the next executions of workflows be held at breakpoints."""

from __future__ import annotations

from persistence.breakpoints import WorkflowBreakpoints
from persistence.model import Scope, Workflow
from persistence.postgres import records
from persistence.postgres.commit.encoding import in_utc
from persistence.postgres.connection import Database
from persistence.postgres.requests import keep
from persistence.postgres.workflow_pauses import as_it_is
from persistence.postgres.workflows import latest, lock, note_change
from persistence.requests import Request

_SET = """
UPDATE workflows SET breakpoints = $3::jsonb || jsonb_build_object('time', to_jsonb(clock_timestamp())),
    breakpoints_left = $4, breakpoints_until = $5
WHERE org_id = $1 AND id = $2"""
_CLEAR = """
UPDATE workflows SET breakpoints = NULL, breakpoints_left = NULL, breakpoints_until = NULL
WHERE org_id = $1 AND id = $2"""


class PostgresWorkflowBreakpoints:
    """Implements `set_workflow_breakpoints` of WorkflowRepository."""

    _database: Database

    async def set_workflow_breakpoints(
        self, scope: Scope, reference: str, asked: WorkflowBreakpoints, request: Request | None = None
    ) -> Workflow:
        """See WorkflowRepository."""
        async with self._database.session() as session, session.transaction():
            if before := await keep(session, scope.org, request):
                return await as_it_is(session, scope.org, before)
            row = await lock(session, scope, reference)
            key = scope.org, row["id"]
            if asked.points:
                points = [{"path": point.path, "condition": point.condition} for point in asked.points]
                kept = records.encoded({"id": str(asked.id), "by": asked.by, "points": points}).decode()
                await session.execute(_SET, *key, kept, asked.left, in_utc(asked.until))
            else:
                await session.execute(_CLEAR, *key)
            await note_change(session, scope.org, request, row["id"])
            return await latest(session, *key)
