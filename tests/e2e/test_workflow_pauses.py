"""Whole workflows are paused with the command, and over kill -9: all of a pause or a resume is there, or nothing of it.

Holds CA9.
"""

from __future__ import annotations

import asyncio

import pytest

from flowkeep import Client
from flowkeep.v1.execution_pb2 import Execution
from tests.e2e.commands import GREETING, SLEEP, execute, refused, shown
from tests.e2e.process import ServerProcess
from tests.patience import PATIENCE

MANY = 20


def crashing(point: str, turn: int) -> dict[str, str]:
    return {"FLOWKEEP_FAILPOINTS": f"{point}=crash@{turn}", "FLOWKEEP_ENVIRONMENT": "test"}


async def states(client: Client, ids: list[str]) -> list[Execution.State.ValueType]:
    return [(await client.get_execution(each)).state for each in ids]


async def reach(client: Client, ids: list[str], kind: str) -> None:
    """Wait until each has an event of this kind."""

    async def one(execution_id: str) -> None:
        async for event in client.watch(execution_id):
            if event.WhichOneof("kind") == kind:
                return

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*map(one, ids))


@pytest.mark.parametrize("server", [crashing("workflow.before_commit", 2)], indirect=True)
async def test_of_a_pause_that_dies_before_its_commit_nothing_is_there(server: ServerProcess, client: Client) -> None:
    await shown(server.target, "apply", "-", given=SLEEP)
    ids = [(await client.execute("sleep")).execution_id for _ in range(MANY)]
    await client.resume_workflow("sleep")  # the first turn
    asking = asyncio.create_task(client.pause_workflow("sleep", pause_running=True, request_id="p"))
    await server.death()
    asking.cancel()
    await server.restart()
    assert not (await client.get_workflow("sleep")).HasField("pause")
    assert await states(client, ids) == [Execution.STATE_RUNNING] * MANY
    later = (await client.execute("sleep")).execution_id
    await reach(client, [later], "started")
    assert (await client.pause_workflow("sleep", pause_running=True, request_id="p")).HasField("pause")
    await reach(client, [*ids, later], "paused")


@pytest.mark.parametrize("server", [crashing("workflow.after_commit_before_delivery", 2)], indirect=True)
async def test_a_pause_that_dies_after_its_commit_takes_effect(server: ServerProcess, client: Client) -> None:
    await shown(server.target, "apply", "-", given=SLEEP)
    ids = [(await client.execute("sleep")).execution_id for _ in range(MANY)]
    await client.resume_workflow("sleep")  # the first turn
    asking = asyncio.create_task(client.pause_workflow("sleep", pause_running=True, request_id="p"))
    await server.death()
    asking.cancel()
    await server.restart()
    assert (await client.pause_workflow("sleep", pause_running=True, request_id="p")).pause.running_paused
    await reach(client, ids, "paused")
    later = (await client.execute("sleep")).execution_id
    assert await states(client, [*ids, later]) == [Execution.STATE_PAUSED] * MANY + [Execution.STATE_PENDING]


@pytest.mark.parametrize("server", [crashing("workflow.after_commit_before_delivery", 2)], indirect=True)
async def test_a_resume_that_dies_after_its_commit_takes_effect(server: ServerProcess, client: Client) -> None:
    await shown(server.target, "apply", "-", given=SLEEP)
    before = [(await client.execute("sleep")).execution_id for _ in range(MANY)]
    await client.pause_workflow("sleep", pause_running=True)
    after = [(await client.execute("sleep")).execution_id for _ in range(MANY)]
    await reach(client, before, "paused")
    assert await states(client, after) == [Execution.STATE_PENDING] * MANY
    asking = asyncio.create_task(client.resume_workflow("sleep"))
    await server.death()
    asking.cancel()
    await server.restart()
    await asyncio.gather(reach(client, before, "resumed"), reach(client, after, "started"))


async def test_the_command_pauses_shows_and_resumes(target: str) -> None:
    await shown(target, "apply", "-", given=GREETING)
    text = await shown(target, "workflows", "pause", "greeting", "--reason", "an incident", "--running")
    assert text.startswith("greeting is paused since ") and text.rstrip().endswith(", with what ran: an incident")
    assert "greeting (paused)" in await shown(target, "workflows", "list")
    assert "an incident" in await shown(target, "workflows", "get", "greeting")
    begun = await execute(target, "greeting", "--set", "name=you")
    assert "is paused by developer since" in await shown(target, "explain", begun["execution_id"])
    assert "not paused" in await shown(target, "workflows", "resume", "greeting")
    assert "COMPLETED" in await shown(target, "watch", begun["execution_id"])
    assert "WORKFLOW_NOT_FOUND" in await refused(target, "workflows", "pause", "absent", code=3)


async def test_the_command_holds_the_next_executions(target: str) -> None:
    await shown(target, "apply", "-", given=GREETING)
    point = "text if params == null"  # the server runs the step itself
    text = await shown(target, "workflows", "break", "greeting", "--at", point, "--executions", "2", "--within", "1h")
    assert text.startswith("the next 2 executions of greeting will be held at text, until ")
    begun = await execute(target, "greeting", "--set", "name=you")
    assert begun["breakpoints"] == [{"path": "text", "condition": "params == null"}]
    assert "are not held" in await shown(target, "workflows", "break", "greeting")
    assert (await execute(target, "greeting", "--set", "name=you"))["breakpoints"] == []
    await refused(target, "workflows", "break", "greeting", "--at", "absent", code=2)
