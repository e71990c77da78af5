"""Pauses that are kept and that nobody has heard of when the server dies."""

from __future__ import annotations

import asyncio

import pytest

from flowkeep import Client
from flowkeep.v1.execution_pb2 import Execution
from tests.e2e.effects import EffectServer
from tests.e2e.history import check_watch, paths
from tests.e2e.process import ServerProcess
from tests.e2e.test_crash import call, start

ARMED = {"FLOWKEEP_FAILPOINTS": "message.after_commit_before_delivery=crash@3", "FLOWKEEP_ENVIRONMENT": "test"}


@pytest.mark.parametrize("server", [ARMED], indirect=True)
async def test_a_pause_that_was_kept_holds_who_goes_on(
    server: ServerProcess, client: Client, effects: EffectServer
) -> None:
    gate = effects.hold("/fetch")
    watcher = await start(client, {"name": "held", "steps": [call(effects, "fetch"), call(effects, "after")]})
    await gate.arrived.wait()
    await client.pause(watcher.execution_id)
    await client.resume(watcher.execution_id)
    pausing = asyncio.create_task(client.pause(watcher.execution_id, "lunch"))
    await server.death()
    gate.opened.set()
    await server.restart()
    await pausing  # the client has sent it again, under the same request id
    async for event in client.watch(watcher.execution_id):
        if event.HasField("paused") and event.paused.reason == "lunch":
            break
    assert (await client.get_execution(watcher.execution_id)).state == Execution.STATE_PAUSED
    assert (effects.of("/after"), len(effects.of("/fetch"))) == ([], 1)
    await client.resume(watcher.execution_id)
    events = await check_watch(client, watcher)
    assert paths(events, "step_completed") == ["fetch", "after"]
    assert [event.paused.reason for event in events if event.HasField("paused")] == ["", "lunch"]
    assert len(effects.of("/fetch")) == 2  # the first call was cut off with its server
