"""Operations in bulk: each step of one is a single transaction, of a few statements for all of its executions.

It locks the row of the operation before those of executions, which it locks by their ids as all others do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import structlog
from sqlalchemy import select

from persistence.bulks import (
    KEPT_FOR,
    MOST_RUNNING,
    TAKEN_FOR,
    Advanced,
    Bulk,
    BulkAction,
    BulkOutcome,
    BulkResult,
    BulkState,
    Judged,
    NewBulk,
    judged,
    message_body,
    message_id,
    same,
)
from persistence.errors import BulkNotFoundError, TooManyBulksError
from persistence.listing import ExecutionFilter, ExecutionOrder
from persistence.model import ExecutionState, Mail, Message, Scope
from persistence.postgres.claims import LIVE
from persistence.postgres.connection import Database, Session, rendered
from persistence.postgres.executions import chosen, first, of_workflow
from persistence.postgres.messages import AWAKE, COUNTED, KIND
from persistence.postgres.notifications import Notifications
from persistence.postgres.records import document, encoded, selected
from persistence.postgres.requests import keep
from persistence.postgres.tables import executions
from persistence.requests import Request

_COLUMNS = (
    "org_id", "id", "incarnation", "cursor", "create_time", "end_time", "epoch", "most", "rate", "matched", "done",
    "refused", "not_found", "matched_more", "state", "action", "owner", "created_by", "stopped_by", "reason", "options",
    "filter", "asked", "under_way",
)  # fmt: skip
_BULK = selected(_COLUMNS, "b.")
_SEEN = "b.org_id = $1 AND ($2::text IS NULL OR b.created_by = $2)"

# Of two starts at once the second one counts the first.
_ONE_BY_ONE = "SELECT pg_advisory_xact_lock(hashtextextended($1, 7102))"
_RUNNING = "SELECT count(*) FROM bulks WHERE org_id = $1 AND end_time IS NULL"
_OF_REQUEST = f"SELECT {_BULK} FROM bulks b WHERE b.org_id = $1 AND b.request_id = $2"  # noqa: S608 - our own columns
_NEWEST = "SELECT id FROM executions WHERE org_id = $1 ORDER BY id DESC LIMIT 1"
_START = f"""
INSERT INTO bulks AS b (org_id, id, owner, created_by, action, options, reason, filter, asked, most, rate, matched,
    matched_more, cursor, request_id, state, create_time, epoch, done, refused, not_found, stopped_by)
VALUES ($1, $2, $3, $4, $5, $6::jsonb, $7, $8::jsonb, $9::jsonb, $10, $11, $12, $13, $14, $15, 'RUNNING',
    clock_timestamp(), 0, 0, 0, 0, '')
RETURNING {_BULK}"""  # noqa: S608 - our own columns

_GET = f"SELECT {_BULK} FROM bulks b WHERE {_SEEN} AND b.id = $3"  # noqa: S608 - our own columns
_LIST = f"""
SELECT {_BULK} FROM bulks b
WHERE {_SEEN} AND (cardinality($3::text[]) = 0 OR b.state = ANY ($3)) AND ($4::uuid IS NULL OR b.id < $4)
ORDER BY b.id DESC LIMIT $5"""  # noqa: S608 - our own columns
_RESULTS = """
SELECT number, execution_id, outcome, reason FROM bulk_results
WHERE org_id = $1 AND bulk_id = $2 AND (cardinality($3::text[]) = 0 OR outcome = ANY ($3)) AND number > $4
ORDER BY number LIMIT $5"""
_STOP = f"""
UPDATE bulks b SET state = 'STOPPED', stopped_by = $4, end_time = clock_timestamp()
WHERE {_SEEN} AND b.id = $3 AND b.state = 'RUNNING'"""  # noqa: S608 - our own condition

_TAKE = f"""
WITH free AS MATERIALIZED (
    SELECT b.org_id, b.id FROM bulks b
    WHERE (b.end_time IS NULL OR b.end_time > now() - interval '{TAKEN_FOR.days} days' AND cardinality(b.under_way) > 0)
      AND b.id <> ALL ($2::uuid[]) AND {LIVE.format("$1::uuid")}
      AND (b.incarnation IS NULL OR b.incarnation = $1 OR NOT {LIVE.format("b.incarnation")})
    ORDER BY b.create_time LIMIT $3 FOR NO KEY UPDATE OF b SKIP LOCKED)
