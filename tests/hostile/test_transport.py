"""FAULTS H5: calls that no client of gRPC makes, and floods of frames, beside a polite client."""

import asyncio
import gzip
import itertools
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.hostile.attacked import MIB, Attacked, token
from tests.hostile.cases import Case, each
from tests.hostile.http2 import Connection, call, connection, heads, message, request_headers

LIST = "/flowkeep.v1.WorkflowService/ListHandlers"
EXECUTE = "/flowkeep.v1.ExecutionService/Execute"
MOST = 200 * MIB
"""Bytes by which a server may grow under a flood: gRPC keeps up to 20,000 calls that it has not handed over yet, at
some 7 KiB each, however long the flood takes."""
LEFT = 100 * MIB
"""Bytes of these that gRPC may give back by and by."""
FLOOD = 0.5
"""Seconds that a flood takes."""


def bomb() -> bytes:
    """What gzip makes 60 MiB of."""
    return gzip.compress(bytes(60 * MIB))


def one(path: str = LIST, *more: tuple[str, Any], body: bytes = message(b"")) -> tuple[str, Any, bytes]:
    return path, more, body


CALLS = [
    Case("as it should be", one(), "0"),
    Case("an unknown encoding", one(LIST, ("grpc-encoding", "br"), body=message(b"abc", 1)), "13"),
    Case("compressed without an encoding", one(body=message(b"abc", 1)), "13"),
    Case("gzip that is none", one(LIST, ("grpc-encoding", "gzip"), body=message(b"abc", 1)), "13"),
    Case("gzip", one(LIST, ("grpc-encoding", "gzip"), body=message(gzip.compress(b""), 1)), "0"),
    Case("a gzip bomb", one(EXECUTE, ("grpc-encoding", "gzip"), body=message(bomb(), 1)), "8"),
    Case("metadata of 4 KiB", one(LIST, ("x-pad", "x" * 4_000)), "0"),
    Case("metadata of 8 KiB", one(LIST, ("x-pad", "x" * 7_000)), "0"),
    Case("metadata of 9 KiB", one(LIST, ("x-pad", "x" * 9_000)), "0"),
    Case("metadata of 16 KiB", one(LIST, ("x-pad", "x" * 16_400)), "8"),
    Case("metadata of 32 KiB", one(LIST, ("x-pad", "x" * 32_000)), "8"),
    Case("metadata of 64 KiB", one(LIST, *((f"x-pad-{n}", "x" * 8_000) for n in range(8))), "8"),
    Case("1,000 headers", one(LIST, *((f"x-{n}", "") for n in range(1_000))), "8"),
    Case("binary metadata that is none", one(LIST, ("x-pad-bin", "!!")), "13"),
    Case("odd bytes in metadata", one(LIST, ("x-pad", b"\xff\x01")), "0"),
    Case("an unknown method", one("/flowkeep.v1.WorkflowService/Drop"), "12"),
    Case("an unknown service", one("/flowkeep.v9.WorkflowService/ListHandlers"), "12"),
    Case("a path that is none", one("*"), "12"),
    Case("a path with odd bytes", one("/\x01%00/../.."), "12"),
    Case("a path of 8,000 characters", one("/" + "a" * 8_000), "12"),
    Case("another content type", one(LIST, ("content-type", "text/html")), "0"),
    Case("GET", one(LIST, (":method", "GET")), "RST_STREAM 2"),
    Case("no message", one(body=b""), "3"),
    Case("two messages", one(body=message(b"") * 2), "0"),
    Case("a message that is cut", one(body=message(b"", length=10)), "3"),
    Case("a message of 4 GiB", one(body=message(b"", length=2**32 - 1)), "8"),
    Case("an odd flag", one(body=message(b"", 7)), "0"),
    Case("a deadline that is none", one(LIST, ("grpc-timeout", "soon")), "13"),
    Case("a deadline in the past", one(LIST, ("grpc-timeout", "0n")), "4"),
    Case("a deadline of 2,000 years", one(LIST, ("grpc-timeout", "99999999H")), "0"),
]


async def test_calls_that_no_client_makes(attacked: Attacked):
    for case in CALLS:
        path, more, body = case.given
        async with attacked.case(case.name), connection(attacked.address) as connected:
            await connected.acknowledge()
            headers = request_headers(path, token(), more)
            await connected.send(*call(connected, headers, body))
            assert (case.name, await connected.outcome()) == (case.name, case.right)


