"""Notifications that steps send to people: sent, watched, marked as read, and removed when they are old."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import structlog

from persistence.errors import PersistenceError
from persistence.requests import Method
from persistence.user_notifications import (
    NewNotification,
    Reader,
    UserNotification,
    UserNotificationRepository,
    topic,
)
from service.engine.requests import asked
from service.engine.slices import in_one_go
from service.engine.watch import Pace, ShuttingDownError, WatchHub

log = structlog.get_logger(__name__)

PAGE = 100
"""Notifications that a watcher is given at once: of the largest, less than 4 MiB."""

_BATCH, _INTERVAL = 500, 60.0
"""Old ones that are removed at once, and seconds between looks for them."""


@dataclass(frozen=True, slots=True)
class Sent:
    """Notifications that follow those before, and the number up to which a watcher has all."""

    notifications: Sequence[UserNotification]
    seq: int


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
        return await self._store.count_unread(reader)

    async def watch(self, reader: Reader, after: int | None) -> AsyncIterator[Sent]:
        """Give all notifications of a reader behind a number, or from now on, in order; never ends by itself.

        Something comes at once, and then at least as often as bookmarks do. Raises CursorAheadError, ShuttingDownError.
        """
        clock = asyncio.get_running_loop().time
        # Subscribe first, then read: what is committed in between wakes the subscription.
        with self._hub.subscribe(*(topic(reader.org, each) for each in reader.recipients)) as subscription:
            cursor = await self._store.last_notification(reader.org) if after is None else after
            page = await self._store.follow_notifications(reader, cursor, PAGE)
            spoken = float("-inf")
            while True:
                if page or clock() - spoken >= self._pace.bookmark:
                    cursor = page[-1].seq if page else cursor
                    yield Sent(page, cursor)
                    spoken = clock()
                if self._hub.is_closed:
                    raise ShuttingDownError
                if len(page) < PAGE:
                    silence = spoken + self._pace.bookmark - clock()
                    await subscription.wait(cursor, min(self._pace.poll, max(0.0, silence)))
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
