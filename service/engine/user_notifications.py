"""Notifications that steps send to people: sent, watched, marked as read, and removed when they are old."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import structlog

from persistence.errors import PersistenceError
from persistence.requests import Method
from persistence.user_notifications import (
    KEPT_EACH,
    NewNotification,
    Reader,
    UserNotification,
    UserNotificationRepository,
    subject,
    topic,
)
from service.engine.requests import asked
from service.engine.slices import in_one_go
from service.engine.watch import Pace, ShuttingDownError, WatchHub

log = structlog.get_logger(__name__)

PAGE = 100
"""Notifications that a watcher reads at once."""

_BATCH, _INTERVAL = 500, 60.0
"""Old ones that are removed at once, and seconds between looks for them."""


@dataclass(frozen=True, slots=True)
class Sent:
    """Notifications that follow those before, and the number up to which a watcher has all.

    `read` are numbers of others that the reader has read meanwhile.
    """

    notifications: Sequence[UserNotification]
    seq: int
    read: Sequence[int] = ()


class _Unread:
    """What a watcher has not read, as far as it knows: the newest, and what it was sent."""

    def __init__(self, seqs: Sequence[int]) -> None:
        self._seqs = set(seqs)

    def sent(self, notifications: Sequence[UserNotification]) -> None:
        """Take what the watcher is sent."""
        self._seqs.update(each.seq for each in notifications if each.read_time is None)

    def read(self, newest: Sequence[int]) -> list[int]:
        """Return what is no longer unread, of which these are the newest now."""
        if len(newest) == KEPT_EACH:
            self._seqs = {seq for seq in self._seqs if seq >= newest[-1]}
        gone = self._seqs.difference(newest)
        self._seqs -= gone
        return sorted(gone)


class UserNotifications:
    """What the handler `send_notification` and the API do with them."""

    def __init__(self, store: UserNotificationRepository, hub: WatchHub, pace: Pace) -> None:
        self._store = store
        self._hub = hub
        self._pace = pace

    async def send(self, new: NewNotification) -> int:
        """Keep a notification, once for its token, and return its number; watchers hear of it after the commit."""
        seq = await self._store.send_notification(new)
        self._hub.wake(topic(new.org, each) for each in new.recipients)
        return seq

    async def list(
        self, reader: Reader, before: int | None, limit: int, *, unread_only: bool = False
    ) -> Sequence[UserNotification]:
        """Return up to `limit` notifications of a reader, newest first, with numbers below `before`."""
        return await self._store.list_notifications(reader, before, limit, unread_only=unread_only)

    async def count_unread(self, reader: Reader) -> int:
        """Return how many notifications the reader has not read."""
        return await self._store.count_unread(reader)

    async def mark_read(self, reader: Reader, seqs: Sequence[int], up_to: int, request_id: str) -> int:
        """Mark these, or with none all up to a number, as read; return how many are left. Raises RequestIdReusedError.

        Of an equal call with the same request id only the first does it.
        """
        by = reader.subject
        request = in_one_go(
            asked(Method.MARK_NOTIFICATIONS_READ, request_id, by, seqs=sorted(set(seqs)), up_to_seq=up_to)
        )
        await self._store.mark_read(reader, seqs, up_to, request)
        self._hub.wake([topic(reader.org, subject(by))])
        return await self._store.count_unread(reader)

    async def watch(self, reader: Reader, after: int | None) -> AsyncIterator[Sent]:
        """Give all notifications of a reader behind a number, or from now on, in order; never ends by itself.

        What the reader reads meanwhile, or is no longer kept, is told once, if it was sent before or is among the
        newest KEPT_EACH that were unread when the watch began. Something comes at once, and then at least as often as
        bookmarks do. Raises CursorAheadError, ShuttingDownError.
        """
        clock = asyncio.get_running_loop().time
        # Subscribe first, then read: what is committed in between wakes the subscription.
        with self._hub.subscribe(*(topic(reader.org, each) for each in reader.recipients)) as subscription:
            cursor = await self._store.last_notification(reader.org) if after is None else after
            unread = _Unread(await self._store.unread(reader, KEPT_EACH))
            page = await self._store.follow_notifications(reader, cursor, PAGE)
            read: Sequence[int] = ()
            spoken = float("-inf")
            while True:
                if page or read or clock() - spoken >= self._pace.bookmark:
                    cursor = page[-1].seq if page else cursor
                    yield Sent(page, cursor, read)
                    unread.sent(page)
                    spoken = clock()
                if self._hub.is_closed:
                    raise ShuttingDownError
                if len(page) < PAGE:
                    silence = spoken + self._pace.bookmark - clock()
                    await subscription.wait(cursor, min(self._pace.poll, max(0.0, silence)))
                read = unread.read(await self._store.unread(reader, KEPT_EACH))
                page = await self._store.follow_notifications(reader, cursor, PAGE)

    async def tend(self) -> None:
        """Remove what is older than it is kept, until cancelled."""
        while True:
            try:
                removed = await self._store.forget_notifications(_BATCH)
            except PersistenceError as error:
                removed = 0
                log.warning("old notifications not removed", error=str(error))
            if removed < _BATCH:
                await asyncio.sleep(_INTERVAL)
