"""Executions of very many steps are shown as they were, cancelled and taken over, and nothing holds the loop."""

from __future__ import annotations

from flowkeep import Execution
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_BASIC
from tests.hostile.attacked import MIB
from tests.integration.stage import step, wait_step

ITEMS = 10_000
SHOWN = 1_000


async def test_many_steps_hold_nothing(attack):
    attacked = await attack(max_execution_bytes=64 * MIB)
    each = {"items": "input.items", "steps": [step("one", "transform", value=1)]}
    async with attacked.client() as client:
        await client.apply([{"name": "many", "steps": [{"id": "each", "for_each": each}, wait_step("last")]}])
        execution_id = (await client.execute("many", {"items": [0] * ITEMS})).execution_id
        async for event in client.watch(execution_id):
            if event.HasField("step_waiting"):
                break
        now = await client.get_execution(execution_id, EXECUTION_VIEW_BASIC)
        then = await client.get_execution(execution_id, at_seq=now.last_seq)
        assert (then.step_counts.completed, len(then.steps)) == (ITEMS + 1, SHOWN)
        cancelled = await client.cancel(execution_id)
    assert cancelled.execution.state in (Execution.STATE_CANCELLING, Execution.STATE_CANCELLED)
    assert (len(cancelled.steps), cancelled.steps_omitted) == (SHOWN, True)
