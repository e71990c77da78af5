"""The inbox of executions: what reaches them from outside, until their owner has seen it.

Whoever asks for something outside of the engine locks the row of the execution, counts a binding message up there and
inserts it. The lock keeps an end or a release of the owner from passing it; a conditional INSERT could not, because of
two transactions at once neither sees what the other does. All take their locks in this order: those of correlation ids,
request ids, workflows, executions by id, steps and messages.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any
from uuid import UUID

import asyncpg

from persistence.errors import ExecutionFinishedError, ExecutionNotFoundError, PersistenceError
from persistence.journal import MAIL_AT_ONCE, MessageKey
from persistence.model import FINAL_STATES, Execution, ExecutionState, Mail, Message, MessageKind, Posted, Scope
from persistence.pauses import PAUSE_ID
from persistence.postgres import mending
from persistence.postgres.connection import Database, Session, is_of_a_row
from persistence.postgres.notifications import Notifications
from persistence.postgres.records import EXECUTION_COLUMNS, MESSAGE_COLUMNS, encoded, selected
from persistence.postgres.requests import keep, known
from persistence.posting import OF_WORKFLOW, Posting, admits, check_room
from persistence.requests import Asked, Request

_IN_SCOPE = "org_id = $1 AND id = $2 AND ($3::text IS NULL OR owner = $3)"
_EXECUTION = selected(EXECUTION_COLUMNS)
_NAMES = ", ".join(EXECUTION_COLUMNS)
_MESSAGE = selected(MESSAGE_COLUMNS, "m.")

KIND = f"CASE WHEN body ? '{PAUSE_ID}' THEN '{OF_WORKFLOW}' ELSE '' END || kind"
"""The kind of a message as `kind_of` gives it."""

COUNTED = "mail = e.mail + (e.mail < 9223372036854775807)::int"
"""One binding message more, also where the number is the last of its type."""
AWAKE = "wake_time = CASE WHEN e.incarnation IS NULL THEN least(e.wake_time, clock_timestamp()) END"
"""Claimable at once. least() of a time and NULL is the time: the CASE keeps an owned execution without one."""


def send_cancel(locked: str, sender: str, reason: str) -> str:
    """Return the parts of a WITH that ask executions to cancel which the query `locked` locks: `found`, `sent`, `told`.

    The message has the id of its execution, so that there is one at most.
    """
    return f"""
found AS MATERIALIZED ({locked}),
sent AS (
    INSERT INTO messages AS m (org_id, execution_id, id, kind, create_time, sender, body)
    SELECT org_id, id, id, 'CANCEL', clock_timestamp(), {sender}, jsonb_build_object('reason', {reason}) FROM found
    WHERE end_time IS NULL AND state <> 'CANCELLING'
    ON CONFLICT DO NOTHING RETURNING m.org_id, m.execution_id, {_MESSAGE}),
