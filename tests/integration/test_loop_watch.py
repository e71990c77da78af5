"""Who holds up the event loop is told of."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import structlog

from service.engine.handlers.attempt import CURRENT
from service.engine.running import loop_watch
from service.engine.running.loop_watch import LOOK, LoopWatch
from tests.patience import PATIENCE


async def test_a_loop_that_was_held_up_is_reported_and_no_other(monkeypatch):
    monkeypatch.setattr(loop_watch, "LOOK", 0.0)
    said: asyncio.Queue[tuple[str, dict[str, object]]] = asyncio.Queue()

    def hear(logger, method, entry):
        said.put_nowait((method, entry))
        raise structlog.DropEvent

    structlog.configure(processors=[hear])
    watching = asyncio.create_task(LoopWatch().live())
    for _ in range(10):  # it has begun, and was not held up
        await asyncio.sleep(0)
    time.sleep(0.5)  # noqa: ASYNC251 - what must not be done
    async with asyncio.timeout(PATIENCE):
        method, entry = await said.get()
    watching.cancel()
    assert (method, entry["event"]) == ("warning", "the event loop was held up")
    assert float(str(entry["seconds"])) >= 0.25


async def test_an_attempt_is_to_blame_for_its_own_part_of_a_hold():
    watch = LoopWatch()
    attempt: Any = SimpleNamespace(facts={"step": "b"})

    def hold(looks):
        for _ in range(looks):
            time.sleep(2 * LOOK)  # it must block the loop: a look counts the time in which nothing else could run
            watch.look()

    hold(3)  # nobody's
    assert watch.culprit() is None
    CURRENT.set(attempt)
    hold(1)
    assert watch.culprit() is None
    hold(3)
    assert watch.culprit() is attempt
