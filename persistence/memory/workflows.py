"""Workflows and their revisions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from persistence.errors import (
    EtagMismatchError,
    NameTakenError,
    PersistenceError,
    RevisionNotFoundError,
    WorkflowInUseError,
    WorkflowNotFoundError,
)
from persistence.listing import WorkflowFilter
from persistence.memory import invariants, people
from persistence.memory.executions import ask_to_cancel
from persistence.memory.json import copied, same
from persistence.memory.tables import ExecutionRow, Tables, WorkflowRow
from persistence.model import Applied, ExecutionState, Outcome, Scope, Workflow
from persistence.requests import REMEMBERED, Request


class MemoryWorkflows:
    """Implements WorkflowRepository."""

    _tables: Tables
    _forgotten_to: datetime | None = None

    async def create_workflow(
        self, org: str, workflow_id: UUID, document: Mapping[str, Any], created_by: str, request: Request | None = None
    ) -> Workflow:
        """See WorkflowRepository."""
        if first := self._change(org, request):
            return first[0].workflow
        name = document["name"]
        if _by_name(self._tables, org, name) is not None:
            raise NameTakenError(name)
        workflow = self._first_revision(org, workflow_id, document, created_by)
        self._tables.workflows[workflow_id] = WorkflowRow([workflow])
        self._keep(org, request, [Applied(workflow, Outcome.CREATED)])
        return fresh(self._tables.workflows[workflow_id], now=self._tables.now())

    async def get_workflow(self, scope: Scope, reference: str, revision: int = 0) -> Workflow:
        """See WorkflowRepository."""
        row = _by_id(self._tables, scope.org, reference)
        if row is not None and row.is_deleted and next(self._tables.executions_of(row.latest.id), None) is None:
            row = None
        row = row or _by_name(self._tables, scope.org, reference)
        if row is None:
            raise WorkflowNotFoundError(reference)
        if not 0 <= revision <= len(row.revisions):
            raise RevisionNotFoundError(reference, revision)
        return replace(fresh(row, revision, now=self._tables.now()), etag=row.latest.etag)

    async def list_workflows(
        self, scope: Scope, where: WorkflowFilter, after: UUID | None, limit: int
    ) -> Sequence[Workflow]:
        """See WorkflowRepository."""
        rows = (row for row in self._tables.workflows.values() if not row.is_deleted)
        found = [row for row in rows if row.latest.org == scope.org and _matches(row.latest, where)]
        found.sort(key=lambda row: row.latest.id, reverse=True)
        return [fresh(row, now=self._tables.now()) for row in found if after is None or row.latest.id < after][:limit]

    async def update_workflow(
        self,
        scope: Scope,
        reference: str,
        document: Mapping[str, Any],
        etag: str,
        updated_by: str,
        request: Request | None = None,
    ) -> Workflow:
        """See WorkflowRepository."""
        if first := self._change(scope.org, request):
            return first[0].workflow
        row = current(self._tables, scope.org, reference, etag)
        invariants.check_text(updated_by)
        workflow = self._next_revision(row.latest, document, updated_by)
        row.revisions.append(workflow)
        self._keep(scope.org, request, [Applied(workflow, Outcome.UPDATED)])
        return fresh(row, now=self._tables.now())

    async def apply_workflows(
        self,
        org: str,
        documents: Sequence[tuple[UUID, Mapping[str, Any]]],
        applied_by: str,
        request: Request | None = None,
        *,
        dry_run: bool = False,
    ) -> Sequence[Applied]:
        """See WorkflowRepository."""
        if first := None if dry_run else self._change(org, request):
            return first
        if len({document["name"] for _, document in documents}) < len(documents):
            raise PersistenceError("two documents have one name")
        # All that can be refused is, before anything is written.
        applied = [self._applied(org, workflow_id, document, applied_by) for workflow_id, document in documents]
        for each in () if dry_run else applied:
            if each.outcome is Outcome.CREATED:
                self._tables.workflows[each.workflow.id] = WorkflowRow([each.workflow])
            elif each.outcome is Outcome.UPDATED:
                self._tables.workflows[each.workflow.id].revisions.append(each.workflow)
        if not dry_run:
            self._keep(org, request, applied)
        return [replace(each, workflow=self._as_applied(each.workflow)) for each in applied]

    async def delete_workflow(
        self,
        scope: Scope,
        reference: str,
        etag: str,
        force: bool,
        deleted_by: str,
        request: Request | None = None,
    ) -> UUID:
        """See WorkflowRepository."""
        if (first := self._tables.known(scope.org, request)) is not None and first.workflow_id is not None:
            return first.workflow_id
        row = current(self._tables, scope.org, reference, etag)
        workflow = row.latest
        running = [row for row in self._tables.executions_of(workflow.id) if not row.execution.state.is_end]
        if running and not force:
            raise WorkflowInUseError(reference, len(running))
        for execution in running:
            ask_to_cancel(self._tables, execution, deleted_by, f"workflow {workflow.name!r} was deleted")
        row.is_deleted = True
        self._tables.keep(scope.org, request, workflow_id=workflow.id)
        return workflow.id

    async def find_change(self, org: str, request: Request) -> Sequence[Applied] | None:
        """See WorkflowRepository."""
        return self._change(org, request)

    async def reap(self, limit: int) -> int:
        """See WorkflowRepository."""
        tables = self._tables
        deleted = {workflow_id for workflow_id, row in tables.workflows.items() if row.is_deleted}
        reaped = [row.execution.id for row in tables.executions.values() if _is_left(row, deleted)][:limit]
        for execution_id in reaped:
            del tables.executions[execution_id]
            people.remove(tables, execution_id)
        open_ones = {(row.execution.org, row.execution.id) for row in tables.executions.values() if _is_open(row)}
        for org, execution_id in tables.messages.keys() - open_ones:
            row = tables.executions.get(execution_id)
            if row is None or row.execution.state is ExecutionState.COMPLETED:
                del tables.messages[org, execution_id]
            else:
                tables.leave_signals(org, execution_id)  # a retry may find them still
        for workflow_id in deleted - {row.execution.workflow_id for row in tables.executions.values()}:
            del tables.workflows[workflow_id]
        return len(reaped)

    async def forget(self, limit: int) -> int:
        """See WorkflowRepository."""
        tables, oldest = self._tables, self._tables.now() - REMEMBERED
        old = sorted((kept.create_time, key) for key, kept in tables.requests.items() if kept.create_time < oldest)
        following = [each for each in old if self._forgotten_to is None or each[0] > self._forgotten_to]
        looked_at = [each for each in following if each[0] <= following[:limit][-1][0]]
        forgotten = [key for _, key in looked_at if tables.requests[key].execution_id not in tables.executions]
        for key in forgotten:
            del tables.requests[key]
        self._forgotten_to = looked_at[-1][0] if len(looked_at) >= limit else None
        return len(forgotten)

    def _change(self, org: str, request: Request | None) -> Sequence[Applied] | None:
        first = self._tables.known(org, request)
        if first is None:
            return None
        answer = []
        for workflow_id, revision, outcome in first.revisions:
            if (row := self._tables.workflows.get(workflow_id)) is None:
                raise WorkflowNotFoundError(str(workflow_id))
            answer.append(Applied(fresh(row, revision, now=self._tables.now()), outcome))
        return answer

    def _keep(self, org: str, request: Request | None, applied: Sequence[Applied]) -> None:
        revisions = [(each.workflow.id, each.workflow.revision, each.outcome) for each in applied]
        self._tables.keep(org, request, revisions=revisions)

    def _as_applied(self, workflow: Workflow) -> Workflow:
        """Return a revision, which was perhaps not kept."""
        row = self._tables.workflows.get(workflow.id)
        if row is None:
            return replace(workflow, document=copied(workflow.document))
        now = fresh(row, now=self._tables.now())
        return replace(workflow, document=copied(workflow.document), pause=now.pause, breakpoints=now.breakpoints)

    def _applied(self, org: str, workflow_id: UUID, document: Mapping[str, Any], by: str) -> Applied:
        row = _by_name(self._tables, org, document["name"])
        if row is None:
            return Applied(self._first_revision(org, workflow_id, document, by), Outcome.CREATED)
        if same(row.latest.document, copied(document)):
            return Applied(row.latest, Outcome.UNCHANGED)
        invariants.check_text(by)
        return Applied(self._next_revision(row.latest, document, by), Outcome.UPDATED)

    def _first_revision(self, org: str, workflow_id: UUID, document: Mapping[str, Any], by: str) -> Workflow:
        name, now = document["name"], self._tables.now()
        invariants.check_text(name, limit=128)
        invariants.check_text(org, by)
        return Workflow(workflow_id, org, name, 1, _etag(workflow_id, 1), copied(document), now, now, by)

    def _next_revision(self, latest: Workflow, document: Mapping[str, Any], by: str) -> Workflow:
        revision = latest.revision + 1
        return replace(
            latest,
            revision=revision,
            etag=_etag(latest.id, revision),
            document=copied(document),
            update_time=self._tables.now(),
            updated_by=by,
        )


def current(tables: Tables, org: str, reference: str, etag: str = "") -> WorkflowRow:
    """Return a workflow that is not deleted. Raises WorkflowNotFoundError, EtagMismatchError."""
    row = _by_id(tables, org, reference)
    if row is None or row.is_deleted:
        row = _by_name(tables, org, reference)
    if row is None:
        raise WorkflowNotFoundError(reference)
    if etag not in ("", row.latest.etag):
        raise EtagMismatchError(reference)
    return row


def fresh(row: WorkflowRow, revision: int = 0, *, now: datetime) -> Workflow:
    """Return a revision of a workflow, 0 for the latest, as it is now, sharing nothing that a caller could change."""
    workflow = row.revisions[revision - 1]
    return replace(workflow, document=copied(workflow.document), pause=row.pause, breakpoints=row.pending(now))


def _by_id(tables: Tables, org: str, reference: str) -> WorkflowRow | None:
    try:
        row = tables.workflows.get(UUID(reference))
    except ValueError:
        return None
    return row if row is not None and row.latest.org == org and str(row.latest.id) == reference else None


def _by_name(tables: Tables, org: str, name: str) -> WorkflowRow | None:
    rows = (row for row in tables.workflows.values() if not row.is_deleted)
    return next((row for row in rows if row.latest.org == org and row.latest.name == name), None)


def _matches(workflow: Workflow, where: WorkflowFilter) -> bool:
    tags = workflow.document.get("tags") or ()
    return workflow.name.startswith(where.name_prefix) and all(tag in tags for tag in where.tags)


def _is_open(row: ExecutionRow) -> bool:
    return not row.execution.state.is_end


def _is_left(row: ExecutionRow, deleted: set[UUID]) -> bool:
    return row.execution.state.is_end and row.execution.workflow_id in deleted


def _etag(workflow_id: UUID, revision: int) -> str:
    return hashlib.sha256(f"{workflow_id}/{revision}".encode()).hexdigest()[:16]