told AS (
    UPDATE executions e SET {COUNTED}, {AWAKE}
    FROM sent s WHERE e.org_id = s.org_id AND e.id = s.execution_id
    RETURNING {selected(EXECUTION_COLUMNS, "e.")})"""  # noqa: S608 - our own columns


def _prefixed(table: str) -> str:
    return ", ".join(f"{table}.{name} AS message_{name}" for name in MESSAGE_COLUMNS)


def _standing(table: str) -> str:
    """Return what joins the message of an execution that has yet to see it."""
    key = f"m.org_id = {table}.org_id AND m.execution_id = {table}.id AND m.id = {table}.id"
    return f"{key} AND {table}.end_time IS NULL AND {table}.state <> 'CANCELLING'"


_SEND = send_cancel(
    f"SELECT {_EXECUTION} FROM executions WHERE {_IN_SCOPE} {{}} FOR NO KEY UPDATE",  # noqa: S608 - our own columns
    "$4",
    "$5::text",
)
# What it found, as it is now, with what stands of the message.
_ANSWER = f"""
    SELECT {", ".join(f"t.{name}" for name in EXECUTION_COLUMNS)}, {_prefixed("s")}, true AS is_new
    FROM told t, sent s
    UNION ALL
    SELECT {", ".join(f"f.{name}" for name in EXECUTION_COLUMNS)}, {_prefixed("m")}, false
    FROM found f LEFT JOIN messages m ON {_standing("f")}
    WHERE NOT EXISTS (SELECT FROM sent)"""  # noqa: S608 - our own columns
_CANCEL = f"WITH {_SEND.format('')} {_ANSWER}"
_WITH_REQUEST = "AND ($6::text IS NULL OR (SELECT count(*) FROM kept) = 1)"
# The usual case in one round trip: the request id is new, and the execution can be cancelled, or was. It demands so,
# and else undoes itself by dividing by zero.
_CANCEL_AT_ONCE = f"""
WITH kept AS (
    INSERT INTO requests (org_id, request_id, method, content_hash, execution_id, create_time)
    SELECT $1, $6::text, $7, $8, $2, clock_timestamp() WHERE $6::text IS NOT NULL
    ON CONFLICT DO NOTHING RETURNING true),
{_SEND.format(_WITH_REQUEST)}
SELECT demanded.is_usual, answer.*
FROM (SELECT 1 / (SELECT count(*) FROM found WHERE end_time IS NULL OR state = 'CANCELLED')::int AS is_usual) demanded
LEFT JOIN ({_ANSWER}) answer ON true"""  # noqa: S608 - our own statement
# A lock is written, so the answer waits for the synchronous standbys, as an earlier wish that shows in it may do still.
_CONFIRMED = f"""
SELECT {selected(EXECUTION_COLUMNS, "e.")}, {_prefixed("m")}, false AS is_new
FROM executions e LEFT JOIN messages m ON {_standing("e")}
WHERE e.org_id = $1 AND e.id = $2 AND ($3::text IS NULL OR e.owner = $3) FOR KEY SHARE OF e"""  # noqa: S608
# Whether it is there, and the state in which it ended, told by what can be read of any row.
_STATE = f"SELECT CASE WHEN end_time IS NULL THEN '' ELSE state END FROM executions WHERE {_IN_SCOPE}"  # noqa: S608

# From message to execution and not the other way, whatever the planner thinks of the tables: unseen ones are few.
_DELIVER = f"""
SELECT m.org_id, m.execution_id, e.epoch, e.incarnation, {_MESSAGE}
FROM messages m, LATERAL (
    SELECT x.epoch, x.incarnation FROM executions x WHERE x.org_id = m.org_id AND x.id = m.execution_id
      AND x.end_time IS NULL AND (x.incarnation = $1 OR x.wake_time > clock_timestamp()) OFFSET 0) e
WHERE e.incarnation IS NULL OR (m.execution_id, m.id) NOT IN (SELECT * FROM unnest($2::uuid[], $3::uuid[]))
ORDER BY m.execution_id, m.create_time, m.id LIMIT {MAIL_AT_ONCE}"""  # noqa: S608 - our own columns
_WAKE = f"""
WITH asleep AS MATERIALIZED (
    SELECT e.org_id, e.id FROM unnest($1::text[], $2::uuid[]) AS u(org_id, id)
    JOIN executions e ON e.org_id = u.org_id AND e.id = u.id
    WHERE e.incarnation IS NULL AND e.end_time IS NULL ORDER BY e.id FOR NO KEY UPDATE OF e)