UPDATE bulks b SET incarnation = $1, epoch = b.epoch + 1 FROM free f
WHERE b.org_id = f.org_id AND b.id = f.id RETURNING {_BULK}"""  # noqa: S608 - our own columns
_HOLD = """
SELECT true FROM bulks WHERE org_id = $1 AND id = $2 AND incarnation = $3 AND epoch = $4 AND cursor = $5
  AND state = ANY ($6::text[]) FOR NO KEY UPDATE"""
_RESERVE = f"""
UPDATE bulks b SET under_way = $3
WHERE b.org_id = $1 AND b.id = $2 AND coalesce(cardinality(b.under_way), 0) = 0
RETURNING {_BULK}"""  # noqa: S608 - our own columns
_LOCK = """
SELECT id, state, ending IS NOT NULL AS is_ending, pause->>'is_joined' IS DISTINCT FROM 'true'
    AND (coalesce(pause->>'step', '') <> '' OR coalesce(pause->>'workflow_pause_id', '') <> '') AS has_joinable_pause
FROM executions
WHERE org_id = $1 AND id = ANY ($2::uuid[]) AND ($3::text IS NULL OR owner = $3) ORDER BY id FOR NO KEY UPDATE"""
_UNSEEN = f"""
SELECT execution_id, {KIND} AS kind FROM messages WHERE org_id = $1 AND execution_id = ANY ($2::uuid[])
ORDER BY execution_id, create_time, id"""  # noqa: S608 - our own names
_SEND = f"""
WITH sent AS (
    INSERT INTO messages AS m (org_id, execution_id, id, kind, create_time, sender, body)
    SELECT $1, u.execution_id, u.id, $4, clock_timestamp(), $5, $6::jsonb
    FROM unnest($2::uuid[], $3::uuid[]) AS u(execution_id, id)
    ON CONFLICT DO NOTHING RETURNING m.execution_id, m.id, m.create_time)
UPDATE executions e SET {COUNTED}, {AWAKE} FROM sent s WHERE e.org_id = $1 AND e.id = s.execution_id
RETURNING e.id, e.epoch, e.incarnation, e.mail, s.id AS message_id, s.create_time"""  # noqa: S608 - our own parts
_KEEP = """
INSERT INTO bulk_results (org_id, bulk_id, number, execution_id, outcome, reason)
SELECT $1, $2, $3::int + u.place, u.execution_id, u.outcome, u.reason
FROM unnest($4::uuid[], $5::text[], $6::text[]) WITH ORDINALITY AS u(execution_id, outcome, reason, place)"""
_ADVANCE = f"""
UPDATE bulks b SET cursor = $3, under_way = NULL, done = b.done + $4, refused = b.refused + $5,
    not_found = b.not_found + $6,
    state = CASE WHEN $7::bool AND b.end_time IS NULL THEN 'COMPLETED' ELSE b.state END,
    end_time = CASE WHEN $7 AND b.end_time IS NULL THEN clock_timestamp() ELSE b.end_time END
WHERE b.org_id = $1 AND b.id = $2 RETURNING {_BULK}"""  # noqa: S608 - our own columns

# Results first, some at a time: an operation goes with the last of them.
_OLD = f"""
SELECT org_id, id FROM bulks WHERE end_time < clock_timestamp() - interval '{KEPT_FOR.days} days'
ORDER BY end_time LIMIT 1 FOR UPDATE SKIP LOCKED"""  # noqa: S608 - our own number
_FORGET_RESULTS = """
WITH some AS (SELECT number FROM bulk_results WHERE org_id = $1 AND bulk_id = $2 ORDER BY number LIMIT $3),
gone AS (
    DELETE FROM bulk_results WHERE org_id = $1 AND bulk_id = $2 AND number <= (SELECT max(number) FROM some)
    RETURNING 1)
