"""Callers that ask at the same time share a read, and never one that began before they asked."""

import asyncio
import gc
from typing import Any

import pytest

from persistence.errors import UnavailableError
from service.engine.shared_reads import SharedReads


class Source:
    """Something to read, whose answers wait for the test."""

    def __init__(self):
        self.begun: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()
        self.count = 0

    async def read(self, key):
        self.count += 1
        number, answer = self.count, asyncio.get_running_loop().create_future()
        self.begun.put_nowait(answer)
        await answer
        return key, number


async def test_who_comes_while_a_read_runs_shares_the_next():
    source = Source()
    reads = SharedReads(source.read)
    first = asyncio.ensure_future(reads.get("a"))
    running = await source.begun.get()
    later = [asyncio.ensure_future(reads.get("a")) for _ in range(5)]
    await asyncio.sleep(0)
    running.set_result(None)
    assert await first == ("a", 1)
    (await source.begun.get()).set_result(None)
    assert await asyncio.gather(*later) == [("a", 2)] * 5


async def test_every_caller_hears_of_a_failure():
    source = Source()
    reads = SharedReads(source.read)
    callers = [asyncio.ensure_future(reads.get("a")) for _ in range(3)]
    (await source.begun.get()).set_exception(OSError("away"))
    assert [type(error) for error in await asyncio.gather(*callers, return_exceptions=True)] == [OSError] * 3


async def test_who_comes_while_the_store_does_not_answer_is_told_with_the_others():
    source = Source()
    reads = SharedReads(source.read)
    first = asyncio.ensure_future(reads.get("a"))
    running = await source.begun.get()
    later = asyncio.ensure_future(reads.get("a"))
    await asyncio.sleep(0)
    running.set_exception(UnavailableError("no connection is free"))
    assert [type(e) for e in await asyncio.gather(first, later, return_exceptions=True)] == [UnavailableError] * 2
    again = asyncio.ensure_future(reads.get("a"))
    (await source.begun.get()).set_result(None)
    assert await again == ("a", 2)


async def test_a_failure_that_nobody_waits_for_any_more_is_no_complaint(monkeypatch):
    source = Source()
    complaints: list[Any] = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "call_exception_handler", complaints.append)
    reads = SharedReads(source.read)
    caller = asyncio.ensure_future(reads.get("a"))
    running = await source.begun.get()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    failure = OSError("away")
    running.set_exception(failure)
    for _ in range(5):
        await asyncio.sleep(0)
    gc.collect()
    assert failure not in [each.get("exception") for each in complaints]  # others may be of what other tests have left
