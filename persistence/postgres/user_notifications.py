"""Notifications that steps send to people."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg

from persistence.errors import CursorAheadError
from persistence.postgres import records
from persistence.postgres.connection import Database, Session
from persistence.postgres.notifications import Notifications
from persistence.postgres.records import selected
from persistence.postgres.requests import keep
from persistence.requests import Request
from persistence.user_notifications import (
    KEPT_EACH,
    KEPT_FOR,
    NewNotification,
    Reader,
    Severity,
    UserNotification,
    subject,
    topic,
)

# Holds all others of the org off until the commit: numbers become visible in their order, and none is ever missed.
_NEXT = """
INSERT INTO notification_counters AS c (org_id, last_seq) VALUES ($1, 1)
ON CONFLICT (org_id) DO UPDATE SET last_seq = c.last_seq + 1 RETURNING last_seq"""
_LAST = "SELECT last_seq FROM notification_counters WHERE org_id = $1"
_SENT = "SELECT seq FROM notifications WHERE org_id = $1 AND token = $2"
_SEND = """
INSERT INTO notifications (org_id, seq, token, title, text, link, data, severity, workflow_name, execution_id,
                           step_path, create_time)
VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8, $9, $10, $11, clock_timestamp())"""
# A recipient's own number tells how many came after one without counting them.
_ADDRESS = """
WITH given AS MATERIALIZED (
    SELECT g.kind, g.name, 1 + coalesce((
        SELECT r.number FROM notification_recipients r
        WHERE r.org_id = $1 AND r.kind = g.kind AND r.name = g.name ORDER BY r.seq DESC LIMIT 1), 0) AS number
    FROM unnest($3::text[], $4::text[]) AS g(kind, name)),
added AS (
    INSERT INTO notification_recipients (org_id, kind, name, seq, number)
    SELECT $1, kind, name, $2::bigint, number FROM given)
DELETE FROM notification_recipients r USING given g, LATERAL (
    SELECT o.seq FROM notification_recipients o
    WHERE o.org_id = $1 AND o.kind = g.kind AND o.name = g.name ORDER BY o.seq LIMIT 2) o
WHERE r.org_id = $1 AND r.kind = g.kind AND r.name = g.name AND r.seq = o.seq
  AND r.number <= g.number - $5::int"""

_UNREAD = "NOT EXISTS (SELECT FROM notification_reads d WHERE d.org_id = $1 AND d.seq = r.seq AND d.subject = $4)"


def _reading(behind: str, order: str) -> str:
    """Return the statement that reads what is addressed to a reader, on one side of a number."""
    return f"""
SELECT n.seq, n.title, n.text, n.link, n.data, n.severity, n.workflow_name, n.execution_id, n.step_path,
       {selected(("create_time",), "n.")}, {selected(("read_time",), "d.")}
FROM (SELECT DISTINCT r.seq FROM unnest($2::text[], $3::text[]) AS g(kind, name), LATERAL (
        SELECT r.seq FROM notification_recipients r
        WHERE r.org_id = $1 AND r.kind = g.kind AND r.name = g.name AND {behind} AND (NOT $7::bool OR {_UNREAD})
        ORDER BY r.seq {order} LIMIT $6::int) r
      ORDER BY r.seq {order} LIMIT $6) r
JOIN notifications n ON n.org_id = $1 AND n.seq = r.seq
LEFT JOIN notification_reads d ON d.org_id = $1 AND d.seq = r.seq AND d.subject = $4
ORDER BY n.seq {order}"""  # noqa: S608 - our own texts


_LIST = _reading("r.seq < coalesce($5::bigint, 9223372036854775807)", "DESC")
_FOLLOW = _reading("r.seq > $5::bigint", "ASC")
_COUNT = f"""
SELECT count(DISTINCT r.seq) FROM unnest($2::text[], $3::text[]) AS g(kind, name)
JOIN notification_recipients r ON r.org_id = $1 AND r.kind = g.kind AND r.name = g.name
WHERE {_UNREAD}"""  # noqa: S608 - our own text
_UNREAD_ONES = f"""
SELECT DISTINCT r.seq FROM unnest($2::text[], $3::text[]) AS g(kind, name), LATERAL (
    SELECT r.seq FROM notification_recipients r
    WHERE r.org_id = $1 AND r.kind = g.kind AND r.name = g.name AND {_UNREAD} ORDER BY r.seq DESC LIMIT $5) r
ORDER BY r.seq DESC LIMIT $5"""  # noqa: S608 - our own text
# The lock passes over what is removed at this moment.
_MARK = f"""
INSERT INTO notification_reads (org_id, seq, subject, read_time)
SELECT n.org_id, n.seq, $4::text, clock_timestamp() FROM notifications n
WHERE n.org_id = $1 AND n.seq IN (
    SELECT r.seq FROM unnest($2::text[], $3::text[]) AS g(kind, name)
    JOIN notification_recipients r ON r.org_id = $1 AND r.kind = g.kind AND r.name = g.name
    WHERE CASE WHEN $6::bigint > 0 THEN r.seq <= $6 ELSE r.seq = ANY ($5::bigint[]) END AND {_UNREAD})
