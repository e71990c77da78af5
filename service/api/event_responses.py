"""Responses of a watch around events as they are stored."""

from __future__ import annotations

from collections.abc import Sequence

from flowkeep.v1 import execution_service_pb2 as pb
from persistence.model import Event
from service.api.encoded import tag
from service.wire import varint

_EVENTS = tag(pb.WatchExecutionResponse, "events")
_EVENT = tag(pb.EventBatch, "events")


class NewestEvents:
    """The response that was made last: all that watch an execution want the same, one after the other."""

    def __init__(self) -> None:
        self._ends: tuple[Event, Event] | None = None
        self._response = b""

    def response(self, events: Sequence[Event]) -> bytes:
        """Return the serialized response with these events, which follow each other."""
        if self._ends is None or self._ends[0] is not events[0] or self._ends[1] is not events[-1]:
            self._ends, self._response = (events[0], events[-1]), events_response(events)
        return self._response


def events_response(events: Sequence[Event]) -> bytes:
    """Return a serialized response around events as they are stored: their bytes are never made again."""
    parts: list[bytes] = []
    for event in events:
        parts += (_EVENT, varint(len(event.body)), event.body)
    return b"".join((_EVENTS, varint(sum(map(len, parts))), *parts))
