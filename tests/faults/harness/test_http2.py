"""Is a client sent away in order, in the middle of whatever it does?"""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest

from flowkeep.channel import open_channel
from tests.faults.harness.http2 import GOAWAY, Frames
from tests.faults.harness.proxy import fault_proxy
from tests.patience import PATIENCE

PIECE, PIECES = b"x" * 40_000, 60


def frame(kind: int, flags: int, body: bytes = b"") -> bytes:
    return struct.pack("!I", len(body))[1:] + struct.pack("!BBI", kind, flags, 1) + body


SETTINGS, DATA = frame(4, 0), frame(0, 0, b"hello")
HEADERS, MORE = frame(1, 0, b"name"), frame(9, 4, b"value")


@pytest.mark.parametrize("size", [1, 2, 8, 9, 10, 100])
def test_a_frame_fits_between_whole_ones_only(size: int) -> None:
    sent = SETTINGS + DATA + HEADERS + MORE + DATA
    frames, places = Frames(), set()
    for begin in range(0, len(sent), size):
        rest = sent[begin : begin + size]
        while rest:
            before, rest = frames.split(rest)
            if frames.is_between:
                places.add(min(begin + size, len(sent)) - len(rest))
            assert before
    ends = [SETTINGS, DATA, HEADERS + MORE, DATA]
    assert places == {sum(len(part) for part in ends[: count + 1]) for count in range(len(ends))}


def test_nothing_fits_before_the_settings() -> None:
    assert not Frames().is_between


class Pieces(grpc.GenericRpcHandler):
    """Sends pieces, of which the first waits until it is let go."""

    def __init__(self) -> None:
        self.begun, self.goes_on = asyncio.Event(), asyncio.Event()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def send(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
            self.begun.set()
            await self.goes_on.wait()
            for _ in range(PIECES):
                yield PIECE

        return grpc.unary_stream_rpc_method_handler(send)


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Pieces, int]]:
    server, pieces = grpc.aio.server(), Pieces()
    server.add_generic_rpc_handlers([pieces])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield pieces, port
    finally:
        await server.stop(None)


@pytest.mark.parametrize("is_under_way", [False, True])
async def test_what_has_begun_goes_on_and_what_begins_takes_another_connection(is_under_way: bool) -> None:
    async with (
        serving() as (pieces, port),
        fault_proxy(("127.0.0.1", port), random.Random(1)) as proxy,
        open_channel(f"127.0.0.1:{proxy.port}", False, []) as channel,
    ):
        method: Any = channel.unary_stream("/pieces/Send")
        first = method(b"")
        answers = aiter(first)
        await pieces.begun.wait()
        received = []
        if is_under_way:
            pieces.goes_on.set()
            received.append(await anext(answers))
        assert proxy.send_away() == 1
        async with asyncio.timeout(PATIENCE):
            await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
            pieces.goes_on.set()
            second = [piece async for piece in method(b"")]
            received += [piece async for piece in answers]
        assert received == second == [PIECE] * PIECES
        assert await first.code() is grpc.StatusCode.OK
        assert proxy.opened == 2


def test_the_frame_says_that_streams_go_on() -> None:
    assert GOAWAY == b"\0\0\x08\x07\0\0\0\0\0" + b"\x7f\xff\xff\xff" + b"\0\0\0\0"
