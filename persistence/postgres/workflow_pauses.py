"""Pauses whole workflows, and lets them go on."""

from __future__ import annotations

from uuid import UUID

import asyncpg

from persistence import failpoints
from persistence.model import Scope, Workflow
from persistence.pauses import (
    NEVER,
    PAUSE_ID,
    WorkflowPause,
    WorkflowPausing,
    body_for_retried,
    body_of_resume,
)
from persistence.postgres import records
from persistence.postgres.claims import NEXT_EPOCH
from persistence.postgres.connection import Database, Session, execute_long
from persistence.postgres.messages import AWAKE, COUNTED
from persistence.postgres.notifications import notify
from persistence.postgres.records import EXECUTION_COLUMNS, selected
from persistence.postgres.requests import keep
from persistence.postgres.workflows import changed_by, latest, lock, note_change
from persistence.processes import News
from persistence.requests import Request

_SET = """
UPDATE workflows SET pause = jsonb_build_object('id', $3::uuid, 'by', $4::text, 'reason', $5::text,
    'time', to_jsonb(clock_timestamp()), 'pauses_running', $6::bool)
WHERE org_id = $1 AND id = $2"""
_WIDEN = """
UPDATE workflows SET pause = jsonb_set(pause, '{pauses_running}', 'true')
WHERE org_id = $1 AND id = $2 AND jsonb_typeof(pause) = 'object'"""
_CLEAR = "UPDATE workflows SET pause = NULL WHERE org_id = $1 AND id = $2"

_TAKEN_AWAY = f"incarnation = NULL, epoch = {NEXT_EPOCH}"
# All of these find executions by the index of states, which has the workflow: of those that have ended none is read.
# None of them starts any more: whoever would take one finds its row changed, and whoever has one has it no longer, so
# that the commit of its start is refused. What was sent to it and is not in a commit yet is looked at all the same.
_HOLD_BACK = f"""
WITH found AS MATERIALIZED (
    SELECT org_id, id FROM executions
    WHERE org_id = $1 AND workflow_id = $2 AND state IN ('PENDING', 'PAUSED') AND start_time IS NULL
    ORDER BY id FOR NO KEY UPDATE)
UPDATE executions e SET held_back = true, {_TAKEN_AWAY}, wake_time = CASE
    WHEN EXISTS (SELECT FROM messages m WHERE m.org_id = e.org_id AND m.execution_id = e.id)
    THEN coalesce(e.wake_time, statement_timestamp())
    ELSE $3::timestamptz END
FROM found f WHERE e.org_id = f.org_id AND e.id = f.id"""  # noqa: S608 - our own parts
# Whoever has one, for what was sent to it, may not know of the resume: so it is taken anew.
_LET_START = f"""
WITH found AS MATERIALIZED (
    SELECT org_id, id FROM executions
    WHERE org_id = $1 AND workflow_id = $2 AND state IN ('PENDING', 'PAUSED', 'CANCELLING') AND held_back
    ORDER BY id FOR NO KEY UPDATE)
UPDATE executions e SET held_back = NULL, {_TAKEN_AWAY},
    wake_time = greatest(e.scheduled_time, statement_timestamp())
FROM found f WHERE e.org_id = f.org_id AND e.id = f.id"""  # noqa: S608 - our own parts
_RUNNING = """
    SELECT org_id, id FROM executions
    WHERE org_id = $1 AND workflow_id = $2 AND state IN ('PENDING', 'RUNNING') AND ending IS NULL
      AND held_back IS NOT TRUE ORDER BY id FOR NO KEY UPDATE"""
# Those that the pause has paused, and those that have yet to see that they are to be paused by it.
_PAUSED = f"""
    SELECT e.org_id, e.id FROM executions e
    WHERE e.org_id = $1 AND e.workflow_id = $2 AND e.state IN ('PENDING', 'RUNNING', 'PAUSED') AND (
        e.pause->>'{PAUSE_ID}' = $4::jsonb->>'{PAUSE_ID}' OR EXISTS (
            SELECT FROM messages m WHERE m.org_id = e.org_id AND m.execution_id = e.id AND m.kind = 'PAUSE'
              AND m.body->>'{PAUSE_ID}' = $4::jsonb->>'{PAUSE_ID}'))
    ORDER BY e.id FOR NO KEY UPDATE"""  # noqa: S608 - our own name


