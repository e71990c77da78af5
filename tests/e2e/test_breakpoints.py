"""The debugger in the terminal, and what is held and changed when the server dies."""

from __future__ import annotations

import asyncio
import re

import pytest

from flowkeep import Client, from_struct
from flowkeep.v1.execution_pb2 import Execution
from tests.e2e.commands import at, refused, shown
from tests.e2e.effects import EffectServer
from tests.e2e.history import ended
from tests.e2e.process import ServerProcess
from tests.e2e.test_crash import call

ARMED = {"FLOWKEEP_FAILPOINTS": "message.after_commit_before_delivery=crash@2", "FLOWKEEP_ENVIRONMENT": "test"}


@pytest.mark.parametrize("server", [ARMED], indirect=True)
async def test_an_edit_that_was_kept_holds_for_each_attempt_over_two_crashes(
    server: ServerProcess, client: Client, effects: EffectServer
) -> None:
    await client.apply([{"name": "held", "steps": [call(effects, "wrong"), call(effects, "after")]}])
    execution_id = (await client.execute("held", breakpoints=["wrong"])).execution_id
    async for event in client.watch(execution_id):
        if event.HasField("paused"):
            break
    await client.set_breakpoints(execution_id)
    right = {"method": "POST", "url": f"{effects.url}/right"}
    editing = asyncio.create_task(client.edit_step_input(execution_id, "wrong", right))
    await server.death()  # kept, and nobody has heard of it
    await server.restart()
    await editing
    gate = effects.hold("/right")
    await client.resume(execution_id)
    await gate.arrived.wait()
    await server.kill9()
    gate.opened.set()
    await server.restart()
    assert (await ended(client, execution_id)).state == Execution.STATE_COMPLETED
    assert [len(effects.of(path)) for path in ("/wrong", "/right", "/after")] == [0, 2, 1]
    step = (await client.get_step(execution_id, "wrong")).step
    assert (step.attempt, from_struct(step.input)["url"]) == (2, right["url"])


async def test_a_workflow_is_debugged_in_the_terminal(target: str) -> None:
    given = "b length params == null\nb\nd length\nv\ns\nt length\nc\n"
    text = await shown(target, "debug", "greeting", "--set", "name=Flo", given=given)
    for said in ("before step text", "length params == null", "no breakpoints", "before step length", "COMPLETED"):
        assert said in text, text
    told = (await at(target, "debug", "greeting", "--set", "name=Flo", "--break", "length", given="c\n")).json_lines
    assert [each["held"] for each in told if "held" in each] == ["length"]
    assert "give a workflow" in await refused(target, "debug", code=2)
    assert "is no step" in await refused(target, "debug", "greeting", "--set", "name=x", "--break", "absent", code=2)


COUNTING = """
name: counting
steps:
  - {id: count, handler: transform, params: {value: 1}, assign: {n: result}}
  - {id: show, handler: call_api, params: {url: "http://127.0.0.1:9/${ vars.n }"}, on_error: CONTINUE}
output: ${ vars.n }
"""


async def test_variables_are_set_in_the_terminal(target: str) -> None:
    await shown(target, "apply", "-", given=COUNTING)
    text = await shown(target, "debug", "counting", "--break", "show", given="set n=7\nv\nx\n", code=1)
    assert "http://127.0.0.1:9/7" in text
    assert "n = 7, set by" in text
    await at(target, "debug", "counting", "--break", "show", given="q\n")
    (paused,) = re.findall(r'"execution_id": "([^"]+)"', (await at(target, "list", "--state", "paused")).out)
    changed = (await at(target, "set-vars", paused, "n=[1, 2]")).json
    assert changed["state"] == "PAUSED"
    assert (await at(target, "get", paused)).json["vars"] == {"n": [1, 2]}
    assert "vars.absent" in await refused(target, "set-vars", paused, "absent=1", code=2)
    assert "NAME=VALUE" in await refused(target, "set-vars", paused, "n", code=2)
    await shown(target, "terminate", paused)
    assert "EXECUTION_FINISHED" in await refused(target, "set-vars", paused, "n=1", code=5)
