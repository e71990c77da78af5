"""The servicer of NotificationService: reads the request, makes one call, builds the response."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from flowkeep.v1 import notification_service_pb2 as pb
from flowkeep.v1.notification_service_pb2_grpc import NotificationServiceServicer
from persistence.model import Scope
from persistence.user_notifications import Reader
from service.api.errors import invalid
from service.api.identity import current_identity
from service.api.notifications import notification_message
from service.api.page_tokens import PageTokens
from service.api.paging import fitting_in_slices, page_limit
from service.engine.user_notifications import UserNotifications


class NotificationServicer(NotificationServiceServicer):
    """Notifications over gRPC: each caller has those that are addressed to it."""

    def __init__(self, notifications: UserNotifications, tokens: PageTokens) -> None:
        self._notifications = notifications
        self._tokens = tokens

    async def ListNotifications(
        self, request: pb.ListNotificationsRequest, context: Any
    ) -> pb.ListNotificationsResponse:
        reader, limit = _reader(), page_limit(request.page_size)
        scope = Scope(reader.org, reader.subject)
        after = self._tokens.read_path(request.page_token, request, scope)
        found = await self._notifications.list(
            reader, int(after) if after else None, limit + 1, unread_only=request.unread_only
        )
        shown = await fitting_in_slices(map(notification_message, found[:limit]))
        response = pb.ListNotificationsResponse(notifications=shown)
        if len(found) > len(shown):
            response.next_page_token = self._tokens.make_path(request, scope, str(shown[-1].seq))
        if request.count_unread:
            response.unread_count = await self._notifications.count_unread(reader)
        return response

    async def MarkNotificationsRead(
        self, request: pb.MarkNotificationsReadRequest, context: Any
    ) -> pb.MarkNotificationsReadResponse:
        if bool(request.seqs) == bool(request.up_to_seq):
            raise invalid("seqs", "must name notifications where up_to_seq does not, and only there")
        left = await self._notifications.mark_read(_reader(), request.seqs, request.up_to_seq, request.request_id)
        return pb.MarkNotificationsReadResponse(unread_count=left)

    async def WatchNotifications(
        self, request: pb.WatchNotificationsRequest, context: Any
    ) -> AsyncIterator[pb.WatchNotificationsResponse]:
        after = request.after_seq if request.HasField("after_seq") else None
        async for sent in self._notifications.watch(_reader(), after):
            rest, read = sent.notifications, sent.read
            while True:
                shown = await fitting_in_slices(map(notification_message, rest))
                rest = rest[len(shown) :]
                seq = shown[-1].seq if rest else sent.seq
                yield pb.WatchNotificationsResponse(notifications=shown, seq=seq, read_seqs=read)
                read = ()
                if not rest:
                    break


def _reader() -> Reader:
    caller = current_identity.get()
    return Reader(caller.org, caller.subject, tuple(sorted(caller.groups)))
