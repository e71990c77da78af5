"""A connection that holds on to what it can get: it sends half of a request, and reads no answer."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from hyperframe.frame import DataFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from tests.hostile.http2 import LARGEST_FRAME, Connection, connection, heads, request_headers

ROOM = 65_535
"""Bytes that each side takes before it has said more."""


class Holder:
    """Any number of calls on one connection. What comes for them is not read beyond what was said at first."""

    def __init__(self, connected: Connection) -> None:
        self._connection = connected
        self._next = 1
        self._room, self._initial = ROOM, ROOM
        self._rooms: defaultdict[int, int] = defaultdict(int)
        self._news = asyncio.Condition()
        self.begun: set[int] = set()
        """The streams of which an answer has begun."""
        self.ended: set[int] = set()
        self.received: defaultdict[int, int] = defaultdict(int)
        """Bytes of data by stream."""

    async def begin(self, path: str, token: str = "", count: int = 1) -> list[int]:
        """Send the headers of so many calls and return their streams."""
        block = self._connection.block(request_headers(path, token, () if token else [("authorization", "")]))
        streams = list(range(self._next, self._next + 2 * count, 2))
        self._next += 2 * count
        await self._connection.send(*(frame for stream in streams for frame in heads(block, stream)))
        return streams

    async def data(self, stream: int, body: bytes, *, end: bool = False) -> bool:
        """Send data as the server takes it. Return whether it took all before it ended the call."""
        pieces = [body[at : at + LARGEST_FRAME] for at in range(0, len(body), LARGEST_FRAME)] or [b""]
        for number, piece in enumerate(pieces):
            async with self._news:
                await self._news.wait_for(lambda: stream in self.ended or self._may_send(stream, piece))  # noqa: B023
            if stream in self.ended:
                return False
            self._room -= len(piece)
            self._rooms[stream] -= len(piece)
            is_last = end and number == len(pieces) - 1
            await self._connection.send(DataFrame(stream, piece, flags=["END_STREAM"] if is_last else []))
        return True

    async def begin_of(self, stream: int) -> None:
        """Return when the answer of a call has begun."""
        async with self._news:
            await self._news.wait_for(lambda: stream in self.begun)

    async def end_of(self, stream: int) -> None:
        """Return when the server has ended a call."""
        async with self._news:
            await self._news.wait_for(lambda: stream in self.ended)

    def _may_send(self, stream: int, piece: bytes) -> bool:
        return min(self._room, self._initial + self._rooms[stream]) >= len(piece)

    async def listen(self) -> None:
        """Take note of what the server sends, until it closes the connection."""
        async for frame in self._connection.frames():
            async with self._news:
                await self._heard(frame)
                self._news.notify_all()

    async def _heard(self, frame: Any) -> None:
        match frame:
            case SettingsFrame() if "ACK" not in frame.flags:
                self._initial = frame.settings.get(SettingsFrame.INITIAL_WINDOW_SIZE, self._initial)
                await self._connection.send(SettingsFrame(0, flags=["ACK"]))
            case PingFrame() if "ACK" not in frame.flags:
                await self._connection.send(PingFrame(0, frame.opaque_data, flags=["ACK"]))
            case WindowUpdateFrame() if frame.stream_id:
                self._rooms[frame.stream_id] += frame.window_increment
            case WindowUpdateFrame():
                self._room += frame.window_increment
            case HeadersFrame():
                self.begun.add(frame.stream_id)
            case DataFrame():
                self.received[frame.stream_id] += len(frame.data)
        if isinstance(frame, RstStreamFrame) or "END_STREAM" in frame.flags:
            self.ended.add(frame.stream_id)


@asynccontextmanager
async def holder(address: tuple[str, int], settings: Mapping[int, int] = {}) -> AsyncIterator[Holder]:
    """Give a connection that has begun, with these settings of its own."""
    async with connection(address) as connected:
        await connected.send(SettingsFrame(0, dict(settings)))
        holding = Holder(connected)
        listening = asyncio.ensure_future(holding.listen())
        try:
            yield holding
        finally:
            listening.cancel()
