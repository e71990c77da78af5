"""Lets executions go on after their end."""

from __future__ import annotations

from typing import Any

from persistence.errors import ExecutionNotFoundError, WorkflowNotFoundError
from persistence.model import Scope
from persistence.postgres import mending
from persistence.postgres.commit import columns
from persistence.postgres.commit.encoding import document, in_utc, joined
from persistence.postgres.commit.statements import INSERT_HISTORY
from persistence.postgres.connection import Database, Session
from persistence.postgres.layout import layout
from persistence.postgres.notifications import Notifications
from persistence.postgres.records import EXECUTION_COLUMNS, encoded, selected
from persistence.postgres.requests import keep
from persistence.postgres.workflow_pauses import pause_of, pause_reopened
from persistence.requests import Request
from persistence.transition import Reopened, Reopening, check_events, retriable

_IN_SCOPE = "e.org_id = $1 AND e.id = $2 AND ($3::text IS NULL OR e.owner = $3)"
# A workflow is locked before its executions, as whoever deletes it does.
_HOLD_WORKFLOW = f"""
SELECT w.name, w.pause FROM workflows w JOIN executions e ON w.org_id = e.org_id AND w.id = e.workflow_id
WHERE {_IN_SCOPE} AND w.delete_time IS NULL FOR KEY SHARE OF w"""  # noqa: S608 - our own condition
_LOCK = f"""
SELECT {selected(EXECUTION_COLUMNS, "e.")} FROM executions e WHERE {_IN_SCOPE} FOR NO KEY UPDATE"""  # noqa: S608
# What its end had passed: a signal that was kept is there for the run that follows.
_CLEAR_INBOX = "DELETE FROM messages WHERE org_id = $1 AND execution_id = $2 AND kind <> 'SIGNAL'"
_REOPEN = f"""
UPDATE executions e SET state = 'RUNNING', run = $3, last_seq = $4, reopened_seq = $4, start_time = $5,
    deadline_time = $6, bytes = $7, end_time = NULL, failure = NULL, ending = NULL, pause = NULL, result = NULL,
    awaits = NULL, held_back = NULL, incarnation = NULL, wake_time = clock_timestamp(), deaths = 0,
    epoch = e.epoch + (e.epoch < 9223372036854775807)::int,
    steps_total = $8, steps_completed = $9, steps_failed = $10, steps_skipped = $11, steps_running = 0,
    steps_cancelled = $12
WHERE e.org_id = $1 AND e.id = $2 RETURNING {selected(EXECUTION_COLUMNS, "e.")}"""  # noqa: S608 - our own columns
_EDIT = "UPDATE execution_inputs SET edit = $3::jsonb WHERE org_id = $1 AND execution_id = $2"


class PostgresReopening:
    """Implements `reopen` of ExecutionRepository."""

    _database: Database
    _notifications: Notifications

    async def reopen(self, scope: Scope, reopening: Reopening, request: Request | None = None) -> Reopened:
        """See ExecutionRepository."""
        asked = scope.org, reopening.execution_id, scope.owner
        async with self._database.session() as session, session.transaction():
            was_asked = await keep(session, scope.org, request, reopening.execution_id) is not None
            workflow = await session.fetchrow(_HOLD_WORKFLOW, *asked)
            row = await session.fetchrow(_LOCK, *asked)
            if row is None:
                raise ExecutionNotFoundError(reopening.execution_id)
            execution = mending.execution(row)
            if was_asked:
                return Reopened(execution, False)
            retriable(execution, reopening)
            if workflow is None:
                raise WorkflowNotFoundError(execution.workflow_name)
            check_events([reopening.event], execution.last_seq)
            row = await _write(session, scope.org, reopening)
            if workflow["pause"] is not None:
                row = await pause_reopened(session, scope.org, reopening.execution_id, pause_of(workflow))
            after = mending.execution(row)
        self._notifications.announce([after.id], has_work=True)
        return Reopened(after, True)


async def _write(session: Session, org: str, reopening: Reopening) -> Any:
    key, counts, event = (org, reopening.execution_id), reopening.counts, reopening.event
    edit = None if reopening.edit is None else encoded(reopening.edit).decode()
    document(reopening.edit and reopening.edit.value)
    await session.execute(_CLEAR_INBOX, *key)
    await session.execute(_EDIT, *key, edit)
    told = columns.HISTORY.encode(
        event,
        org_id=org,
        execution_id=reopening.execution_id,
        layout=layout([event], [len(event.body)]),
        body=event.body,
        shared=None,
    )
    await session.execute(INSERT_HISTORY.text, joined([told]))
    return await session.fetchrow(
        _REOPEN,
        *key,
        reopening.run,
        event.seq,
        in_utc(reopening.start_time),
        in_utc(reopening.deadline_time),
        reopening.bytes,
        counts.total,
        counts.completed,
        counts.failed,
        counts.skipped,
        counts.cancelled,
    )
