"""Retry in place over crashes: reopened once, gone on with by whoever is there, and what is done is not done again.

Holds RE1, RE2.
"""

from __future__ import annotations

import asyncio

import pytest

from flowkeep import Client, from_value
from flowkeep.v1.execution_pb2 import Execution
from tests.e2e.effects import EffectServer
from tests.e2e.history import ended, paths
from tests.e2e.process import ServerProcess, flowkeep
from tests.e2e.test_crash import call, start
from tests.patience import PATIENCE

CRASHES = {"FLOWKEEP_FAILPOINTS": "retry.after_commit_before_claim=crash", "FLOWKEEP_ENVIRONMENT": "test"}


@pytest.mark.parametrize("server", [CRASHES], indirect=True)
async def test_what_failed_is_mended_and_retried_over_two_crashes(
    server: ServerProcess, client: Client, effects: EffectServer
) -> None:
    fetch = call(effects, "fetch")
    fetch["params"]["url"] = f"{effects.url}/${{ item }}"
    fan = {"items": "['n0', 'n1', 'n2']", "max_parallel": 1, "steps": [fetch], "output": "${ item }"}
    steps = [call(effects, "first"), {"id": "fan", "for_each": fan}, call(effects, "last")]
    effects.fail("/n1", 400)
    watcher = await start(client, {"name": "mended", "steps": steps, "output": "${ steps.fan.output }"})
    before, execution_id = await watcher.ended(), watcher.execution_id
    assert (await client.get_execution(execution_id)).state == Execution.STATE_FAILED

    gate = effects.hold("/last")
    retrying = asyncio.create_task(client.retry(execution_id, "the address is mended"))
    await server.death()  # committed, and neither answered nor taken
    await server.restart()
    async with asyncio.timeout(PATIENCE):
        assert (await retrying).run == 2
        await gate.arrived.wait()
    await server.kill9()
    gate.opened.set()
    await server.restart()

    found = await ended(client, execution_id)
    assert (found.state, found.run) == (Execution.STATE_COMPLETED, 2)
    assert from_value(found.result) == ["n0", "n1", "n2"]
    events = [event async for event in client.watch(execution_id)]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events[: len(before)] == before and events[len(before)].HasField("reopened")
    assert sum(event.HasField("reopened") for event in events) == 1
    assert paths(events, "step_completed") == ["first", "fan[0].fetch", "fan[1].fetch", "fan[2].fetch", "fan", "last"]
    assert {each: len(effects.of(f"/{each}")) for each in ("first", "n0", "n1", "n2", "last")} == {
        "first": 1,
        "n0": 1,
        "n1": 2,
        "n2": 1,
        "last": 2,  # the server cannot know what became of the call that was in flight
    }


async def test_the_command_retries_and_says_what_is_wrong(
    server: ServerProcess, client: Client, effects: EffectServer
) -> None:
    effects.fail("/broken", 400, 400)
    watcher = await start(client, {"name": "broken", "steps": [call(effects, "broken")]})
    await watcher.ended()
    execution_id = watcher.execution_id

    async def retry(*options: str) -> tuple[int, str]:
        outcome = await flowkeep("retry", execution_id, *options, target=server.target)
        return outcome.code, outcome.out + outcome.err

    code, said = await retry("--step", "broken", "--input", '{"url": 7}')
    assert code != 0 and "edit.input.url" in said
    code, said = await retry("--gives", "1")
    assert code == 2 and "--skip" in said
    code, said = await retry("--watch", "--reason", "perhaps now")
    assert code == 1 and "run 2 begins: perhaps now" in said
    code, said = await retry("--skip", "broken", "--gives", '{"body": {"number": 7}}', "--watch")
    assert (code, "COMPLETED" in said) == (0, True)
    code, said = await retry()
    assert code != 0 and "only what has ended FAILED, TIMED_OUT or CANCELLED can be retried" in said
    assert len(effects.of("/broken")) == 2
