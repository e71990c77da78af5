"""Pauses from end to end: what is paused begins nothing and forgets nothing, whoever drives it; and terminations.

Holds CA5 and CA6 of the contract.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import flowkeep
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_FULL
from tests.integration.stage import Served, Stage, ended, kinds, log, made, step

State = flowkeep.Execution
PAIRS = 400


@pytest.mark.usefixtures("prompt")
async def test_it_is_paused_shown_and_goes_on(client: flowkeep.Client, stage: Stage) -> None:
    name = await made(client, step("a", "gate"), step("c"))
    execution_id = (await client.execute(name)).execution_id
    await stage.called("a")
    paused = await client.pause(execution_id, "lunch", request_id="p")
    assert (paused.state, paused.pause.paused_by, paused.pause.reason) == (State.STATE_PAUSED, "developer", "lunch")
    assert paused.pause.pause_time.ToDatetime() > paused.create_time.ToDatetime()
    again = await client.pause(execution_id, "tea", hard=True)
    assert again.pause == paused.pause
    assert (await client.pause(execution_id, "lunch", request_id="p")).pause == paused.pause
    assert [each.execution_id async for each in client.list_executions(states=[State.STATE_PAUSED])] == [execution_id]

    stage.open("gate")
    async for event in client.watch(execution_id):
        if event.HasField("step_completed") and event.step_completed.path == "a":
            break
    assert stage.attempts("c") == []
    resumed = await client.resume(execution_id, "back")
    assert not resumed.HasField("pause")
    assert (await ended(client, execution_id)).state == State.STATE_COMPLETED
    events = await log(client, execution_id)
    told = kinds(events)
    assert told.index("paused") < told.index("step_completed a") < told.index("resumed") < told.index("step_started c")
    resumption = next(event.resumed for event in events if event.HasField("resumed"))
    assert (resumption.resumed_by, resumption.reason) == ("developer", "back")


@pytest.mark.usefixtures("prompt")
async def test_a_server_that_takes_it_over_keeps_it_paused(served: Served, serve: Any, stage: Stage) -> None:
    client = served.client
    execution_id = (await client.execute(await made(client, step("a", "gate"), step("b")))).execution_id
    await stage.called("a")
    paused = await client.pause(execution_id, stop_deadline=True)
    await served.stop()
    other = (await serve()).client
    found = await other.get_execution(execution_id)
    assert (found.state, found.pause) == (State.STATE_PAUSED, paused.pause)
    assert stage.attempts("a") == [1]
    stage.open("gate")
    await other.resume(execution_id)
    done = await ended(other, execution_id)
    assert done.state == State.STATE_COMPLETED
    moved = done.deadline_time.ToDatetime() - paused.deadline_time.ToDatetime()
    assert moved.total_seconds() > 0


@pytest.mark.usefixtures("prompt")
async def test_a_hard_pause_stops_what_runs_and_makes_it_again(client: flowkeep.Client, stage: Stage) -> None:
    execution_id = (await client.execute(await made(client, step("a", "gate")))).execution_id
    await stage.called("a")
    await client.pause(execution_id, hard=True)
    async for event in client.watch(execution_id):
        if event.HasField("step_retrying"):
            assert (event.step_retrying.failure.code, event.step_retrying.failures) == ("INTERRUPTED", 0)
            break
    assert stage.stopped == [("a", 1)]
    stage.open("gate")
    await client.resume(execution_id)
    assert (await ended(client, execution_id)).state == State.STATE_COMPLETED
    assert stage.attempts("a") == [1, 2]
    assert len(stage.tokens["a"]) == 1


@pytest.mark.usefixtures("prompt")
async def test_what_does_not_obey_is_terminated(client: flowkeep.Client, stage: Stage) -> None:
    execution_id = (await client.execute(await made(client, step("a", "stubborn"), step("b")))).execution_id
    await stage.called("a")
    execution = await client.terminate(execution_id, "stuck")
    assert (execution.state, execution.failure.code) == (State.STATE_CANCELLED, "TERMINATED")
    assert execution.failure.message == "terminated by developer: stuck"
    found = await client.get_execution(execution_id, EXECUTION_VIEW_FULL)
    assert [(each.path, each.failure.code) for each in found.steps if each.attempt] == [("a", "OUTCOME_UNKNOWN")]
    with pytest.raises(flowkeep.FailedPreconditionError) as error:
        await client.terminate(execution_id)
    assert error.value.reason == "EXECUTION_FINISHED"


async def test_what_cannot_be_paused_or_resumed_says_so(client: flowkeep.Client) -> None:
    execution_id = (await client.execute(await made(client, step("a")), start_delay=1000)).execution_id
    with pytest.raises(flowkeep.FailedPreconditionError, match="only what is PAUSED can be resumed") as error:
        await client.resume(execution_id)
    assert error.value.reason == "EXECUTION_STATE"
    assert error.value.metadata == {"execution_id": execution_id, "state": "PENDING"}
    await client.cancel(execution_id)
    for call in (client.pause, client.resume):
        with pytest.raises(flowkeep.FailedPreconditionError) as error:
            await call(execution_id)
        assert error.value.reason == "EXECUTION_FINISHED"


async def test_of_a_pause_and_the_end_one_wins(client: flowkeep.Client) -> None:
    """Each of many executions is either paused, and stays so until it is resumed, or has ended."""
    name = await made(client, step("a"), step("b"))

    async def pair(number: int) -> str:
        execution_id = (await client.execute(name)).execution_id
        try:
            await client.pause(execution_id, request_id=f"pause-{number}")
        except flowkeep.FailedPreconditionError as error:
            assert error.reason == "EXECUTION_FINISHED"
            won = "end"
        else:
            async for event in client.watch(execution_id):
                if event.HasField("paused"):
                    break
            await client.resume(execution_id)
            won = "pause"
        assert (await ended(client, execution_id)).state == State.STATE_COMPLETED
        told = kinds(await log(client, execution_id))
        assert told.count("paused") == told.count("resumed") == (won == "pause")
        return won

    won: list[str] = []
    for first in range(0, PAIRS, 20):
        won += await asyncio.gather(*(pair(number) for number in range(first, first + 20)))
    assert len(won) == PAIRS


@pytest.mark.usefixtures("prompt")
async def test_of_a_pause_and_a_resume_sent_at_once_none_is_lost(client: flowkeep.Client, stage: Stage) -> None:
    """Whichever comes first, each resume ends one pause; an execution that they hold ends when the last was resumed."""
    name, rounds = await made(client, step("a", "gate")), PAIRS // 20
    execution_ids = [(await client.execute(name)).execution_id for _ in range(20)]

    async def pairs(execution_id: str) -> None:
        for _ in range(rounds):
            await client.pause(execution_id)
            await asyncio.gather(client.pause(execution_id), client.resume(execution_id))
        await client.pause(execution_id)
        await client.resume(execution_id)

    await asyncio.gather(*map(pairs, execution_ids))
    stage.open("gate")
    for execution_id in execution_ids:
        assert (await ended(client, execution_id)).state == State.STATE_COMPLETED
        told = [kind for kind in kinds(await log(client, execution_id)) if kind in ("paused", "resumed")]
        assert told == ["paused", "resumed"] * (rounds + 1)
    assert stage.attempts("a") == [1] * len(execution_ids)
