"""Breakpoints from end to end: who is held where, shown and changed, whoever drives the execution on.

Holds CA7 of the contract.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import flowkeep
from flowkeep.payload import from_struct
from tests.integration.stage import Served, Stage, ended, kinds, log, made, step

State = flowkeep.Execution
PAIRS, AT_ONCE = 400, 20


async def holds(client: flowkeep.Client, execution_id: str) -> AsyncIterator[str]:
    """Yield before which step a breakpoint holds an execution, each time that one does, until its end."""
    async for event in client.watch(execution_id):
        if event.HasField("paused") and event.paused.step_path:
            execution = await client.get_execution(execution_id)
            if execution.state == State.STATE_PAUSED and execution.pause.pause_time == event.time:
                yield str(event.paused.step_path)


async def held(client: flowkeep.Client, execution_id: str) -> str:
    """Wait until a breakpoint holds an execution, and return before which step."""
    async for path in holds(client, execution_id):
        return path
    raise AssertionError((await client.get_execution(execution_id)).failure)


@pytest.mark.usefixtures("prompt")
async def test_an_execution_is_held_changed_and_goes_on(client: flowkeep.Client, served: Served, stage: Stage) -> None:
    name = await made(client, step("a"), step("b", params={"by": "${ 1 + 1 }"}), step("c"))
    execution_id = (await client.execute(name, breakpoints={"b": "params.by == 2"})).execution_id
    assert await held(client, execution_id) == "b"
    assert stage.attempts("b") == []
    found = (await client.get_step(execution_id, "b")).step
    assert (from_struct(found.input), found.wait.WhichOneof("kind")) == ({"by": 2}, "breakpoint")
    edited = await client.edit_step_input(execution_id, "b", {"by": 3}, request_id="e")
    assert edited.last_seq == (await client.edit_step_input(execution_id, "b", {"by": 3}, request_id="e")).last_seq

    await client.resume(execution_id, step_over=True)
    assert await held(client, execution_id) == "c"
    assert from_struct((await client.get_step(execution_id, "b")).step.input) == {"by": 3}
    assert [each.path for each in (await client.set_breakpoints(execution_id)).breakpoints] == []
    await client.resume(execution_id)
    assert (await ended(client, execution_id)).state == State.STATE_COMPLETED
    told = kinds(await log(client, execution_id))
    assert told.index("breakpoints_set") < told.index("step_edited b") < told.index("step_started b")
    # What was asked for is told once the execution has ended, or its workflow is another one, too.
    assert (await client.edit_step_input(execution_id, "b", {"by": 3}, request_id="e")).execution_id == execution_id


@pytest.mark.usefixtures("prompt")
async def test_whoever_takes_it_over_holds_it_and_calls_it_with_what_was_edited(
    served: Served, serve: Any, stage: Stage
) -> None:
    client = served.client
    execution_id = (await client.execute(await made(client, step("a"), step("b")), breakpoints=["*"])).execution_id
    assert await held(client, execution_id) == "a"
    await client.edit_step_input(execution_id, "a", {"by": 7})
    await served.stop()
    other = (await serve()).client
    assert stage.attempts("a") == []
    await other.resume(execution_id)
    assert await held(other, execution_id) == "b"
    await other.set_breakpoints(execution_id)
    await other.resume(execution_id)
    assert (await ended(other, execution_id)).state == State.STATE_COMPLETED
    assert from_struct((await other.get_step(execution_id, "a")).step.input) == {"by": 7}


@pytest.mark.usefixtures("prompt")
async def test_what_cannot_be_is_named(client: flowkeep.Client, served: Served, stage: Stage) -> None:
    inner = {"id": "e", "for_each": {"items": "[1]", "steps": [step("x")]}}
    transform = {"id": "t", "handler": "transform", "params": {"value": 1}}
    name = await made(client, step("a", params={"by": 1}), transform, inner)
    points = {"b": "", "e": "", "e.x": "", "e[0].x": "", "a": "params.n +", "*": "input.n"}
    with pytest.raises(flowkeep.InvalidArgumentError) as refused:
        await client.execute(name, breakpoints=points)
    fields = [violation.field for violation in refused.value.violations]
    wrong_steps = ["breakpoints[0].path", "breakpoints[1].path"]
    assert fields == [*wrong_steps, "breakpoints[4].condition", "breakpoints[5].condition"]

    execution_id = (await client.execute(name, breakpoints=["a", "t"])).execution_id
    for path in ("absent", "e", "e[00].x"):
        with pytest.raises(flowkeep.InvalidArgumentError, match="run_to"):
            await client.resume(execution_id, run_to=path)
    await held(client, execution_id)
    for path, reason in (("t", "STEP_NOT_HELD"), ("absent", "STEP_NOT_FOUND")):
        with pytest.raises(flowkeep.FlowkeepError) as error:
            await client.edit_step_input(execution_id, path, {})
        assert error.value.reason == reason
    with pytest.raises(flowkeep.InvalidArgumentError) as wrong:
        await client.edit_step_input(execution_id, "a", {"by": "many"})
    assert [violation.field for violation in wrong.value.violations] == ["input.by"]
    await client.resume(execution_id)
    assert await held(client, execution_id) == "t"
    with pytest.raises(flowkeep.FailedPreconditionError, match="no handler"):
        await client.edit_step_input(execution_id, "t", {})
    await client.cancel(execution_id)
    with pytest.raises(flowkeep.FailedPreconditionError, match="CANCELLED"):
        await client.set_breakpoints(execution_id, ["a"])


@pytest.mark.usefixtures("prompt")
async def test_of_an_edit_and_a_start_one_wins_and_an_answer_means_the_edit(client: flowkeep.Client) -> None:
    name = await made(client, *(step(f"s{number}", params={"by": 1}) for number in range(PAIRS // AT_ONCE)))

    async def pairs() -> int:
        execution_id, edited = (await client.execute(name, breakpoints=["*"])).execution_id, set[str]()
        number = 0
        async for path in holds(client, execution_id):
            assert path == f"s{number}"
            edit = asyncio.create_task(client.edit_step_input(execution_id, path, {"by": 2}))
            if number % 4 == 0:  # On a fast machine the edit loses every race: some have to come first.
                await asyncio.wait([edit])
            answers = await asyncio.gather(edit, client.resume(execution_id), return_exceptions=True)
            if isinstance(answers[0], flowkeep.FailedPreconditionError):
                assert answers[0].reason in ("EXECUTION_STATE", "EXECUTION_FINISHED", "STEP_NOT_HELD")
            else:
                assert isinstance(answers[0], flowkeep.Execution)
                edited.add(path)
            number += 1
        assert number == PAIRS // AT_ONCE
        assert (await ended(client, execution_id)).state == State.STATE_COMPLETED
        events = await log(client, execution_id)
        started = {e.step_started.path: from_struct(e.step_started.input) for e in events if e.HasField("step_started")}
        assert {path for path, given in started.items() if given == {"by": 2}} == edited
        return len(edited)

    assert PAIRS // 4 <= sum(await asyncio.gather(*(pairs() for _ in range(AT_ONCE)))) <= PAIRS
