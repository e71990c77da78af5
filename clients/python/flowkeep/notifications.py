"""The calls about notifications: those that workflows send to whoever calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable

import grpc

from flowkeep.arguments import entries, flag, whole
from flowkeep.channel import call_metadata
from flowkeep.connection import Connection
from flowkeep.errors import FlowkeepError, UnavailableError, from_rpc_error
from flowkeep.requests import RequestId, request_text
from flowkeep.retry import Backoff, may_resume
from flowkeep.v1 import notification_service_pb2 as pb
from flowkeep.v1.notification_pb2 import Notification

# The server gives a sign of life every 10 s. A stream silent for this long hangs in a proxy or a stopped process.
_SILENCE_SECONDS = 35.0


class NotificationCalls(Connection):
    """What `Client` offers of NotificationService."""

    async def list_notifications(self, *, unread_only: bool = False, page_size: int = 0) -> AsyncIterator[Notification]:
        """Yield the caller's notifications, newest first. Pages are fetched as needed."""
        request = pb.ListNotificationsRequest(
            unread_only=flag("unread_only", unread_only), page_size=whole("page_size", page_size)
        )
        while True:
            page = await self._call(self._notifications.ListNotifications, request)
            for notification in page.notifications:
                yield notification
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return

    async def count_unread_notifications(self) -> int:
        """Return how many notifications the caller has not read."""
        request = pb.ListNotificationsRequest(unread_only=True, count_unread=True, page_size=1)
        return (await self._call(self._notifications.ListNotifications, request)).unread_count

    async def mark_notifications_read(
        self, seqs: Iterable[int] = (), *, up_to_seq: int = 0, request_id: RequestId = None
    ) -> int:
        """Mark notifications as read, by their numbers or all up to one; return how many are still unread.

        Those that are read already, are of others or are no longer kept are passed over.
        """
        request = pb.MarkNotificationsReadRequest(
            seqs=[whole("seqs", each, bits=64) for each in entries("seqs", seqs)],
            up_to_seq=whole("up_to_seq", up_to_seq, bits=64),
            request_id=request_text(request_id),
        )
        return (await self._call(self._notifications.MarkNotificationsRead, request)).unread_count

    async def watch_notifications(self, after_seq: int | None = None) -> AsyncGenerator[Notification, None]:
        """Yield the caller's notifications in order, those after a number or, by default, from now on, as they come.

        Each comes exactly once, through any broken connection; there is no end. Raises OutOfRangeError for a number
        that the org has not reached, and errors of identity.
        """
        request = pb.WatchNotificationsRequest(
            after_seq=None if after_seq is None else whole("after_seq", after_seq, bits=64)
        )
        backoff = Backoff()
        while True:
            call = self._notifications.WatchNotifications(request, metadata=call_metadata(self._token))
            responses: AsyncIterator[pb.WatchNotificationsResponse] = aiter(call)
            error: FlowkeepError
            try:
                while True:
                    async with asyncio.timeout(_SILENCE_SECONDS):
                        response = await anext(responses, None)
                    if response is None:
                        error = UnavailableError(grpc.StatusCode.UNAVAILABLE, "", "the server ended the stream")
                        break
                    backoff.reset()
                    for notification in response.notifications:
                        request.after_seq = notification.seq
                        yield notification
                    request.after_seq = response.seq
            except TimeoutError:
                error = UnavailableError(grpc.StatusCode.UNAVAILABLE, "", "the server gave no sign of life")
            except grpc.aio.AioRpcError as failure:
                error = from_rpc_error(failure)
                if not may_resume(error):
                    raise error from failure
            finally:
                call.cancel()
            await asyncio.sleep(backoff.after(error))
