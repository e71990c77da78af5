"""What a process knows of an attempt that it runs, and what others may ask of it from a thread."""

from __future__ import annotations

import asyncio
from threading import Thread
from uuid import UUID

from persistence.usage import Usage
from service.engine.handlers.attempt import CURRENT, Attempt
from service.logs import _of_attempt


def attempt() -> Attempt:
    """An attempt that nothing has happened to."""
    return Attempt(UUID(int=1), "a", 1, "f", UUID(int=2), 1, org="acme")


async def test_a_thread_that_waits_for_the_stop_is_woken_by_it():
    told = attempt()
    waiting = asyncio.create_task(asyncio.to_thread(told.stop.wait, 60.0))
    while told.stop._told is None:  # noqa: ASYNC110 - another thread makes it
        await asyncio.sleep(0)
    told.tell()
    assert await waiting
    assert told.has_noticed


async def test_who_waits_for_a_stop_that_has_come_does_not_wait():
    told = attempt()
    told.tell()
    assert await asyncio.to_thread(told.stop.wait, 60.0)


def test_what_threads_of_a_handler_use_adds_up():
    using = attempt()
    using.use(0, 0, 0)
    assert using.usage is None

    def use() -> None:
        for _ in range(1_000):
            using.use(1, 2, 3)

    threads = [Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert using.usage == Usage(4_000, 8_000, 12_000)


def test_a_line_of_the_log_says_which_attempt_it_comes_from_unless_it_says_something_else():
    assert _of_attempt(None, "", {"event": "x"}) == {"event": "x"}
    token = CURRENT.set(attempt())
    try:
        line = _of_attempt(None, "", {"event": "x", "step": "own"})
    finally:
        CURRENT.reset(token)
    assert (line["step"], line["attempt"], line["org"]) == ("own", 1, "acme")
    assert line["execution_id"] == str(UUID(int=1))
