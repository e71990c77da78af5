"""What is on its way or runs in an item that is stopped because another one has failed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from flowkeep.handlers import HandlerError, StepContext, handler
from tests.integration.conftest import Serve
from tests.integration.stage import Stage, ended, made, step
from tests.integration.test_effects import Held
from tests.patience import PATIENCE

INDEX = "${ index }"


def each(*steps: dict[str, Any]) -> dict[str, Any]:
    """Run these steps for two items at once, until one fails."""
    return {"id": "each", "for_each": {"items": "[0, 1]", "max_parallel": 2, "steps": list(steps)}}


def part(stage: Stage) -> Callable[..., Any]:
    """A handler that waits at the gate of its item, and fails in the first one."""

    @handler("part", effect="idempotent")
    async def part(context: StepContext, index: int) -> None:
        await stage._enter(context)
        await stage.opened[f"item {index}"].wait()
        if index == 0:
            raise HandlerError("BROKEN", "as the test wants it", retryable=False)

    return part


async def test_a_start_that_was_on_its_way_when_its_item_was_stopped_is_not_called(serve: Serve, stage: Stage) -> None:
    held = Held()
    held.is_open = True
    served = await serve([part(stage), *stage.handlers()], wrap=held.wrap)
    execution = await served.client.execute(
        await made(served.client, each(step("part", "part", index=INDEX), step("next", "count")))
    )
    await stage.called("each[0].part")
    await stage.called("each[1].part")
    held.is_open = False
    stage.open("item 1")
    await held.submitted(1)
    stage.open("item 0")
    await held.submitted(2)
    await held.let_first_through()
    held.let_through()
    found = await ended(served.client, execution.execution_id)
    assert found.failure.code == "STEP_FAILED"
    assert stage.attempts("each[1].next") == []


class Threads:
    """A sync handler that fails in the first item; in the second it returns when it is told to stop, or never."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.fails = threading.Event()
        self.released = threading.Event()

    def handlers(self) -> list[Callable[..., Any]]:
        @handler("part")
        def part(context: StepContext, index: int, heeds: bool = True) -> None:
            if index == 0:
                self.fails.wait(PATIENCE)
                raise HandlerError("BROKEN", "as the test wants it", retryable=False)
            self.begun.set()
            give_up = time.monotonic() + PATIENCE
            while time.monotonic() < give_up and not self.released.wait(0.01) and not (heeds and context.cancelled):
                pass

        return [part]


async def stopped(served: Any, execution: Any) -> Any:
    """The second item of an execution that has ended."""
    found = await ended(served.client, execution.execution_id)
    assert found.failure.code == "STEP_FAILED"
    return next(each for each in found.steps if each.path == "each[1].part")


async def test_a_thread_of_a_stopped_item_that_heeds_it_has_stopped(serve: Serve) -> None:
    threads = Threads()
    served = await serve(threads.handlers(), cancel_grace=PATIENCE)
    execution = await served.client.execute(await made(served.client, each(step("part", "part", index=INDEX))))
    assert await asyncio.to_thread(threads.begun.wait, PATIENCE)
    threads.fails.set()
    assert not (await stopped(served, execution)).HasField("failure")


async def test_a_thread_whose_time_was_over_when_its_item_was_stopped_may_still_take_effect(serve: Serve) -> None:
    threads, held = Threads(), Held()
    held.is_open = True
    served = await serve(threads.handlers(), wrap=held.wrap)
    slow = step("part", "part", index=INDEX, heeds=False, timeout=4.0)
    execution = await served.client.execute(await made(served.client, each(slow)))
    assert await asyncio.to_thread(threads.begun.wait, PATIENCE)
    held.is_open = False
    threads.fails.set()
    await held.submitted(2)  # the failure of the one, and what its time has made of the other
    held.let_through()
    step_ = await stopped(served, execution)
    threads.released.set()
    assert step_.failure.code == "OUTCOME_UNKNOWN"
