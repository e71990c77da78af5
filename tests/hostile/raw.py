"""An HTTP/2 client that does what no gRPC client would: half of a call, no reading, more than it may say."""

from __future__ import annotations

import asyncio
import struct
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
INITIAL_WINDOW = 65_535
_FRAME = 16_384
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """Return one frame."""
    return struct.pack("!I", len(body))[1:] + struct.pack("!BBI", kind, flags, stream) + body


def message(raw: bytes) -> bytes:
    """Return what carries a message in the data of a gRPC stream."""
    return b"\0" + struct.pack("!I", len(raw)) + raw


def _field(name: str, value: str) -> bytes:
    return b"\0" + b"".join(_number(len(text), 127) + text for text in (name.encode(), value.encode()))


def _number(value: int, most: int) -> bytes:
    if value < most:
        return bytes([value])
    found, value = bytearray([most]), value - most
    while value >= 128:
        found.append(value % 128 + 128)
        value //= 128
    return bytes([*found, value])


class Raw:
    """One connection. It reads the frames that come, but takes data only while `reads` is set."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._next = 1
        self._window, self._initial = INITIAL_WINDOW, INITIAL_WINDOW
        self._windows: defaultdict[int, int] = defaultdict(int)
        self._news = asyncio.Condition()
        self.reads = True
        self.ended: dict[int, bytes] = {}
        """The streams that the server has ended, with the last header block of each."""
        self.begun: set[int] = set()
        """The streams of which an answer has begun."""
        self.received: defaultdict[int, int] = defaultdict(int)
        """Bytes of data by stream."""
        self.gone_away = b""
        self.is_closed = False

    def begin(self, path: str, metadata: Mapping[str, str] | None = None) -> int:
        """Send the headers of a call and return its stream."""
        pseudo = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "server"}
        grpc = {"te": "trailers", "content-type": "application/grpc"}
        block = b"".join(_field(*each) for each in (pseudo | grpc | dict(metadata or {})).items())
        stream, self._next = self._next, self._next + 2
        self._writer.write(frame(HEADERS, END_HEADERS, stream, block))
        return stream

    async def data(self, stream: int, raw: bytes, *, end: bool = False) -> bool:
        """Send data as fast as the server lets it. Return whether it took all before it ended the stream."""
        for at in range(0, len(raw) or 1, _FRAME):
            part = raw[at : at + _FRAME]
            async with self._news:
                await self._news.wait_for(lambda: self._may_send(stream, len(part)))  # noqa: B023 - awaited at once
            if stream in self.ended or self.is_closed:
                return False
            self._window -= len(part)
            self._windows[stream] -= len(part)
            last = end and at + _FRAME >= len(raw)
            self._writer.write(frame(DATA, END_STREAM if last else 0, stream, part))
            await self._writer.drain()
        return True

    def _may_send(self, stream: int, size: int) -> bool:
        open_ = min(self._window, self._initial + self._windows[stream])
        return open_ >= size or stream in self.ended or self.is_closed

    def send(self, raw: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(raw)

    async def end_of(self, stream: int) -> bytes:
        """Return the last header block of a stream once the server has ended it."""
        async with self._news:
            await self._news.wait_for(lambda: stream in self.ended or self.is_closed)
        return self.ended.get(stream, b"")

    async def close_of_server(self) -> None:
        """Return when the server has closed the connection."""
        async with self._news:
            await self._news.wait_for(lambda: self.is_closed)

    async def listen(self) -> None:
        """Read frames until the connection ends."""
        blocks: dict[int, bytes] = {}
        try:
            while True:
                head = await self._reader.readexactly(9)
                body = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
                async with self._news:
                    self._heard(kind, flags, stream, body, blocks)
                    self._news.notify_all()
        except (OSError, asyncio.IncompleteReadError):
            async with self._news:
                self.is_closed = True
                self._news.notify_all()

    def _heard(self, kind: int, flags: int, stream: int, body: bytes, blocks: dict[int, bytes]) -> None:
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(body), 6):
                name, value = struct.unpack_from("!HI", body, at)
                if name == 4:
                    self._initial = value
            self.send(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.send(frame(PING, ACK, 0, body))
        elif kind == WINDOW and stream:
            self._windows[stream] += int.from_bytes(body, "big")
        elif kind == WINDOW:
            self._window += int.from_bytes(body, "big")
        elif kind == GOAWAY:
            self.gone_away = body
        elif kind == DATA:
            self.received[stream] += len(body)
            if self.reads and body:
                grown = struct.pack("!I", len(body))
                self.send(frame(WINDOW, 0, 0, grown) + frame(WINDOW, 0, stream, grown))
        if kind == HEADERS:
            blocks[stream] = body
            self.begun.add(stream)
        if kind == RESET or (kind in (HEADERS, DATA) and flags & END_STREAM):
            self.ended[stream] = blocks.get(stream, b"")


@asynccontextmanager
async def connected(address: tuple[str, int], settings: bytes = b"") -> AsyncIterator[Raw]:
    """Give a connection on which both sides have said how they begin."""
    reader, writer = await asyncio.open_connection(*address)
    raw = Raw(reader, writer)
    raw.send(_PREFACE + frame(SETTINGS, 0, 0, settings))
    listening = asyncio.ensure_future(raw.listen())
    try:
        yield raw
    finally:
        listening.cancel()
        writer.close()
