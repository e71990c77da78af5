"""Pauses whole workflows, and lets them go on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from msgspec.structs import replace

from persistence.errors import WorkflowNotFoundError
from persistence.memory import invariants
from persistence.memory.executions import send
from persistence.memory.tables import ExecutionRow, Tables
from persistence.memory.workflows import current, fresh
from persistence.model import Execution, ExecutionState, Message, MessageKind, Scope, Workflow
from persistence.pauses import NEVER, PAUSE_ID, WorkflowPause, WorkflowPausing, body_of_resume
from persistence.requests import Request

_GOING = (ExecutionState.PENDING, ExecutionState.RUNNING)


class MemoryWorkflowPauses:
    """Implements `pause_workflow` and `resume_workflow` of WorkflowRepository."""

    _tables: Tables

    async def pause_workflow(
        self, scope: Scope, reference: str, asked: WorkflowPausing, request: Request | None = None
    ) -> Workflow:
        """See WorkflowRepository."""
        if (first := self._tables.known(scope.org, request)) is not None:
            return as_it_is(self._tables, first.workflow_id)
        row = current(self._tables, scope.org, reference)
        invariants.check_text(asked.by, asked.reason, limit=8192)
        rows = [each for each in self._tables.executions_of(row.latest.id) if not each.execution.state.is_end]
        if row.pause is None:
            row.pause = WorkflowPause(asked.id, asked.by, asked.reason, self._tables.now(), asked.pauses_running)
            for each in rows:
                self._hold_back(each)
        elif asked.pauses_running:
            row.pause = replace(row.pause, pauses_running=True)
        if asked.pauses_running:
            for each in rows:
                execution = each.execution
                if execution.state in _GOING and execution.ending is None and not execution.held_back:
                    self._send(each, asked.id, MessageKind.PAUSE, asked.by, asked.body(row.pause.id))
        self._tables.keep(scope.org, request, workflow_id=row.latest.id)
        return fresh(row, now=self._tables.now())

    async def resume_workflow(
        self, scope: Scope, reference: str, by: str, reason: str, request: Request | None = None
    ) -> Workflow:
        """See WorkflowRepository."""
        if (first := self._tables.known(scope.org, request)) is not None:
            return as_it_is(self._tables, first.workflow_id)
        row = current(self._tables, scope.org, reference)
        invariants.check_text(by, reason, limit=8192)
        rows = [each for each in self._tables.executions_of(row.latest.id) if not each.execution.state.is_end]
        if (pause := row.pause) is not None:
            row.pause = None
            for each in rows:
                if self._is_paused_by(each, str(pause.id)):
                    self._send(each, pause.id, MessageKind.RESUME, by, body_of_resume(pause, reason))
        for each in rows:
            self._let_start(each)
        self._tables.keep(scope.org, request, workflow_id=row.latest.id)
        return fresh(row, now=self._tables.now())

    def _hold_back(self, row: ExecutionRow) -> None:
        execution = row.execution
        if execution.state in (ExecutionState.PENDING, ExecutionState.PAUSED) and execution.start_time is None:
            wake_time = execution.wake_time or self._tables.now() if self._tables.unseen(row) else NEVER
            row.execution = _taken_away(execution, held_back=True, wake_time=wake_time)

    def _let_start(self, row: ExecutionRow) -> None:
        execution, now = row.execution, self._tables.now()
        if execution.held_back:
            wake_time = max(execution.scheduled_time or now, now)
            row.execution = _taken_away(execution, held_back=False, wake_time=wake_time)

    def _is_paused_by(self, row: ExecutionRow, pause_id: str) -> bool:
        execution = row.execution
        if execution.state not in (*_GOING, ExecutionState.PAUSED):
            return False
        is_paused = execution.pause is not None and execution.pause.workflow_pause_id == pause_id
        unseen = (each for each in self._tables.unseen(row) if each.kind == MessageKind.PAUSE)
        return is_paused or any(each.body.get(PAUSE_ID) == pause_id for each in unseen)

    def _send(self, row: ExecutionRow, asked: UUID, kind: MessageKind, by: str, body: Mapping[str, Any]) -> None:
        message_id = uuid5(asked, f"{kind} {row.execution.id}")
        send(self._tables, row, Message(message_id, kind, self._tables.now(), by, body))


def as_it_is(tables: Tables, workflow_id: UUID | None) -> Workflow:
    """Return the workflow that a request has changed otherwise than by a revision, as it is now."""
    row = None if workflow_id is None else tables.workflows.get(workflow_id)
    if row is None:
        raise WorkflowNotFoundError(str(workflow_id))
    return fresh(row, now=tables.now())


def _taken_away(execution: Execution, *, held_back: bool, wake_time: datetime) -> Execution:
    """Return an execution that nobody has any more."""
    return replace(execution, held_back=held_back, incarnation=None, epoch=execution.epoch + 1, wake_time=wake_time)
