"""Floods of frames, and of connections that hold on to what they can get: what the attacker's process does."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import grpc
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

from flowkeep.channel import call_metadata
from tests.hostile.attacker import IS_ALONE
from tests.hostile.cases import outcome
from tests.hostile.holding import Holder, holder
from tests.hostile.http2 import Connection, Headers, connection, heads
from tests.hostile.tokens import made
from tests.integration.calls import call

Address = tuple[str, int]
Send = Callable[[Connection, int], Awaitable[None]]
"""Sends one piece of a flood, the one of this number, on a connection."""

FLOOD = 4.2 if IS_ALONE else 1.0
"""Seconds that a flood takes: enough for the calls of a polite client that make a p99."""


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


async def frames(address: Address, send: Send, connections: int, headers: Headers) -> int:
    """Flood on so many connections at a time; return how often the server closed one."""
    ways = (_flood(address, send, headers) for _ in range(connections))
    return sum(await asyncio.gather(*ways))


async def _flood(address: Address, send: Send, headers: Headers) -> int:
    until, closed = time.monotonic() + FLOOD, 0
    while time.monotonic() < until:
        with suppress(OSError):
            async with connection(address) as connected:
                connected.usual = connected.block(headers)
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


@asynccontextmanager
async def idle_streams(
    address: Address, path: str, first: bytes, connections: int, streams: int, most: int
) -> AsyncIterator[None]:
    """Open streams of which nothing comes but `first`; give when at most `most` are left open."""
    async with AsyncExitStack() as stack:
        holding = await _holders(stack, address, connections)
        for one in holding:
            for stream in await one.begin(path, count=streams):
                if first:
                    await one.data(stream, first, end=True)
            await asyncio.sleep(0.02)
        while sum(streams - len(each.ended) for each in holding) > most:  # noqa: ASYNC110 - of all of them together
            await asyncio.sleep(0.02)
        yield


@asynccontextmanager
async def endless_requests(
    address: Address, path: str, token: str, body: bytes, connections: int, requests: int
) -> AsyncIterator[None]:
    """Send so many requests but for their ends on each connection; give after two seconds of that."""
    async with AsyncExitStack() as stack:
        holding = await _holders(stack, address, connections)

        async def send(one: Holder) -> None:
            (stream,) = await one.begin(path, token)
            await one.data(stream, body)

        sending = [asyncio.ensure_future(send(one)) for one in holding * requests]
        await asyncio.wait(sending, timeout=2)
        yield
        for task in sending:
            task.cancel()


async def _holders(stack: AsyncExitStack, address: Address, count: int) -> list[Holder]:
    return [await stack.enter_async_context(holder(address)) for _ in range(count)]


async def same_calls(target: str, path: str, token: str, request: bytes, count: int) -> set[str]:
    """Send the same request so many times at once, and return what comes."""
    async with grpc.aio.insecure_channel(target) as channel:
        sent = (call(channel, path, request, call_metadata(token)) for _ in range(count))
        return {outcome(answer) for answer in await asyncio.gather(*sent)}


async def unknown_key_ids(target: str, path: str, at_a_time: int) -> tuple[int, set[str]]:
    """Call with tokens that each name another key; return how many were sent, and what came."""
    begun, numbers, came = time.monotonic_ns(), itertools.count(), set[str]()
    until = time.monotonic() + FLOOD

    async def flood() -> None:
        while time.monotonic() < until:
            bearer = f"Bearer {made({'alg': 'RS256', 'kid': f'k{begun}-{next(numbers)}'})}"
            answer = await call(channel, path, b"", (("authorization", bearer),))
            came.add(f"{answer.code} {answer.error.message}")

    async with grpc.aio.insecure_channel(target) as channel:
        await asyncio.gather(*(flood() for _ in range(at_a_time)))
    return next(numbers), came
