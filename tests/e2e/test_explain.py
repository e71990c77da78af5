"""Why executions do not move, as a user reads it in the terminal: one walk through the reasons, on a real server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flowkeep import Client
from flowkeep.v1.execution_pb2 import Execution
from service.cli.json_form import json_form
from tests.e2e.commands import at, shown
from tests.e2e.effects import EffectServer
from tests.e2e.process import ServerProcess
from tests.e2e.test_crash import call, start
from tests.patience import PATIENCE

ONE_PLACE = {"FLOWKEEP_MAX_RUNNING": "1"}


def _words(text: str) -> str:
    """What a table shows, in one line however wide the terminal is."""
    return " ".join(text.split())


async def _happened(client: Client, execution_id: str, *kinds: str) -> None:
    left = list(kinds)
    async with asyncio.timeout(PATIENCE):
        async for event in client.watch(execution_id):
            if (kind := event.WhichOneof("kind")) in left:
                left.remove(kind)
            if not left:
                return


@pytest.mark.parametrize("server", [ONE_PLACE], indirect=True)
async def test_a_walk_through_the_reasons(server: ServerProcess, client: Client, effects: EffectServer) -> None:
    gate = effects.hold("/fetch")
    effects.fail("/later", *[503] * 3)
    policy = {"max_attempts": 3, "initial_interval": "3600s", "max_interval": "3600s"}
    steps: list[dict[str, Any]] = [
        call(effects, "fetch"),
        call(effects, "later", retry_policy=policy),
        {"id": "listen", "handler": "wait_signal", "params": {"name": "paid"}},
        {"id": "sleep", "handler": "wait", "params": {"duration": "2h"}},
        {"id": "ask", "handler": "create_task", "params": {"title": "Approve", "assignees": ["ann"]}},
        call(effects, "after", depends_on=["fetch", "listen"]),
    ]
    watcher = await start(client, {"name": "held", "ordering": "GRAPH", "steps": steps})
    execution_id, target = watcher.execution_id, server.target
    async with asyncio.timeout(PATIENCE):
        await gate.arrived.wait()
    await _happened(client, execution_id, "step_retrying", *["step_waiting"] * 3)

    async def explained() -> tuple[str, dict[str, Any]]:
        text = _words(await shown(target, "explain", execution_id))
        found = json_form(await client.explain_execution(execution_id))
        for each in [*found["obstacles"], *(why for step in found["steps"] for why in step["obstacles"])]:
            said, _, _ = each["sentence"].partition("its lease")  # which is renewed meanwhile
            assert _words(said) in text
        return text, {step["path"]: step["obstacles"][0] for step in found["steps"]}

    text, whys = await explained()
    assert "drives it; its lease lasts until" in text
    assert [each["path"] for each in (await at(target, "explain", execution_id)).json["steps"]] == list(whys)
    assert list(whys) == ["fetch", "later", "listen", "sleep", "ask", "after"]
    assert whys["later"]["sentence"].startswith("Attempt 2 comes at 2")
    assert "since the last one failed with" in whys["later"]["sentence"]
    assert whys["listen"]["sentence"].startswith("It waits for the signal paid since 2")
    assert whys["sleep"]["sentence"].startswith("It waits until 2") and "end_time" in whys["sleep"]
    assert whys["ask"]["sentence"] == "It waits for ann to do 'Approve'."
    assert whys["after"]["sentence"] == "It begins when fetch, listen have ended."
    assert whys["after"]["predecessors"] == {"paths": ["fetch", "listen"], "count": 2}

    # The only place of the server is taken.
    queued = [(await client.execute("held")).execution_id for _ in range(3)]
    found = (await at(target, "queue", "held", "--limit", "2")).json
    assert [each["execution"]["execution_id"] for each in found["executions"]] == queued[:2]
    assert found["executions_omitted"] is True
    text = _words(await shown(target, "queue", "held"))
    assert "1 server is there." in text and "drives 1 execution of this org, and takes nothing more." in text
    for before in ("nothing of its org is", "1 of its org is", "2 of its org are"):
        assert f"It waits for a server with room, and {before} before it." in text
    assert "2 of its org are before it." in _words(await shown(target, "explain", queued[2]))
    for each in queued:
        await client.terminate(each)
    assert "No execution of it waits for a server." in await shown(target, "queue", "held")

    await client.pause(execution_id, "lunch")
    text, whys = await explained()
    assert "developer paused it: lunch. It goes on when it is resumed." in text
    assert whys["fetch"]["sentence"].endswith("The pause lets it finish.")
    await client.resume(execution_id)
    await client.pause(execution_id, hard=True)
    text, whys = await explained()
    assert "developer paused it hard." in text
    # The attempt that was told to stop has stopped by now, or not.
    assert (
        whys["fetch"]["sentence"].endswith("when the execution is resumed.") or "Attempt 2" in whys["fetch"]["sentence"]
    )

    await client.terminate(execution_id)
    text, whys = await explained()
    assert "It has ended: CANCELLED with TERMINATED. Nothing is to come, unless it is retried." in text and not whys
    await client.retry(execution_id)
    await client.pause(execution_id)
    assert (await client.get_execution(execution_id)).state == Execution.STATE_PAUSED
    _, whys = await explained()
    assert list(whys) == ["fetch", "later", "listen", "sleep", "ask", "after"]
    assert whys["after"]["sentence"] == "It begins when fetch, listen have ended."
    gate.opened.set()
    await client.terminate(execution_id)
