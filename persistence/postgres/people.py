"""Tasks of people, as they see and change them; what transitions make of tasks is written by the committer.

Who completes a task that its execution waits for takes its locks as whoever cancels does: request id, execution, and
then the task. So no transition that ends the task, and waits for the row of the execution, passes a completion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from persistence.errors import TaskNotFoundError
from persistence.model import Json, Message, Posted
from persistence.people import (
    ENDED_TASKS,
    Act,
    Acted,
    Comment,
    Complete,
    Person,
    Task,
    TaskFilter,
    TaskState,
    acted,
    completion,
)
from persistence.postgres import mending
from persistence.postgres.commit.encoding import document
from persistence.postgres.connection import Database, Session
from persistence.postgres.messages import AWAKE, COUNTED
from persistence.postgres.notifications import Notifications
from persistence.postgres.records import EXECUTION_COLUMNS, UNREADABLE_TIME, decoded, selected
from persistence.postgres.requests import keep
from persistence.requests import Request

_LISTED = (
    "id", "org_id", "execution_id", "path", "iteration", "workflow_name", "owner", "state", "title", "outcomes",
    "create_time", "update_time", "waited", "assignees", "groups", "due_time", "escalated", "claimed_by", "claim_time",
    "end_time", "outcome", "completed_by", "version",
)  # fmt: skip
_WHOLE = (*_LISTED, "description", "form", "values", "comments")

_MEANT = "(t.assignees IS NULL AND t.groups IS NULL OR $3::text = ANY (t.assignees) OR t.groups && $4::text[])"
_SEEN = f"t.org_id = $1 AND ($2::bool OR $3::text IN (t.owner, t.claimed_by, t.completed_by) OR {_MEANT})"
_GET = f"SELECT {selected(_WHOLE, 't.')} FROM tasks t WHERE {_SEEN} AND t.id = $5"  # noqa: S608 - our own columns
_FOUND = f"""
FROM tasks t
WHERE {_SEEN} AND ($5::uuid IS NULL OR t.id < $5::uuid) AND ($6::text[] IS NULL OR t.state = ANY ($6::text[]))
  AND (NOT $7::bool OR CASE WHEN t.claimed_by IS NULL THEN {_MEANT} ELSE t.claimed_by = $3::text END)
  AND ($8::text IS NULL OR $8::text = ANY (t.groups)) AND ($9::uuid IS NULL OR t.execution_id = $9)
  AND ($10::uuid[] IS NULL OR t.id = ANY ($10::uuid[])) {{}}
ORDER BY t.id DESC LIMIT $11"""
_LIST = f"SELECT {selected(_LISTED, 't.')} {_FOUND}"
_VERSIONS = f"SELECT t.id, t.version {_FOUND}"
_OPEN = "AND t.end_time IS NULL"

_FIND = "SELECT execution_id, waited FROM tasks WHERE org_id = $1 AND id = $2"
_LOCK_EXECUTION = "SELECT end_time IS NULL FROM executions WHERE org_id = $1 AND id = $2 FOR NO KEY UPDATE"
_LOCK = f"""
SELECT {selected(_WHOLE, "t.")}, clock_timestamp() AS now FROM tasks t
WHERE t.org_id = $1 AND t.id = $2 FOR UPDATE OF t"""  # noqa: S608 - our own columns
_PUT = """
UPDATE tasks SET state = $3, update_time = $4, version = $5, assignees = $6::text[], groups = $7::text[],
    claimed_by = $8, claim_time = $9, end_time = $10, outcome = $11, completed_by = $12, values = $13::jsonb,
    comments = $14::jsonb