Send = Callable[[Connection, int], Awaitable[None]]
"""Sends one piece of a flood, the one of this number, on a connection."""


def call_head(connected: Connection, path: str = LIST) -> bytes:
    return connected.block(request_headers(path, token()))


async def resets(connected: Connection, number: int) -> None:
    frames: list[Any] = []
    for stream in range(200 * number + 1, 200 * number + 200, 2):
        frames += [*heads(connected.usual, stream), RstStreamFrame(stream, 8)]
    await connected.send(*frames)


async def opened(connected: Connection, number: int) -> None:
    """Streams of which nothing follows: 1,000 on each connection, as many as it may have."""
    if number < 10:
        first = 200 * number + 1
        await connected.send(*(frame for n in range(first, first + 200, 2) for frame in heads(connected.usual, n)))
    await asyncio.sleep(0.01)


async def endless_headers(connected: Connection, number: int) -> None:
    if number == 0:
        await connected.send(HeadersFrame(1, connected.usual))
    filler = connected.block([(f"x-{number}", "x" * 4_000)])
    await connected.send(*(ContinuationFrame(1, filler) for _ in range(20)))


async def pings(connected: Connection, number: int) -> None:
    await connected.send(*(PingFrame(0, number.to_bytes(8, "big")) for _ in range(200)))


async def settings(connected: Connection, number: int) -> None:
    await connected.send(*(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: number + n}) for n in range(200)))


async def empty_data(connected: Connection, number: int) -> None:
    if number == 0:
        await connected.send(*heads(connected.usual, 1))
    await connected.send(*(DataFrame(1, b"") for _ in range(200)))


async def windows(connected: Connection, number: int) -> None:
    await connected.send(*(WindowUpdateFrame(0, 1) for _ in range(200)))


async def priorities(connected: Connection, number: int) -> None:
    await connected.send(*(PriorityFrame(n, depends_on=0, stream_weight=1) for n in range(1, 400, 2)))


async def unknown_frames(connected: Connection, number: int) -> None:
    await connected.send((b"\x00\x40\x00" + b"\xbe" + b"\x00" + bytes(4) + bytes(16_384)) * 20)


async def slow_headers(connected: Connection, number: int) -> None:
    if number < len(connected.usual):
        whole = b"".join(frame.serialize() for frame in heads(connected.usual, 1))
        await connected.send(whole[number : number + 1])
    await asyncio.sleep(0.02)


FLOODS = [
    Case("rapid resets", (resets, 5), None),
    Case("streams of which nothing follows", (opened, 5), None),
    Case("headers without end", (endless_headers, 5), None),
    Case("pings", (pings, 5), None),
    Case("settings", (settings, 5), None),
    Case("empty data", (empty_data, 5), None),
    Case("window updates", (windows, 5), None),
    Case("priorities", (priorities, 5), None),
    Case("frames of no known type", (unknown_frames, 5), None),
    Case("headers byte by byte", (slow_headers, 100), None),
]


async def flood(address: tuple[str, int], send: Send) -> int:
    """Flood until the time is over; return how often the server closed the connection."""
    until, closed = time.monotonic() + FLOOD, 0
    while time.monotonic() < until:
        with suppress(OSError):
            async with connection(address) as connected:
                connected.usual = call_head(connected)
                read = asyncio.ensure_future(connected.drain())
                try:
                    for number in itertools.count():
                        if read.done() or time.monotonic() >= until:
                            break
                        async with asyncio.timeout(0.5):
                            await send(connected, number)
                except TimeoutError:  # it reads no more
                    await asyncio.sleep(max(0.0, until - time.monotonic()))
                finally:
                    read.cancel()
        closed += 1
    return closed - 1


@each(FLOODS)
async def test_others_are_served_beside_a_flood(attacked: Attacked, case: Case):
    send, connections = case.given
    attacked.may_grow = LEFT
    async with attacked.beside(case.name):
        closed = await asyncio.gather(*(flood(attacked.address, send) for _ in range(connections)))
    told = await attacked.told()
    attacked.figures.append(f"{connections} connections, closed {sum(closed)} times")
    assert told["grown"] < MOST
