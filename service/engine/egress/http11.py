"""HTTP/1.1 with other sides that mean no good: bounded before it is read, and nothing left over for the next call."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import h11
import httpcore2

from service.engine.egress.stream import Stream

LARGEST_HEAD, MOST_HEAD_LINES = 64 << 10, 1_000
LARGEST_TRAILER = 8 << 10
"""Bytes, also of the line that begins a chunk."""
MOST_INTERIM = 16
"""Answers of the class 1xx before the real one."""
FREE_PIECES, LEAST_PIECE = 4_096, 16
"""Pieces of a body that may have any size, and the bytes that they must have on average when there are more."""
EVENTS_A_TURN = 64
"""Pieces of an answer that are read in one turn of the loop."""

_END_OF_HEAD = re.compile(rb"\n\r?\n")


class UnboundedAnswerError(h11.RemoteProtocolError):
    """An answer costs more than any that means well; the text says in what."""


class _Reader(h11.Connection):
    """Reads one answer after the other, each within bounds."""

    def __init__(self) -> None:
        super().__init__(our_role=h11.CLIENT, max_incomplete_event_size=LARGEST_HEAD)
        self._interim = self._pieces = self._bytes = 0

    def next_event(self) -> Any:
        if self.their_state is h11.SEND_RESPONSE:
            if self._waits_for > LARGEST_HEAD:
                raise UnboundedAnswerError(f"its head has over {LARGEST_HEAD} bytes")
            head = _END_OF_HEAD.split(self.trailing_data[0], 1)[0]
            if head.count(b"\n") > MOST_HEAD_LINES:
                raise UnboundedAnswerError(f"its head has more than {MOST_HEAD_LINES} lines")
        event = super().next_event()
        if isinstance(event, h11.Data):
            self._count(len(event.data))
        elif isinstance(event, h11.InformationalResponse):
            self._interim += 1
            if self._interim > MOST_INTERIM:
                raise UnboundedAnswerError(f"there are more than {MOST_INTERIM} interim ones before it")
        elif event is h11.NEED_DATA and self.their_state is h11.SEND_BODY and self._waits_for > LARGEST_TRAILER:
            raise UnboundedAnswerError(f"a line of its chunks, or its trailer, has over {LARGEST_TRAILER} bytes")
        return event

    @property
    def _waits_for(self) -> int:
        """Bytes that have come and are no whole yet."""
        return len(self.trailing_data[0])

    def start_next_cycle(self) -> None:
        super().start_next_cycle()
        self._interim = self._pieces = self._bytes = 0

    def _count(self, length: int) -> None:
        self._pieces += 1
        self._bytes += length
        if self._pieces > FREE_PIECES and self._bytes < LEAST_PIECE * self._pieces:
            raise UnboundedAnswerError(f"it comes in more than {FREE_PIECES} pieces of under {LEAST_PIECE} bytes")


class _Exchange(httpcore2.AsyncHTTP11Connection):
    """Calls over one connection, one after the other, until something comes that belongs to none of them."""

    READ_NUM_BYTES = 16 << 10

    def __init__(self, origin: httpcore2.Origin, stream: Stream, keepalive_expiry: float | None) -> None:
        super().__init__(origin, stream, keepalive_expiry)
        self._h11_state = _Reader()
        self._stream = stream
        self._is_tainted = False
        self._events = 0

    async def handle_async_request(self, request: httpcore2.Request) -> httpcore2.Response:
        # An answer to nothing is taken for the one to this call, as it cannot be told apart. The next call of somebody
        # is not to get the real one.
        self._is_tainted |= self._stream.has_input
        self._stream.began = request.extensions.get("began")
        return await super().handle_async_request(request)

    async def _receive_event(self, timeout: float | None = None) -> Any:
        self._events += 1
        if self._events % EVENTS_A_TURN == 0:
            await asyncio.sleep(0)
        return await super()._receive_event(timeout)

    async def _response_closed(self) -> None:
        if self._is_tainted or self._h11_state.trailing_data[0]:
            async with self._state_lock:
                await self.aclose()
        else:
            await super()._response_closed()


class _Connection(httpcore2.AsyncHTTPConnection):
    """A connection to one origin that is made at the first call."""

    async def handle_async_request(self, request: httpcore2.Request) -> httpcore2.Response:
        async with self._request_lock:
            if self._connection is None:
                try:
                    stream = await self._connect(request)
                except BaseException:
                    self._connect_failed = True
                    raise
                assert isinstance(stream, Stream)  # noqa: S101 - the backend gives no others
                self._connection = _Exchange(self._origin, stream, self._keepalive_expiry)
        return await self._connection.handle_async_request(request)


class Pool(httpcore2.AsyncConnectionPool):
    """Connections to any origins, over HTTP/1.1."""

    def create_connection(self, origin: httpcore2.Origin) -> httpcore2.AsyncConnectionInterface:
        """Return a connection that is not made yet."""
        return _Connection(
            origin=origin,
            ssl_context=self._ssl_context,
            keepalive_expiry=self._keepalive_expiry,
            network_backend=self._network_backend,
        )