WHERE org_id = $1 AND id = $2"""
_SEND = """
INSERT INTO messages (org_id, execution_id, id, kind, create_time, sender, body)
VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb) ON CONFLICT DO NOTHING"""
_COUNT = f"""
UPDATE executions e SET {COUNTED}, {AWAKE} WHERE e.org_id = $1 AND e.id = $2
RETURNING {selected(EXECUTION_COLUMNS, "e.")}"""  # noqa: S608 - our own columns

_comments = msgspec.json.Decoder(tuple[Comment, ...])


class PostgresTasks:
    """Implements TaskRepository."""

    _database: Database
    _notifications: Notifications

    async def get_task(self, person: Person, task_id: UUID) -> Task:
        """See TaskRepository."""
        async with self._database.session() as session:
            row = await session.fetchrow(_GET, *_seen_by(person), task_id)
        if row is None:
            raise TaskNotFoundError(task_id)
        return _task(row)

    async def list_tasks(self, person: Person, where: TaskFilter, after: UUID | None, limit: int) -> Sequence[Task]:
        """See TaskRepository."""
        return [_task(row) for row in await self._found(_LIST, person, where, after, limit)]

    async def task_versions(self, person: Person, where: TaskFilter, limit: int) -> Mapping[UUID, int]:
        """See TaskRepository."""
        return {row["id"]: row["version"] for row in await self._found(_VERSIONS, person, where, None, limit)}

    async def _found(
        self, select: str, person: Person, where: TaskFilter, after: UUID | None, limit: int
    ) -> Sequence[asyncpg.Record]:
        is_open = where.mine or (where.states and ENDED_TASKS.isdisjoint(where.states))
        asked = (sorted(where.states) or None, where.mine, where.group or None, where.execution_id)
        ids = sorted(where.ids) or None
        async with self._database.session() as session:
            query = select.format(_OPEN if is_open else "")
            return await session.fetch(query, *_seen_by(person), after, *asked, ids, limit)

    async def act(self, person: Person, task_id: UUID, act: Act, request: Request | None = None) -> Acted:
        """See TaskRepository."""
        async with self._database.session() as session, session.transaction():
            found = await session.fetchrow(_FIND, person.org, task_id)
            if found is None:
                raise TaskNotFoundError(task_id)
            is_known = await keep(session, person.org, request, found["execution_id"]) is not None
            tells = isinstance(act, Complete) and found["waited"] and not is_known
            is_awaited = tells and await session.fetchval(_LOCK_EXECUTION, person.org, found["execution_id"])
            row = await session.fetchrow(_LOCK, person.org, task_id)
            if row is None:
                raise TaskNotFoundError(task_id)
            task, now = _task(row), row["now"]
            if is_known:
                return Acted(task)
            after = acted(task, person, act, now)
            await _put(session, after)
            posted = None
            if isinstance(act, Complete) and is_awaited:
                posted = await _tell(session, after, completion(after, act, now))
        if posted is not None:
            has_work = posted.execution.incarnation is None
            self._notifications.announce([after.execution_id], has_work=has_work, has_mail=True)
        return Acted(after, posted)


def _seen_by(person: Person) -> tuple[str, bool, str, list[str]]:
    return person.org, person.sees_all, person.subject, sorted(person.groups)


async def _put(session: Session, task: Task) -> None:
    await session.execute(
        _PUT,
        task.org,
        task.id,
        task.state,
        task.update_time,
        task.version,
        list(task.assignees) or None,
        list(task.groups) or None,
        task.claimed_by or None,
        task.claim_time,
        task.end_time,
        task.outcome or None,
        task.completed_by or None,
        _text(task.values),
        _text(msgspec.to_builtins(task.comments)) if task.comments else None,
    )


def _text(value: Json) -> str | None:
    raw = document(value)
    return None if raw is None else bytes(raw).decode()


async def _tell(session: Session, task: Task, message: Message) -> Posted:
    """Send its execution, which is locked, that a task is completed."""
    body = _text(dict(message.body))
    await session.execute(
        _SEND, task.org, task.execution_id, message.id, message.kind, message.time, message.sender, body
    )
    row = await session.fetchrow(_COUNT, task.org, task.execution_id)
    assert row is not None  # noqa: S101 - it is locked
    return Posted(mending.execution(row), message)


def _task(row: asyncpg.Record) -> Task:
    """Return the task that a row holds, without what of it cannot be read."""
    values: Mapping[str, Any] = dict(row)
    return Task(
        id=row["id"],
        org=row["org_id"],
        execution_id=row["execution_id"],
        path=row["path"],
        iteration=row["iteration"],
        workflow_name=row["workflow_name"],
        owner=row["owner"],
        state=TaskState(row["state"]),
        title=row["title"],
        outcomes=_texts(row["outcomes"]),
        create_time=_time(row["create_time"]) or mending.NO_TIME,
        update_time=_time(row["update_time"]) or mending.NO_TIME,
        waited=row["waited"],
        assignees=_texts(row["assignees"]),
        groups=_texts(row["groups"]),
        due_time=_time(row["due_time"]),
        escalated=row["escalated"],
        claimed_by=row["claimed_by"] or "",
        claim_time=_time(row["claim_time"]),
        end_time=_time(row["end_time"]),
        outcome=row["outcome"] or "",
        completed_by=row["completed_by"] or "",
        version=row["version"],
        description=values.get("description") or "",
        form=_object(values.get("form")),
        values=_object(values.get("values")),
        comments=_said(values.get("comments")),
    )


def _time(value: datetime | None) -> datetime | None:
    return None if value == UNREADABLE_TIME else value


def _texts(values: Sequence[Any] | None) -> tuple[str, ...]:
    return tuple(each for each in values or () if type(each) is str)


def _object(text: str | None) -> Mapping[str, Any] | None:
    try:
        value = decoded(text)
    except ValueError:
        return None
    return value if type(value) is dict else None


def _said(text: str | None) -> tuple[Comment, ...]:
    try:
        return () if text is None else _comments.decode(text)
    except msgspec.DecodeError:
        return ()