def _send(locked: str, kind: str) -> str:
    """Return what sends a message of a kind to the executions that the query `locked` locks."""
    return f"""
WITH found AS MATERIALIZED ({locked}),
sent AS (
    INSERT INTO messages AS m (org_id, execution_id, id, kind, create_time, sender, body)
    SELECT org_id, id, gen_random_uuid(), '{kind}', statement_timestamp(), $3::text, $4::jsonb FROM found
    RETURNING m.org_id, m.execution_id)
UPDATE executions e SET {COUNTED}, {AWAKE}
FROM sent s WHERE e.org_id = s.org_id AND e.id = s.execution_id"""  # noqa: S608 - our own parts


_PAUSE_RUNNING = _send(_RUNNING, "PAUSE")
_PAUSE_ONE = f"""{_send("SELECT $1::text AS org_id, $2::uuid AS id", "PAUSE")}
RETURNING {selected(EXECUTION_COLUMNS, "e.")}"""
_RESUME_PAUSED = _send(_PAUSED, "RESUME")


class PostgresWorkflowPauses:
    """Implements `pause_workflow` and `resume_workflow` of WorkflowRepository.

    A workflow is locked before its executions, so that a creation comes before all of it, or after it.
    """

    _database: Database

    async def pause_workflow(
        self, scope: Scope, reference: str, asked: WorkflowPausing, request: Request | None = None
    ) -> Workflow:
        """See WorkflowRepository."""
        async with self._database.session() as session, session.transaction():
            if before := await keep(session, scope.org, request):
                return await as_it_is(session, scope.org, before)
            row = await lock(session, scope, reference)
            key = scope.org, row["id"]
            pause_id = asked.id
            if row["pause"] is None:
                await session.execute(_SET, *key, asked.id, asked.by, asked.reason, asked.pauses_running)
                await execute_long(session, _HOLD_BACK, *key, NEVER)
            elif asked.pauses_running:
                pause_id = pause_of(row).id
                await session.execute(_WIDEN, *key)
            if asked.pauses_running:
                body = records.encoded(asked.body(pause_id)).decode()
                await execute_long(session, _PAUSE_RUNNING, *key, asked.by, body)
            await notify(session, News(None, has_work=True, has_mail=True))
            await note_change(session, scope.org, request, row["id"])
            await failpoints.reach("workflow.before_commit")
            return await latest(session, *key)

    async def resume_workflow(
        self, scope: Scope, reference: str, by: str, reason: str, request: Request | None = None
    ) -> Workflow:
        """See WorkflowRepository."""
        async with self._database.session() as session, session.transaction():
            if before := await keep(session, scope.org, request):
                return await as_it_is(session, scope.org, before)
            row = await lock(session, scope, reference)
            key = scope.org, row["id"]
            if row["pause"] is not None:
                await session.execute(_CLEAR, *key)
                body = records.encoded(body_of_resume(pause_of(row), reason)).decode()
                await execute_long(session, _RESUME_PAUSED, *key, by, body)
            # Also where it is not paused: nothing else lets start what was held back by hand.
            await execute_long(session, _LET_START, *key)
            await notify(session, News(None, has_work=True, has_mail=True))
            await note_change(session, scope.org, request, row["id"])
            await failpoints.reach("workflow.before_commit")
            return await latest(session, *key)


async def pause_reopened(session: Session, org: str, execution_id: UUID, pause: WorkflowPause) -> asyncpg.Record:
    """Pause an execution that goes on after its end in this transaction, and return its row after that."""
    body = records.encoded(body_for_retried(pause)).decode()
    (row,) = await session.fetch(_PAUSE_ONE, org, execution_id, pause.by, body)
    return row


def pause_of(row: asyncpg.Record) -> WorkflowPause:
    """Return the pause of a row that has one; one without id where it cannot be read."""
    try:
        return records.workflow_pause(row["pause"])
    except Exception:
        return WorkflowPause(UUID(int=0), "", "", NEVER)


async def as_it_is(session: Session, org: str, before: Request) -> Workflow:
    """Return the workflow that a request has changed otherwise than by a revision, as it is now."""
    return await latest(session, org, await changed_by(session, org, before))
