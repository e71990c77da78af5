"""Connections of HTTP/2 whose frames a test writes as it likes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
)

from tests.patience import PATIENCE

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LARGEST_FRAME = 16_384

Headers = Sequence[tuple[str, str | bytes]]


def message(body: bytes, flag: int = 0, length: int | None = None) -> bytes:
    """A message of gRPC: whether it is compressed, its length, and what it is."""
    return bytes([flag]) + (len(body) if length is None else length).to_bytes(4, "big") + body


def request_headers(path: str, token: str, more: Headers = ()) -> Headers:
    """The headers of a call; those in `more` replace those of the same name, and one without value is left out."""
    usual: dict[str, str | bytes] = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "flowkeep",
        "te": "trailers",
        "content-type": "application/grpc",
        "authorization": f"Bearer {token}",
    }
    given = dict(more)
    extra = [(name, value) for name, value in more if name not in usual]
    return [(name, given.get(name, value)) for name, value in usual.items() if given.get(name, value)] + extra


class Connection:
    """One connection. Its encoder uses no table, so that each block of headers can be sent any number of times."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._encoder = Encoder()
        self._encoder.header_table_size = 0
        self._decoder = Decoder()
        self.usual = b""
        """The headers of a flood."""

    def block(self, headers: Headers) -> bytes:
        """A block of headers."""
        encoded: bytes = self._encoder.encode([(name, value, True) for name, value in headers])
        return encoded

    async def send(self, *frames: Frame | bytes) -> None:
        """Send frames, or bytes that need not be any. Raises OSError when the server has closed the connection."""
        self._writer.write(b"".join(each if isinstance(each, bytes) else each.serialize() for each in frames))
        await self._writer.drain()

    async def frames(self) -> AsyncIterator[Frame]:
        """What the server sends, until it closes the connection."""
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = await self._reader.readexactly(9)
                frame, length = Frame.parse_frame_header(memoryview(head))
                frame.parse_body(memoryview(await self._reader.readexactly(length)))
                yield frame

    async def acknowledge(self) -> None:
        """Hold to the server's settings from here on: until a client says so, gRPC lets it have more."""
        async for frame in self.frames():
            if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
                return await self.send(SettingsFrame(0, flags=["ACK"]))

    async def drain(self) -> None:
        """Read what the server sends and forget it, until it closes the connection."""
        with suppress(OSError):
            while await self._reader.read(1 << 16):
                pass

    async def outcome(self, stream: int = 1) -> str:
        """How a call ended: `grpc-status` and its text, or what happened instead."""
        status = ""
        async with asyncio.timeout(PATIENCE):
            async for frame in self.frames():
                if isinstance(frame, GoAwayFrame):
                    return f"GOAWAY {frame.error_code}"
                if isinstance(frame, HeadersFrame):
                    found = {str(name): str(value) for name, value in self._decoder.decode(frame.data)}
                    status = _status(found) or status
                    if status and frame.stream_id == stream and "END_STREAM" in frame.flags:
                        return status
                if isinstance(frame, RstStreamFrame) and frame.stream_id == stream:
                    return status or f"RST_STREAM {frame.error_code}"
        return status or "closed"


def _status(headers: dict[str, str]) -> str:
    if "grpc-status" in headers:
        return headers["grpc-status"]
    return "" if headers.get(":status") == "200" else f"HTTP {headers.get(':status')}"


@asynccontextmanager
async def connection(address: tuple[str, int]) -> AsyncIterator[Connection]:
    """A connection that has begun."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        opened = Connection(reader, writer)
        await opened.send(PREFACE, SettingsFrame(0))
        yield opened
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def heads(block: bytes, stream: int) -> list[Frame]:
    """The frames of a block of headers."""
    pieces = [block[at : at + LARGEST_FRAME] for at in range(0, len(block), LARGEST_FRAME)]
    frames = [HeadersFrame(stream, pieces[0]), *(ContinuationFrame(stream, piece) for piece in pieces[1:])]
    frames[-1].flags.add("END_HEADERS")
    return frames


def call(connected: Connection, headers: Headers, body: bytes) -> list[Frame]:
    """The frames of a whole call."""
    pieces = [body[at : at + LARGEST_FRAME] for at in range(0, len(body), LARGEST_FRAME)] or [b""]
    frames = [DataFrame(1, piece) for piece in pieces]
    frames[-1].flags.add("END_STREAM")
    return [*heads(connected.block(headers), 1), *frames]
