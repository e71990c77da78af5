"""Handlers that do what no input may bring about."""

import asyncio
import re
import time

import structlog

from flowkeep.handlers import handler

kept: list[bytes] = []


@handler("works")
async def works(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


@handler("sleeps")
async def sleeps(seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251 - what must not be done


@handler("matches")
def matches(length: int) -> None:
    re.match("(a+)+$", "a" * length + "b")  # in a thread, but it lets no other one run


@handler("keeps")
async def keeps(mib: int) -> None:
    for _ in range(mib):
        kept.append(b"k" * (1 << 20))
        await asyncio.sleep(0)


@handler("complains")
async def complains() -> None:
    structlog.get_logger().error("it went wrong")