UPDATE executions e SET {AWAKE} FROM asleep a
WHERE e.org_id = a.org_id AND e.id = a.id AND e.incarnation IS NULL AND e.end_time IS NULL"""  # noqa: S608
_LOCK = f"SELECT {_EXECUTION} FROM executions WHERE {_IN_SCOPE} FOR NO KEY UPDATE"  # noqa: S608 - our own columns
_KINDS = f"""
SELECT {KIND} AS kind FROM messages WHERE org_id = $1 AND execution_id = $2 ORDER BY create_time, id"""  # noqa: S608
# Of the signals that it keeps, and of those that it has yet to see.
_SIZES = """
SELECT s->>'size' AS size FROM executions e, jsonb_array_elements(e.signals) s WHERE e.org_id = $1 AND e.id = $2
UNION ALL
SELECT body->>'size' FROM messages WHERE org_id = $1 AND execution_id = $2 AND kind = 'SIGNAL'"""
_POST = f"""
INSERT INTO messages AS m (org_id, execution_id, id, kind, create_time, sender, body)
VALUES ($1, $2, $3, $4, clock_timestamp(), $5, $6::jsonb) RETURNING {_MESSAGE}"""  # noqa: S608 - our own columns
_COUNT = f"""
UPDATE executions e SET {COUNTED}, {AWAKE} WHERE e.org_id = $1 AND e.id = $2
RETURNING {selected(EXECUTION_COLUMNS, "e.")}"""  # noqa: S608 - our own columns
_UNSEEN = f"""
SELECT m.* FROM unnest($1::text[], $2::uuid[]) AS u(org_id, id), LATERAL (
    SELECT m.execution_id, {_MESSAGE} FROM messages m
    WHERE m.org_id = u.org_id AND m.execution_id = u.id ORDER BY m.create_time, m.id OFFSET 0) m"""  # noqa: S608

# What was sent to what has ended, or never was; but for signals that a retry may find still.
_DEAD_LETTERS = """
SELECT m.org_id, m.execution_id, m.id FROM messages m
WHERE NOT EXISTS (SELECT FROM executions e
                  WHERE e.org_id = m.org_id AND e.id = m.execution_id
                    AND (e.end_time IS NULL OR (m.kind = 'SIGNAL' AND e.state <> 'COMPLETED')))