SELECT count(*) FROM gone"""
_FORGET = "DELETE FROM bulks WHERE org_id = $1 AND id = $2"

log = structlog.get_logger(__name__)

_filter = msgspec.json.Decoder(ExecutionFilter)


class _Standing(msgspec.Struct, frozen=True):
    """An execution as far as it decides what may be sent to it."""

    id: UUID
    state: ExecutionState
    ending: bool | None
    has_joinable_pause: bool


def _standing(row: asyncpg.Record) -> _Standing:
    return _Standing(row["id"], ExecutionState(row["state"]), row["is_ending"] or None, row["has_joinable_pause"])


class PostgresBulks:
    """Implements BulkRepository."""

    _database: Database
    _notifications: Notifications

    async def start_bulk(self, new: NewBulk, request: Request | None = None) -> Bulk:
        """See BulkRepository."""
        org = new.scope.org
        async with self._database.session() as session, session.transaction():
            if request is not None and await keep(session, org, request) is not None:
                row = await session.fetchrow(_OF_REQUEST, org, request.id)
                if row is None:
                    raise BulkNotFoundError(new.id)
                return _bulk(row)
            if request is not None and (row := await session.fetchrow(_OF_REQUEST, org, request.id)) is not None:
                return same(_bulk(row), new, request)
            await session.execute(_ONE_BY_ONE, org)
            if await session.fetchval(_RUNNING, org) >= MOST_RUNNING:
                raise TooManyBulksError(MOST_RUNNING)
            newest = await session.fetchval(_NEWEST, org)
            row = await session.fetchrow(
                _START,
                org,
                new.id,
                new.scope.owner,
                new.created_by,
                new.action,
                encoded(dict(new.options)).decode(),
                new.reason,
                msgspec.json.encode(new.filter).decode(),
                encoded(dict(new.asked)).decode(),
                new.limit,
                new.rate,
                new.matched,
                new.matched_more,
                UUID(int=1 if newest is None else newest.int + 1),
                "" if request is None else request.id,
            )
        assert row is not None  # noqa: S101 - it was inserted
        return _bulk(row)

    async def get_bulk(self, scope: Scope, bulk_id: UUID) -> Bulk:
        """See BulkRepository."""
        async with self._database.session() as session:
            return await _get(session, scope, bulk_id)

    async def list_bulks(
        self, scope: Scope, states: Sequence[BulkState], after: UUID | None, limit: int
    ) -> Sequence[Bulk]:
        """See BulkRepository."""
        async with self._database.session() as session:
            return [_bulk(row) for row in await session.fetch(_LIST, *_of(scope), list(states), after, limit)]

    async def list_bulk_results(
        self, scope: Scope, bulk_id: UUID, outcomes: Sequence[BulkOutcome], after: int, limit: int
    ) -> Sequence[tuple[int, BulkResult]]:
        """See BulkRepository."""
        async with self._database.session() as session:
            await _get(session, scope, bulk_id)
            rows = await session.fetch(_RESULTS, scope.org, bulk_id, list(outcomes), after, limit)
        return [
            (row["number"], BulkResult(row["execution_id"], BulkOutcome(row["outcome"]), row["reason"])) for row in rows
        ]

    async def stop_bulk(self, scope: Scope, bulk_id: UUID, by: str) -> Bulk:
        """See BulkRepository."""
        async with self._database.session() as session:
            await session.execute(_STOP, *_of(scope), bulk_id, by)
            bulk = await _get(session, scope, bulk_id)
        self._notifications.announce([bulk_id])
        return bulk

    async def take_bulks(self, incarnation: UUID, driven: Sequence[UUID], limit: int) -> Sequence[Bulk]:
        """See BulkRepository."""
        async with self._database.session() as session:
            rows = await session.fetch(_TAKE, incarnation, list(driven), limit)
        taken = []
        for row in rows:
            try:
                taken.append(_bulk(row))
            except (KeyError, TypeError, ValueError, msgspec.MsgspecError) as error:
                log.error("operation in bulk cannot be read", bulk_id=str(row["id"]), error=type(error).__name__)
        return sorted(taken, key=lambda bulk: bulk.create_time)

    async def find_for_bulk(self, bulk: Bulk, limit: int) -> Sequence[UUID]:
        """See BulkRepository."""
        ids = executions.c.id
        found = select(ids).where(chosen(bulk.scope, bulk.filter, ExecutionOrder.NEWEST), ids < bulk.cursor)
        async with self._database.searching(bulk.scope.org) as session:
            found = await of_workflow(session, bulk.scope, found, bulk.filter.workflow)
            sql, arguments = rendered(first(found, None, bulk.filter, limit))
            return [row["id"] for row in await session.fetch(sql, *arguments)]

    async def advance_bulk(self, bulk: Bulk, found: Sequence[UUID], *, is_last: bool) -> Advanced | None:
        """See BulkRepository."""
        org, ids = bulk.scope.org, list(found)
        async with self._database.session() as session, session.transaction():
            if not await _hold(session, bulk, BulkState.RUNNING):
                return None
            verdicts = await _judged(session, bulk, ids)
            told = [each.result.execution_id for each in verdicts if each.sends]
            keys = [message_id(bulk, each) for each in told]
            body = message_body(bulk)
            sent: Sequence[asyncpg.Record] = ()
            if told:
                what = bulk.action.value, bulk.created_by, encoded(dict(body)).decode()
                sent = await session.fetch(_SEND, org, told, keys, *what)
            after = await _advance(session, bulk, [each.result for each in verdicts], is_last)
        unowned = sum(row["incarnation"] is None for row in sent)
        self._notifications.announce((row["id"] for row in sent), has_work=unowned > 0, has_mail=bool(sent))
        self._notifications.announce([bulk.id])
        mail = [
            Mail(
                row["id"],
                row["epoch"],
                (Message(row["message_id"], bulk.action.value, row["create_time"], bulk.created_by, body),),
                row["mail"],
            )
            for row in sent
        ]
        return Advanced(after, mail, unowned)

    async def reserve_bulk(self, bulk: Bulk, found: Sequence[UUID]) -> Bulk | None:
        """See BulkRepository."""
        async with self._database.session() as session, session.transaction():
            if not await _hold(session, bulk, BulkState.RUNNING):
                return None
            row = await session.fetchrow(_RESERVE, bulk.scope.org, bulk.id, list(found))
        return None if row is None else _bulk(row)

    async def record_bulk(self, bulk: Bulk, results: Sequence[BulkResult], *, is_last: bool) -> Bulk | None:
        """See BulkRepository."""
        async with self._database.session() as session, session.transaction():
            if not await _hold(session, bulk, BulkState.RUNNING, BulkState.STOPPED):
                return None
            after = await _advance(session, bulk, results, is_last)
        self._notifications.announce([bulk.id])
        return after

    async def forget_bulks(self, limit: int) -> int:
        """See BulkRepository."""
        async with self._database.session() as session, session.transaction():
            if (old := await session.fetchrow(_OLD)) is None:
                return 0
            removed = int(await session.fetchval(_FORGET_RESULTS, *old, limit))
            if removed < limit:
                await session.execute(_FORGET, *old)
            return removed + 1


def _of(scope: Scope) -> tuple[str, str | None]:
    return scope.org, scope.owner


async def _get(session: Session, scope: Scope, bulk_id: UUID) -> Bulk:
    row = await session.fetchrow(_GET, *_of(scope), bulk_id)
    if row is None:
        raise BulkNotFoundError(bulk_id)
    return _bulk(row)


async def _hold(session: Session, bulk: Bulk, *states: BulkState) -> bool:
    """Lock an operation, if it stands as this process knows it."""
    known = bulk.scope.org, bulk.id, bulk.incarnation, bulk.epoch, bulk.cursor
    return await session.fetchval(_HOLD, *known, list(states)) is not None


async def _judged(session: Session, bulk: Bulk, ids: list[UUID]) -> Sequence[Judged]:
    """Lock executions and return what comes of each, in their order."""
    rows = await session.fetch(_LOCK, bulk.scope.org, ids, bulk.scope.owner) if ids else []
    standing = {row["id"]: _standing(row) for row in rows}
    unseen = defaultdict[UUID, list[str]](list)
    for row in await session.fetch(_UNSEEN, bulk.scope.org, list(standing)) if standing else ():
        unseen[row["execution_id"]].append(row["kind"])
    return [judged(bulk, standing.get(each), each, unseen[each]) for each in ids]


async def _advance(session: Session, bulk: Bulk, results: Sequence[BulkResult], is_last: bool) -> Bulk:
    """Keep what came of executions, and how far the operation has come, which is locked."""
    key = bulk.scope.org, bulk.id
    parts: tuple[list[Any], ...] = ([], [], [])
    for each in results:
        for part, value in zip(parts, (each.execution_id, each.outcome.value, each.reason), strict=True):
            part.append(value)
    if results:
        await session.execute(_KEEP, *key, bulk.seen, *parts)
    counted = (parts[1].count(outcome) for outcome in (BulkOutcome.DONE, BulkOutcome.REFUSED, BulkOutcome.NOT_FOUND))
    cursor = results[-1].execution_id if results else bulk.cursor
    ends = is_last or bulk.left <= len(results)
    row = await session.fetchrow(_ADVANCE, *key, cursor, *counted, ends)
    assert row is not None  # noqa: S101 - it is locked
    return _bulk(row)


def _bulk(row: asyncpg.Record) -> Bulk:
    where = _filter.decode(row["filter"])
    return Bulk(
        id=row["id"],
        scope=Scope(row["org_id"], row["owner"]),
        created_by=row["created_by"],
        action=BulkAction(row["action"]),
        options=document(row["options"]),
        reason=row["reason"],
        filter=replace(where, states=tuple(where.states), tags=tuple(where.tags)),
        asked=document(row["asked"]),
        limit=row["most"],
        rate=row["rate"],
        matched=row["matched"],
        matched_more=row["matched_more"],
        state=BulkState(row["state"]),
        create_time=row["create_time"],
        end_time=row["end_time"],
        stopped_by=row["stopped_by"],
        cursor=row["cursor"],
        counts={
            BulkOutcome.DONE: row["done"],
            BulkOutcome.REFUSED: row["refused"],
            BulkOutcome.NOT_FOUND: row["not_found"],
        },
        under_way=tuple(row["under_way"] or ()),
        incarnation=row["incarnation"],
        epoch=row["epoch"],
    )
