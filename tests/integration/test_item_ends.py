"""What is on its way or runs in an item that is stopped because another one has failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowkeep.handlers import HandlerError, StepContext, handler
from tests.integration.conftest import Serve
from tests.integration.stage import Stage, ended, made, step
from tests.integration.test_effects import Held

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
