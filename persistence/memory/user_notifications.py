"""Notifications that steps send to people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

from persistence.errors import CursorAheadError
from persistence.memory import invariants
from persistence.memory.json import copied
from persistence.memory.tables import NotificationRow, NotificationTable, Tables
from persistence.requests import Request
from persistence.user_notifications import (
    KEPT_EACH,
    KEPT_FOR,
    LONGEST_LINK,
    LONGEST_TEXT,
    LONGEST_TITLE,
    NewNotification,
    Reader,
    UserNotification,
)


class MemoryUserNotifications:
    """Implements UserNotificationRepository."""

    _tables: Tables

    async def send_notification(self, new: NewNotification) -> int:
        """See UserNotificationRepository."""
        org = self._tables.notifications.get(new.org) or NotificationTable()
        if (sent := org.tokens.get(new.token)) is not None:
            return sent
        row = self._row(new, org.last + 1)
        self._tables.notifications[new.org] = org
        org.last += 1
        org.rows[org.last], org.tokens[new.token] = row, org.last
        for recipient in row.recipients:
            theirs = [each for each in org.rows.values() if recipient in each.recipients]
            for old in theirs[:-KEPT_EACH]:
                old.recipients.discard(recipient)
        return org.last

    def _row(self, new: NewNotification, seq: int) -> NotificationRow:
        invariants.check_text(new.org, *(each.name for each in new.recipients))
        invariants.check_text(new.token, limit=64)
        invariants.check_text(new.title, limit=LONGEST_TITLE)
        invariants.check_text(new.text, limit=LONGEST_TEXT)
        invariants.check_text(new.link, limit=LONGEST_LINK)
        invariants.check_text(new.workflow_name, limit=128)
        kept = UserNotification(
            seq=seq,
            title=new.title,
            text=new.text,
            link=new.link,
            data=copied(new.data),
            severity=new.severity,
            workflow_name=new.workflow_name,
            execution_id=new.execution_id,
            step_path=new.step_path,
            create_time=self._tables.now(),
            read_time=None,
        )
        return NotificationRow(kept, set(new.recipients))

    async def list_notifications(
        self, reader: Reader, before: int | None, limit: int, *, unread_only: bool = False
    ) -> Sequence[UserNotification]:
        """See UserNotificationRepository."""
        found = (
            row
            for row in reversed(self._org(reader).rows_for(reader))
            if (before is None or row.kept.seq < before) and not (unread_only and reader.subject in row.reads)
        )
        return _shown(islice(found, limit), reader)

    async def follow_notifications(self, reader: Reader, after: int, limit: int) -> Sequence[UserNotification]:
        """See UserNotificationRepository."""
        org = self._org(reader)
        if after > org.last:
            raise CursorAheadError(after, org.last)
        return _shown(islice((row for row in org.rows_for(reader) if row.kept.seq > after), limit), reader)

    async def last_notification(self, org: str) -> int:
        """See UserNotificationRepository."""
        return self._tables.notifications.get(org, NotificationTable()).last

    async def count_unread(self, reader: Reader) -> int:
        """See UserNotificationRepository."""
        return sum(reader.subject not in row.reads for row in self._org(reader).rows_for(reader))

    async def unread(self, reader: Reader, limit: int) -> Sequence[int]:
        """See UserNotificationRepository."""
        rows = reversed(self._org(reader).rows_for(reader))
        return list(islice((row.kept.seq for row in rows if reader.subject not in row.reads), limit))

    async def mark_read(self, reader: Reader, seqs: Sequence[int], up_to: int, request: Request | None = None) -> None:
        """See UserNotificationRepository."""
        if self._tables.known(reader.org, request) is not None:
            return
        invariants.check_text(reader.subject)
        for row in self._org(reader).rows_for(reader):
            if row.kept.seq in seqs if seqs else row.kept.seq <= up_to:
                row.reads.setdefault(reader.subject, self._tables.now())
        self._tables.keep(reader.org, request)

    async def forget_notifications(self, limit: int) -> int:
        """See UserNotificationRepository."""
        oldest = self._tables.now() - KEPT_FOR
        old = [
            (org, seq)
            for org in self._tables.notifications.values()
            for seq, row in org.rows.items()
            if row.kept.create_time < oldest
        ][:limit]
        for org, seq in old:
            del org.rows[seq]
            org.tokens = {token: sent for token, sent in org.tokens.items() if sent != seq}
        return len(old)

    def _org(self, reader: Reader) -> NotificationTable:
        return self._tables.notifications.get(reader.org, NotificationTable())


def _shown(rows: Iterable[NotificationRow], reader: Reader) -> list[UserNotification]:
    return [replace(row.kept, data=copied(row.kept.data), read_time=row.reads.get(reader.subject)) for row in rows]