FOR KEY SHARE OF n
ON CONFLICT (org_id, seq, subject) DO NOTHING"""  # noqa: S608 - our own text
# Who was sent one, and who has read it, goes with it.
_FORGET = f"""
DELETE FROM notifications n USING (
    SELECT org_id, seq FROM notifications
    WHERE create_time < (SELECT clock_timestamp()) - interval '{KEPT_FOR.days} days'
    ORDER BY create_time LIMIT $1 FOR UPDATE SKIP LOCKED) o
WHERE n.org_id = o.org_id AND n.seq = o.seq"""  # noqa: S608 - our own number


_ROWS_A_TURN = 5


class PostgresUserNotifications:
    """Implements UserNotificationRepository."""

    _database: Database
    _notifications: Notifications

    async def send_notification(self, new: NewNotification) -> int:
        """See UserNotificationRepository."""
        data = None if new.data is None else records.encoded(new.data).decode()
        recipients = sorted(set(new.recipients))
        async with self._database.session() as session, session.transaction():
            seq: int = await session.fetchval(_NEXT, new.org)
            # Behind the lock: an attempt that sends the same at this moment has committed it.
            if (sent := await session.fetchval(_SENT, new.org, new.token)) is not None:
                return int(sent)
            await session.execute(
                _SEND, new.org, seq, new.token, new.title, new.text, new.link, data, new.severity,
                new.workflow_name, new.execution_id, new.step_path,
            )  # fmt: skip
            kinds, names = [each.kind for each in recipients], [each.name for each in recipients]
            await session.execute(_ADDRESS, new.org, seq, kinds, names, KEPT_EACH)
        self._notifications.announce(topic(new.org, each) for each in recipients)
        return seq

    async def list_notifications(
        self, reader: Reader, before: int | None, limit: int, *, unread_only: bool = False
    ) -> Sequence[UserNotification]:
        """See UserNotificationRepository."""
        async with self._database.session() as session:
            rows = await session.fetch(_LIST, *_read_by(reader), before, limit, unread_only)
        return await _shown(rows)

    async def follow_notifications(self, reader: Reader, after: int, limit: int) -> Sequence[UserNotification]:
        """See UserNotificationRepository."""
        async with self._database.session() as session:
            rows = await session.fetch(_FOLLOW, *_read_by(reader), after, limit, False)
            if not rows and after > (last := await _last(session, reader.org)):
                raise CursorAheadError(after, last)
        return await _shown(rows)

    async def last_notification(self, org: str) -> int:
        """See UserNotificationRepository."""
        async with self._database.session() as session:
            return await _last(session, org)

    async def count_unread(self, reader: Reader) -> int:
        """See UserNotificationRepository."""
        async with self._database.session() as session:
            return int(await session.fetchval(_COUNT, *_read_by(reader)))

    async def unread(self, reader: Reader, limit: int) -> Sequence[int]:
        """See UserNotificationRepository."""
        async with self._database.session() as session:
            return [row["seq"] for row in await session.fetch(_UNREAD_ONES, *_read_by(reader), limit)]

    async def mark_read(self, reader: Reader, seqs: Sequence[int], up_to: int, request: Request | None = None) -> None:
        """See UserNotificationRepository."""
        async with self._database.session() as session, session.transaction():
            if await keep(session, reader.org, request) is None:
                await session.execute(_MARK, *_read_by(reader), list(seqs), 0 if seqs else up_to)
        self._notifications.announce([topic(reader.org, subject(reader.subject))])

    async def forget_notifications(self, limit: int) -> int:
        """See UserNotificationRepository."""
        async with self._database.session() as session:
            return int((await session.execute(_FORGET, limit)).removeprefix("DELETE "))


async def _last(session: Session, org: str) -> int:
    return await session.fetchval(_LAST, org) or 0


def _read_by(reader: Reader) -> tuple[str, list[str], list[str], str]:
    recipients = reader.recipients
    return reader.org, [each.kind for each in recipients], [each.name for each in recipients], reader.subject


async def _shown(rows: Sequence[asyncpg.Record]) -> list[UserNotification]:
    """Return what rows hold. Reading the data of a large one takes 2 ms, and others have their turn in between."""
    shown = []
    for number, row in enumerate(rows, start=1):
        shown.append(_notification(row))
        if number % _ROWS_A_TURN == 0:
            await asyncio.sleep(0)
    return shown


def _notification(row: asyncpg.Record) -> UserNotification:
    return UserNotification(
        seq=row["seq"],
        title=row["title"],
        text=row["text"],
        link=row["link"],
        data=None if row["data"] is None else records.document(row["data"]),
        severity=Severity(row["severity"]),
        workflow_name=row["workflow_name"],
        execution_id=row["execution_id"],
        step_path=row["step_path"],
        create_time=row["create_time"],
        read_time=row["read_time"],
    )
