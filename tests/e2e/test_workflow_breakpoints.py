"""Breakpoints for the next executions of a workflow, over kill -9: what takes them up is counted once.

Holds CA11.
"""

from __future__ import annotations

import asyncio

import pytest

from flowkeep import Client
from tests.e2e.commands import GREETING, shown
from tests.e2e.process import ServerProcess
from tests.patience import PATIENCE


def crashing(point: str) -> dict[str, str]:
    return {"FLOWKEEP_FAILPOINTS": f"{point}=crash@1", "FLOWKEEP_ENVIRONMENT": "test"}


@pytest.mark.parametrize(
    ("server", "left"),
    [(crashing("exec.after_insert_before_commit"), 2), (crashing("exec.after_commit_before_reply"), 1)],
    ids=["before the commit", "after the commit"],
    indirect=["server"],
)
async def test_an_execution_that_its_server_did_not_answer_is_counted_once(
    server: ServerProcess, client: Client, left: int
) -> None:
    await shown(server.target, "apply", "-", given=GREETING)
    await client.set_workflow_breakpoints("greeting", ["text"], executions=2)
    asking = asyncio.create_task(client.execute("greeting", {"name": "you"}, request_id="r"))
    await server.death()
    asking.cancel()
    server._settings = {}  # this time it is not to die
    await server.restart()
    kept = await client.get_workflow_breakpoints("greeting")
    assert kept is not None and kept.executions_left == left
    execution = await client.execute("greeting", {"name": "you"}, request_id="r")
    assert [each.path for each in execution.breakpoints] == ["text"]
    kept = await client.get_workflow_breakpoints("greeting")
    assert kept is not None and kept.executions_left == 1
    async with asyncio.timeout(PATIENCE):
        async for event in client.watch(execution.execution_id):
            if event.HasField("paused"):
                break
    assert event.paused.step_path == "text"
