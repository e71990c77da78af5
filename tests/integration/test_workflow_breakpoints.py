"""Breakpoints for the next executions of a workflow, from end to end: each is counted once, whichever server starts it.

Holds CA11 of the contract.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import flowkeep
from flowkeep.definition import definition
from flowkeep.requests import execute_request
from flowkeep.v1.execution_service_pb2 import ExecuteResponse
from tests.integration.conftest import Engines
from tests.integration.stage import Served, Stage, ended, log, made, step

State = flowkeep.Execution
PAUSED, COMPLETED = State.STATE_PAUSED, State.STATE_COMPLETED
MANY, HELD = 100, 37


async def held(client: flowkeep.Client, execution_id: str) -> str:
    """Wait until a breakpoint holds an execution, and return before which step; empty where it has ended instead."""
    async for event in client.watch(execution_id):
        if event.HasField("paused"):
            return str(event.paused.step_path)
    return ""


@pytest.mark.usefixtures("prompt")
async def test_the_next_executions_are_held_and_those_after_them_are_not(client: flowkeep.Client, stage: Stage) -> None:
    name = await made(client, step("a"), step("b", params={"by": "${ input.n }"}))
    running = (await client.execute(name, {"n": 1})).execution_id
    assert await held(client, running) == ""
    until = datetime.now(UTC) + timedelta(hours=1)
    points = await client.set_workflow_breakpoints(
        name, {"b": "params.by > 1"}, executions=2, expire_time=until, request_id="s"
    )
    assert points is not None
    assert (points.set_by, points.executions_left, points.expire_time.ToDatetime(UTC)) == ("developer", 2, until)
    assert await client.get_workflow_breakpoints(name) == points

    own = (await client.execute(name, {"n": 2}, breakpoints=["a"])).execution_id
    assert await held(client, own) == "a"
    first = await client.execute(name, {"n": 2}, request_id="r")
    assert [(each.path, each.condition) for each in first.breakpoints] == [("b", "params.by > 1")]
    assert (await client.execute(name, {"n": 2}, request_id="r")).execution_id == first.execution_id
    assert await held(client, first.execution_id) == "b"
    told = [event.breakpoints_set for event in await so_far(client, first) if event.HasField("breakpoints_set")]
    assert [(each.set_by, len(each.breakpoints)) for each in told] == [("developer", 1)]
    kept = await client.get_workflow_breakpoints(name)
    assert kept is not None and kept.executions_left == 1
    again = await client.set_workflow_breakpoints(
        name, {"b": "params.by > 1"}, executions=2, expire_time=until, request_id="s"
    )
    assert again == kept
    second = (await client.fork(own, input={"n": 1})).execution.execution_id  # the condition does not hold
    assert await held(client, second) == ""
    assert await client.get_workflow_breakpoints(name) is None
    assert await held(client, (await client.execute(name, {"n": 2})).execution_id) == ""
    await client.resume(first.execution_id)
    assert (await ended(client, first.execution_id)).state == COMPLETED


async def test_a_repeat_is_answered_when_it_would_be_refused_by_now(
    served: Served, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time up to which executions take them up is over, and the workflow has no such step."""
    client, until = served.client, datetime.now(UTC) + timedelta(hours=1)
    name = await made(client, step("a"), step("b"))

    async def ask(**changes: Any) -> Any:
        return await client.set_workflow_breakpoints(name, ["b"], expire_time=until, **{"request_id": "s", **changes})

    first = await ask()
    late = datetime.now(UTC) + timedelta(hours=2)
    for engine in engines:
        monkeypatch.setattr(engine.runner, "now", lambda: late)
    with pytest.raises(flowkeep.InvalidArgumentError, match="expire_time"):
        await ask(request_id="other")
    with pytest.raises(flowkeep.AlreadyExistsError):
        await ask(executions=2)
    assert await ask() == first == await client.get_workflow_breakpoints(name)
    await client.update_workflow(name, definition({"name": name, "steps": [step("a")]}))
    with pytest.raises(flowkeep.InvalidArgumentError, match="breakpoints"):
        await ask(request_id="other")
    assert await ask() == first


async def so_far(client: flowkeep.Client, execution: flowkeep.Execution) -> list[flowkeep.ExecutionEvent]:
    """The history of an execution up to now."""
    last, events = (await client.get_execution(execution.execution_id)).last_seq, list[flowkeep.ExecutionEvent]()
    async for event in client.watch(execution.execution_id):
        events.append(event)
        if event.seq >= last:
            break
    return events


@pytest.mark.usefixtures("prompt")
async def test_what_waits_for_the_resume_of_its_workflow_has_taken_them_up(client: flowkeep.Client) -> None:
    name = await made(client, step("a"), step("b"))
    await client.set_workflow_breakpoints(name, ["b"])
    await client.pause_workflow(name)
    execution = await client.execute(name)
    assert (execution.state, [each.path for each in execution.breakpoints]) == (State.STATE_PENDING, ["b"])
    assert await client.get_workflow_breakpoints(name) is None
    await client.resume_workflow(name)
    assert await held(client, execution.execution_id) == "b"


async def test_they_are_removed(client: flowkeep.Client) -> None:
    name = await made(client, step("a"))
    await client.set_workflow_breakpoints(name, ["*"], executions=5)
    assert await client.set_workflow_breakpoints(name) is None
    assert (await client.execute(name, wait=True)).state == COMPLETED


async def test_of_many_at_two_servers_as_many_are_held_as_was_asked_for(served: Served, serve: Any) -> None:
    other = await serve()
    name = await made(served.client, step("a"))
    for each in (served, other):
        await ended(each.client, (await each.client.execute(name)).execution_id)  # both know the workflow
    await served.client.set_workflow_breakpoints(name, ["a"], executions=HELD)

    async def one(number: int) -> str:
        client = (served, other)[number % 2].client
        if number % 10:
            return (await client.execute(name, request_id=f"r-{number}")).execution_id
        (begun,) = await client.batch_execute([execute_request(name, request_id=f"r-{number}")])
        assert isinstance(begun, ExecuteResponse)
        return begun.execution.execution_id

    ids = await asyncio.gather(*map(one, range(MANY)))
    before = await asyncio.gather(*(held(served.client, each) for each in ids))
    assert sorted(before) == [""] * (MANY - HELD) + ["a"] * HELD
    for execution_id, at in zip(ids, before, strict=True):
        points = [event for event in (await log(served.client, execution_id) if not at else [])]
        assert not any(event.HasField("breakpoints_set") for event in points)
        assert bool((await served.client.get_execution(execution_id)).breakpoints) == bool(at)
    assert await served.client.get_workflow_breakpoints(name) is None
