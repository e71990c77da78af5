"""Forks over crashes and by the commands: made once, with what lies before inherited, and never called again.

Holds RE3, RE4.
"""

from __future__ import annotations

import asyncio

import pytest

from flowkeep import Client, from_value
from flowkeep.v1.execution_pb2 import Execution
from tests.e2e.effects import EffectServer
from tests.e2e.history import ended
from tests.e2e.process import ServerProcess, flowkeep
from tests.e2e.test_crash import call, start
from tests.patience import PATIENCE

AFTER = {"FLOWKEEP_FAILPOINTS": "fork.after_commit_before_reply=crash", "FLOWKEEP_ENVIRONMENT": "test"}


@pytest.mark.parametrize("server", [AFTER], indirect=True)
async def test_a_fork_is_made_once_over_crashes_and_calls_nothing_again(
    server: ServerProcess, client: Client, effects: EffectServer
) -> None:
    steps = [call(effects, "first"), call(effects, "second", "first"), call(effects, "last", "second")]
    effects.fail("/last", 400)
    watcher = await start(client, {"name": "forked", "steps": steps, "output": "${ steps.last.output.body.number }"})
    await watcher.ended()
    source = watcher.execution_id
    before = await client.get_execution(source)

    gate = effects.hold("/last")
    forking = asyncio.create_task(client.fork(source, "last", request_id="once"))
    await server.death()  # committed, and not answered
    await server.restart()
    async with asyncio.timeout(PATIENCE):
        answer = await forking
        await gate.arrived.wait()
    await server.kill9()
    gate.opened.set()
    await server.restart()

    found = await ended(client, answer.execution.execution_id)
    assert found.state == Execution.STATE_COMPLETED and from_value(found.result)
    assert [step.inherited for step in found.steps] == [True, True, False]
    assert found.steps[0].output == before.steps[0].output
    assert [len(effects.of(f"/{each}")) for each in ("first", "second")] == [1, 1]
    after = await client.get_execution(source)
    assert [fork.execution_id for fork in after.forks] == [found.execution_id]
    assert (await client.fork(source, "last", request_id="once")).execution.execution_id == found.execution_id


async def test_the_commands_make_executions_of_others_and_say_what_is_wrong(
    server: ServerProcess, client: Client, effects: EffectServer
) -> None:
    steps = [call(effects, "one"), call(effects, "two", "one")]
    watcher = await start(client, {"name": "commands", "steps": steps, "output": "${ input.n }"}, {"n": 1})
    await watcher.ended()
    source = watcher.execution_id

    async def run(*words: str) -> tuple[int, str]:
        outcome = await flowkeep(*words, target=server.target)
        return outcome.code, outcome.out + outcome.err

    code, said = await run("rerun", source, "--set", "n=2", "--watch")
    assert code == 0 and f"Made of {source}" in said and "2" in said
    code, said = await run("fork", source, "--from", "two", "--gives", 'one={"body": {"number": 7}}', "--watch")
    assert code == 0, said
    assert [len(effects.of(f"/{each}")) for each in ("one", "two")] == [2, 3]
    assert effects.of("/two")[-1].body == {"previous": 7}
    code, said = await run("fork", source, "--from", "three")
    assert code == 3 and "has no step 'three'" in said
    code, said = await run("fork", source, "--from", "two", "--check")
    assert code == 0 and "All of it fits." in said
    code, said = await run("rerun", source, "--revision", "newest")
    assert code == 2 and "--revision" in said
    code, said = await run("get", source)
    assert code == 0 and said.count("COMPLETED, from two") == 1