LIMIT $1 FOR UPDATE OF m SKIP LOCKED"""
REMOVE_DEAD_LETTERS = f"""
WITH dead AS MATERIALIZED ({_DEAD_LETTERS})
DELETE FROM messages m USING dead d
WHERE m.org_id = d.org_id AND m.execution_id = d.execution_id AND m.id = d.id"""  # noqa: S608 - our own statement


class PostgresMessages:
    """Implements `request_cancel`, `post` and `find_asked` of ExecutionRepository and `deliver` of Journal."""

    _database: Database
    _notifications: Notifications

    async def request_cancel(
        self, scope: Scope, execution_id: UUID, by: str, reason: str, request: Request | None = None
    ) -> Posted:
        """See ExecutionRepository."""
        asked = scope.org, execution_id, scope.owner, by, reason
        try:
            row = await self._cancel_at_once(asked, request) or await self._cancel(asked, request)
            posted = Posted(mending.execution(row), _message_of(row))
        except PersistenceError as error:
            if not is_of_a_row(error):
                raise
            return await self._cancel_unread(asked, request)
        if row["is_new"]:
            self._notifications.announce([execution_id], has_work=row["incarnation"] is None, has_mail=True)
        return posted

    async def _cancel_at_once(self, asked: Sequence[Any], request: Request | None) -> asyncpg.Record | None:
        """Return the answer, None when it was not the usual case and nothing was written."""
        kept = (None, None, None) if request is None else (request.id, request.method, request.content_hash)
        async with self._database.session() as session:
            try:
                return await session.fetchrow(_CANCEL_AT_ONCE, *asked, *kept)
            except asyncpg.DivisionByZeroError:
                return None

    async def _cancel(self, asked: Sequence[Any], request: Request | None) -> asyncpg.Record:
        org, execution_id, owner, *_ = asked
        async with self._database.session() as session, session.transaction():
            if await keep(session, org, request, execution_id) is not None:
                row = await session.fetchrow(_CONFIRMED, org, execution_id, owner)
            elif (row := await session.fetchrow(_CANCEL, *asked)) is not None:
                state = row["state"]
                if row["end_time"] is not None and state != ExecutionState.CANCELLED:
                    raise ExecutionFinishedError(execution_id, mending.execution(row).state)
            if row is None:
                raise ExecutionNotFoundError(execution_id)
            return row

    async def _cancel_unread(self, asked: Sequence[Any], request: Request | None) -> Posted:
        """Ask what nobody can read, so that it can be ended."""
        org, execution_id, owner, *_ = asked
        statement = f"WITH {_SEND.format('').replace(selected(EXECUTION_COLUMNS, 'e.'), 'true')} SELECT FROM told"
        statement = statement.replace(_EXECUTION, "org_id, id, end_time, state")
        async with self._database.session() as session, session.transaction():
            was_asked = await keep(session, org, request, execution_id) is not None
            if not was_asked:
                await session.execute(statement, *asked)
            state = await session.fetchval(_STATE, org, execution_id, owner)
            if state is None:
                raise ExecutionNotFoundError(execution_id)
            if state in FINAL_STATES - {ExecutionState.CANCELLED} and not was_asked:
                raise ExecutionFinishedError(execution_id, ExecutionState(state))
        self._notifications.announce([execution_id], has_work=True, has_mail=True)
        return Posted(mending.nothing_of(execution_id, org), None)

    async def post(self, scope: Scope, execution_id: UUID, posting: Posting, request: Request | None = None) -> Posted:
        """See ExecutionRepository."""
        key = scope.org, execution_id
        async with self._database.session() as session, session.transaction():
            was_asked = await keep(session, scope.org, request, execution_id) is not None
            row = await session.fetchrow(_LOCK, *key, scope.owner)
            if row is None:
                raise ExecutionNotFoundError(execution_id)
            execution = mending.execution(row)
            if was_asked:
                return Posted(execution, None)
            unseen = [each["kind"] for each in await session.fetch(_KINDS, *key)]
            if not admits(execution, unseen, posting):
                return Posted(execution, None)
            if posting.kind is MessageKind.SIGNAL:
                sizes = [each["size"] or "0" for each in await session.fetch(_SIZES, *key)]
                check_room(execution, [int(size) for size in sizes if size.isdecimal()], posting)
            sent = (posting.id, posting.kind, posting.sender, encoded(posting.body).decode())
            (kept,) = await session.fetch(_POST, *key, *sent)
            (counted,) = await session.fetch(_COUNT, *key)
        execution, message = mending.execution(counted), mending.message(kept)
        self._notifications.announce([execution_id], has_work=execution.incarnation is None, has_mail=True)
        return Posted(execution, message)

    async def find_asked(self, org: str, request: Request) -> Asked | None:
        """See ExecutionRepository."""
        async with self._database.session() as session:
            first = await known(session, org, request)
        return None if first is None else Asked(first["execution_id"])

    async def deliver(self, incarnation: UUID, taken: Collection[MessageKey] = ()) -> Sequence[Mail]:
        """See Journal."""
        left_out = [key[0] for key in taken], [key[1] for key in taken]
        async with self._database.session() as session:
            woken: list[asyncpg.Record] = []
            while True:
                rows = await session.fetch(_DELIVER, incarnation, *left_out)
                asleep = {(row["org_id"], row["execution_id"]) for row in rows if row["incarnation"] is None}
                if not asleep:
                    break
                await session.execute(_WAKE, *zip(*asleep, strict=True))
                woken += [row for row in rows if row["incarnation"] is None]
                if len(rows) < MAIL_AT_ONCE:  # else those that are woken may have kept others out
                    break
        mail: dict[tuple[UUID, int], list[Message]] = defaultdict(list)
        for row in (*woken, *(row for row in rows if row["incarnation"] is not None)):
            mail[row["execution_id"], row["epoch"]].append(mending.message(row))
        return [Mail(execution_id, epoch, tuple(found)) for (execution_id, epoch), found in sorted(mail.items())]


async def unseen(session: Session, executions: Iterable[Execution]) -> dict[UUID, Sequence[Message]]:
    """Return the messages of executions that nobody has seen, in the order in which they came."""
    found: dict[UUID, list[Message]] = defaultdict(list)
    keys = [(each.org, each.id) for each in executions]
    if keys:
        for row in await session.fetch(_UNSEEN, *map(list, zip(*keys, strict=True))):
            found[row["execution_id"]].append(mending.message(row))
    return {execution_id: tuple(messages) for execution_id, messages in found.items()}


def _message_of(row: asyncpg.Record) -> Message | None:
    if row["message_id"] is None:
        return None
    return mending.message({name: row[f"message_{name}"] for name in MESSAGE_COLUMNS})
