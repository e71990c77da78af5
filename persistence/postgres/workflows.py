"""Workflows and their revisions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy import Select, Text, cast, literal_column, select
from sqlalchemy.dialects.postgresql import JSONB

from persistence.errors import (
    EtagMismatchError,
    NameTakenError,
    PersistenceError,
    RevisionNotFoundError,
    UnavailableError,
    WorkflowInUseError,
    WorkflowNotFoundError,
)
from persistence.listing import WorkflowFilter
from persistence.model import Applied, Outcome, Scope, Workflow
from persistence.postgres import mending, records
from persistence.postgres.connection import Database, Session, escaped_like, execute_long, is_of_a_row, rendered
from persistence.postgres.messages import send_cancel
from persistence.postgres.notifications import notify
from persistence.postgres.records import HAS_BREAKPOINTS, selected
from persistence.postgres.requests import keep, known
from persistence.postgres.tables import workflow_revisions, workflows
from persistence.processes import News
from persistence.requests import Request

_INSERT = """
INSERT INTO workflows (org_id, id, name, revision, create_time) VALUES ($1, $2, $3, 1, clock_timestamp())
ON CONFLICT (org_id, name) WHERE delete_time IS NULL DO NOTHING"""
_INSERT_REVISION = """
INSERT INTO workflow_revisions (org_id, workflow_id, revision, document, update_time, updated_by)
SELECT w.org_id, w.id, w.revision, $3::jsonb, CASE WHEN w.revision = 1 THEN w.create_time ELSE clock_timestamp() END, $4
FROM workflows w WHERE w.org_id = $1 AND w.id = $2"""
_COLUMNS = f"""w.id, w.org_id, w.name, w.pause, w.revision AS latest, r.revision, r.document,
       CASE WHEN {HAS_BREAKPOINTS} THEN w.breakpoints END AS breakpoints, w.breakpoints_left,
       {selected(("breakpoints_until",), "w.")},
       {selected(("create_time",), "w.")}, {selected(("update_time",), "r.")}, r.updated_by"""
_GET = f"""
SELECT {_COLUMNS} FROM workflows w
JOIN workflow_revisions r ON r.org_id = w.org_id AND r.workflow_id = w.id
WHERE w.org_id = $1 AND w.id = $2 AND r.revision = CASE WHEN $3::int = 0 THEN w.revision ELSE $3 END"""  # noqa: S608

# For a workflow whose latest revision is not there.
_NEWEST = f"""
SELECT {_COLUMNS} FROM workflows w
LEFT JOIN LATERAL (SELECT * FROM workflow_revisions r WHERE r.org_id = w.org_id AND r.workflow_id = w.id
                   ORDER BY r.revision DESC LIMIT 1) r ON true
WHERE w.org_id = $1 AND w.id = $2"""  # noqa: S608 - our own columns

# By id first. A deleted one is found only by id, where that is wanted and while executions of it are left.
_FIND = """
SELECT w.id, w.name, w.revision FROM workflows w
WHERE w.org_id = $1 AND (w.id = $2 OR (w.name = $3 AND w.delete_time IS NULL))
  AND (w.delete_time IS NULL OR $4::bool AND EXISTS (
       SELECT FROM executions e WHERE e.org_id = w.org_id AND e.workflow_id = w.id))
ORDER BY w.id = $2 DESC NULLS LAST LIMIT 1"""
_LOCK = """
SELECT id, name, revision, pause FROM workflows WHERE org_id = $1 AND id = $2 AND delete_time IS NULL FOR UPDATE"""
# The weaker lock: executions that are created at the same time are not in the way.
_LOCK_NAME = """
SELECT id FROM workflows WHERE org_id = $1 AND name = $2 AND delete_time IS NULL FOR NO KEY UPDATE"""
_COMPARE = """
SELECT w.id, w.revision, coalesce(r.document = $3::jsonb, false) AS is_same FROM workflows w
LEFT JOIN workflow_revisions r ON r.org_id = w.org_id AND r.workflow_id = w.id AND r.revision = w.revision
WHERE w.org_id = $1 AND w.id = $2 AND w.delete_time IS NULL"""
# The number goes by the revisions that are there, which the row may contradict.
_RAISE = """
UPDATE workflows w SET revision = 1 + coalesce((
    SELECT max(r.revision) FROM workflow_revisions r
    WHERE r.org_id = w.org_id AND r.workflow_id = w.id AND r.revision < 2147483647), 0)
WHERE w.org_id = $1 AND w.id = $2 RETURNING w.revision"""
_RUNNING = """
SELECT count(*) FROM executions WHERE org_id = $1 AND workflow_id = $2 AND end_time IS NULL"""
_RUNNING_ONES = """
    SELECT org_id, id, end_time, state FROM executions
    WHERE org_id = $1 AND workflow_id = $2 AND end_time IS NULL ORDER BY id FOR NO KEY UPDATE"""
_CANCEL_RUNNING = f"""
WITH {send_cancel(_RUNNING_ONES, "$3", "$4::text")} SELECT count(*) FROM told"""  # noqa: S608 - our own statement
_TRIES = 10
_DELETE = """
UPDATE workflows SET delete_time = clock_timestamp(), deleted_by = $3 WHERE org_id = $1 AND id = $2"""


_ANSWER = """
UPDATE requests SET workflow_ids = $3, revisions = $4, outcomes = $5 WHERE org_id = $1 AND request_id = $2"""
_CHANGED = "SELECT workflow_ids[1] FROM requests WHERE org_id = $1 AND request_id = $2"
_ANSWERED = f"""
SELECT {_COLUMNS}, u.id AS answered, u.outcome FROM requests q
CROSS JOIN unnest(q.workflow_ids, q.revisions, q.outcomes) WITH ORDINALITY AS u(id, revision, outcome, place)
LEFT JOIN workflow_revisions r ON r.org_id = q.org_id AND r.workflow_id = u.id AND r.revision = u.revision
LEFT JOIN workflows w ON w.org_id = r.org_id AND w.id = r.workflow_id
WHERE q.org_id = $1 AND q.request_id = $2 ORDER BY u.place"""  # noqa: S608 - our own columns


_DECIDED: Mapping[str, Callable[[asyncpg.Record], Any]] = {
    "pause": lambda row: records.workflow_pause(row["pause"]),
    "breakpoints": records.workflow_breakpoints,
}


class PostgresWorkflows:
    """Implements WorkflowRepository but for `reap`."""

    _database: Database

    async def create_workflow(
        self, org: str, workflow_id: UUID, document: Mapping[str, Any], created_by: str, request: Request | None = None
    ) -> Workflow:
        """See WorkflowRepository."""
        name, encoded = document["name"], records.encoded(document).decode()
        async with self._database.session() as session, session.transaction():
            if before := await keep(session, org, request):
                return (await _answered(session, org, before))[0].workflow
            if await session.execute(_INSERT, org, workflow_id, name) != "INSERT 0 1":
                raise NameTakenError(name)
            await session.execute(_INSERT_REVISION, org, workflow_id, encoded, created_by)
            workflow = _workflow(await _row(session, org, workflow_id, 1))
            await _answer(session, org, request, [Applied(workflow, Outcome.CREATED)])
            return workflow

    async def get_workflow(self, scope: Scope, reference: str, revision: int = 0) -> Workflow:
        """See WorkflowRepository."""
        async with self._database.session() as session:
            found = await _find(session, scope, reference, or_deleted=True)
            row = await session.fetchrow(_GET, scope.org, found["id"], revision) if 0 <= revision < 2**31 else None
            if row is None and revision:
                raise RevisionNotFoundError(reference, revision)
            return _workflow(row) if row is not None else await latest(session, scope.org, found["id"])

    async def list_workflows(
        self, scope: Scope, where: WorkflowFilter, after: UUID | None, limit: int
    ) -> Sequence[Workflow]:
        """See WorkflowRepository."""
        w, r = workflows.alias("w"), workflow_revisions.alias("r")
        statement: Select[Any] = (
            select(literal_column(_COLUMNS))
            .select_from(w)
            .outerjoin(r, (r.c.org_id == w.c.org_id) & (r.c.workflow_id == w.c.id) & (r.c.revision == w.c.revision))
            .where(w.c.org_id == scope.org, w.c.delete_time.is_(None))
            .order_by(w.c.id.desc())
            .limit(limit)
        )
        if after is not None:
            statement = statement.where(w.c.id < after)
        if where.name_prefix:
            statement = statement.where(w.c.name.like(escaped_like(where.name_prefix)))
        if where.tags:
            wanted = cast(cast(records.encoded(list(where.tags)).decode(), Text), JSONB)
            statement = statement.where(r.c.document["tags"].contains(wanted))
        try:
            sql, arguments = rendered(statement)
            async with self._database.searching(scope.org) as session:
                return [_workflow(row) for row in await session.fetch(sql, *arguments)]
        except PersistenceError as error:
            if not is_of_a_row(error):
                raise
        sql, arguments = rendered(statement.with_only_columns(w.c.id))
        async with self._database.searching(scope.org) as session:
            ids = [row["id"] for row in await session.fetch(sql, *arguments)]
        return [await self._alone(scope.org, workflow_id) for workflow_id in ids]

    async def _alone(self, org: str, workflow_id: UUID) -> Workflow:
        """Return the latest revision of a workflow, so that what is wrong with a row is wrong with it alone."""
        try:
            async with self._database.session() as session:
                if (row := await session.fetchrow(_GET, org, workflow_id, 0)) is not None:
                    return _workflow(row)
        except PersistenceError as error:
            if not is_of_a_row(error):
                raise
        mending.tell(workflow_id, ["workflows"], "workflow")
        lost = ("workflows", "create_time", "update_time", "document")
        return Workflow(workflow_id, org, "", 1, "", {}, mending.NO_TIME, mending.NO_TIME, "", lost)

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
        encoded = records.encoded(document).decode()
        async with self._database.session() as session, session.transaction():
            if before := await keep(session, scope.org, request):
                return (await _answered(session, scope.org, before))[0].workflow
            row = await _locked(session, scope, reference, etag)
            revision = await session.fetchval(_RAISE, scope.org, row["id"])
            await session.execute(_INSERT_REVISION, scope.org, row["id"], encoded, updated_by)
            workflow = _workflow(await _row(session, scope.org, row["id"], revision))
            await _answer(session, scope.org, request, [Applied(workflow, Outcome.UPDATED)])
            return workflow

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
        texts = {document["name"]: (id, records.encoded(document).decode()) for id, document in documents}
        if len(texts) < len(documents):
            raise PersistenceError("two documents have one name")
        applied: dict[str, Applied] = {}
        with suppress(_NotKept):
            async with self._database.session() as session, session.transaction():
                if before := None if dry_run else await keep(session, org, request):
                    return await _answered(session, org, before)
                # Locked in the order of names by everybody, so that no two wait for each other.
                for name in sorted(texts):
                    applied[name] = await _applied(session, org, name, *texts[name], applied_by)
                if dry_run:
                    raise _NotKept
                await _answer(session, org, request, [applied[document["name"]] for _, document in documents])
        return [applied[document["name"]] for _, document in documents]

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
        async with self._database.session() as session, session.transaction():
            if before := await keep(session, scope.org, request):
                return await changed_by(session, scope.org, before)
            row = await _locked(session, scope, reference, etag)
            workflow_id: UUID = row["id"]
            if force:
                reason = f"workflow {row['name']!r} was deleted"
                await execute_long(session, _CANCEL_RUNNING, scope.org, workflow_id, deleted_by, reason)
                await notify(session, News(None, has_work=True, has_mail=True))
            elif running := await session.fetchval(_RUNNING, scope.org, workflow_id):
                raise WorkflowInUseError(reference, running)
            await session.execute(_DELETE, scope.org, workflow_id, deleted_by)
            await note_change(session, scope.org, request, workflow_id)
            return workflow_id

    async def find_change(self, org: str, request: Request) -> Sequence[Applied] | None:
        """See WorkflowRepository."""
        async with self._database.session() as session:
            return await _answered(session, org, request) if await known(session, org, request) else None


class _NotKept(Exception):
    """Takes back what a transaction did."""


async def _answer(session: Session, org: str, request: Request | None, applied: Sequence[Applied]) -> None:
    """Leave with a request what it is answered."""
    if request is not None:
        workflow_ids, revisions = [each.workflow.id for each in applied], [each.workflow.revision for each in applied]
        outcomes = [each.outcome for each in applied]
        await session.execute(_ANSWER, org, request.id, workflow_ids, revisions, outcomes)


async def _answered(session: Session, org: str, request: Request) -> Sequence[Applied]:
    """Return what a request was answered. Raises WorkflowNotFoundError when something of that is no longer there."""
    rows = await session.fetch(_ANSWERED, org, request.id)
    if not rows:  # written by hand
        raise WorkflowNotFoundError(f"of request {request.id}")
    for row in rows:
        if row["id"] is None or row["outcome"] is None:
            raise WorkflowNotFoundError(str(row["answered"]))
    return [Applied(_workflow(row, row["revision"]), Outcome(row["outcome"])) for row in rows]


async def note_change(session: Session, org: str, request: Request | None, workflow_id: UUID) -> None:
    """Leave with a request which workflow it has deleted, paused or resumed."""
    if request is not None:
        await session.execute(_ANSWER, org, request.id, [workflow_id], None, None)


async def changed_by(session: Session, org: str, request: Request) -> UUID:
    """Return the workflow that a request has deleted, paused or resumed."""
    workflow_id: UUID | None = await session.fetchval(_CHANGED, org, request.id)
    if workflow_id is None:  # written by hand
        raise WorkflowNotFoundError(f"of request {request.id}")
    return workflow_id


async def _applied(session: Session, org: str, name: str, new_id: UUID, document: str, by: str) -> Applied:
    workflow_id, is_new = await _locked_or_new(session, org, name, new_id)
    outcome, revision = Outcome.CREATED, 1
    if not is_new:
        latest = await session.fetchrow(_COMPARE, org, workflow_id, document)
        assert latest is not None  # noqa: S101 - locked
        outcome, revision = Outcome.UNCHANGED, latest["revision"]
        if not latest["is_same"]:
            outcome, revision = Outcome.UPDATED, await session.fetchval(_RAISE, org, workflow_id)
    if outcome is not Outcome.UNCHANGED:
        await session.execute(_INSERT_REVISION, org, workflow_id, document, by)
    return Applied(_workflow(await _row(session, org, workflow_id, revision)), outcome)


async def _locked_or_new(session: Session, org: str, name: str, new_id: UUID) -> tuple[UUID, bool]:
    """Return the workflow of a name, locked, and whether it was made now."""
    for _ in range(_TRIES):
        found: UUID | None = await session.fetchval(_LOCK_NAME, org, name)
        if found is not None:
            return found, False
        if await session.execute(_INSERT, org, new_id, name) == "INSERT 0 1":
            return new_id, True
        # Somebody else made it in between; or deleted it again, and then it is free.
    raise UnavailableError(f"workflow {name!r} is made and deleted all the time")


async def _find(session: Session, scope: Scope, reference: str, *, or_deleted: bool) -> asyncpg.Record:
    row = await session.fetchrow(_FIND, scope.org, records.canonical_id(reference), reference, or_deleted)
    if row is None:
        raise WorkflowNotFoundError(reference)
    return row


async def lock(session: Session, scope: Scope, reference: str) -> asyncpg.Record:
    """Return the row of a workflow that is not deleted, locked against creations. Raises WorkflowNotFoundError."""
    return await _locked(session, scope, reference, "")


async def latest(session: Session, org: str, workflow_id: UUID) -> Workflow:
    """Return a workflow at its latest revision. Raises WorkflowNotFoundError."""
    row = await session.fetchrow(_GET, org, workflow_id, 0) or await session.fetchrow(_NEWEST, org, workflow_id)
    if row is None:
        raise WorkflowNotFoundError(str(workflow_id))
    return _workflow(row)


async def _locked(session: Session, scope: Scope, reference: str, etag: str) -> asyncpg.Record:
    found = await _find(session, scope, reference, or_deleted=False)
    row = await session.fetchrow(_LOCK, scope.org, found["id"])
    if row is None:  # deleted in between
        raise WorkflowNotFoundError(reference)
    if etag not in ("", _etag(row["id"], row["revision"])):
        raise EtagMismatchError(reference)
    return row


async def _row(session: Session, org: str, workflow_id: UUID, revision: int) -> asyncpg.Record:
    row = await session.fetchrow(_GET, org, workflow_id, revision)
    assert row is not None  # noqa: S101 - written in this transaction
    return row


def _workflow(row: asyncpg.Record, latest: int = 0) -> Workflow:
    """Return a revision of a workflow, with the etag that it has, or had when `latest` was the latest."""
    unreadable = [name for name in ("create_time", "update_time") if row[name] in (None, records.UNREADABLE_TIME)]
    try:
        document = records.document(row["document"])
    except Exception:
        document = {}
        unreadable.append("document")
    decided: dict[str, Any] = {}
    for name, read in _DECIDED.items():
        try:
            decided[name] = None if row[name] is None else read(row)
        except Exception:
            unreadable.append(name)
    if unreadable:
        mending.tell(row["id"], unreadable, "workflow")
    return Workflow(
        id=row["id"],
        org=row["org_id"],
        name=row["name"],
        revision=row["revision"] or row["latest"],
        etag=_etag(row["id"], latest or row["latest"]),
        document=document,
        create_time=mending.NO_TIME if "create_time" in unreadable else row["create_time"],
        update_time=mending.NO_TIME if "update_time" in unreadable else row["update_time"],
        updated_by=row["updated_by"] or "",
        unreadable=tuple(unreadable),
        **decided,
    )


def _etag(workflow_id: UUID, revision: int) -> str:
    return hashlib.sha256(f"{workflow_id}/{revision}".encode()).hexdigest()[:16]
