"""Whole workflows are paused from end to end: what has not started waits, what runs goes on or is paused too.

Holds CA9 of the contract.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import flowkeep
from flowkeep.requests import execute_request
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_FULL, StepExecution
from flowkeep.v1.execution_service_pb2 import ExecuteResponse
from flowkeep.v1.explanation_pb2 import ExplainExecutionResponse
from tests.integration.stage import Served, Stage, ended, kinds, log, made, step, wait_step

State = flowkeep.Execution
PENDING, RUNNING, PAUSED = State.STATE_PENDING, State.STATE_RUNNING, State.STATE_PAUSED
PAIRS, AT_ONCE = 400, 20


async def start(client: flowkeep.Client, name: str, **options: Any) -> str:
    return (await client.execute(name, **options)).execution_id


async def state(client: flowkeep.Client, execution_id: str) -> int:
    return (await client.get_execution(execution_id)).state


async def reaches(client: flowkeep.Client, execution_id: str, kind: str) -> None:
    """Wait until a history has an event of this kind."""
    async for event in client.watch(execution_id):
        if event.HasField(kind):  # type: ignore[arg-type]  # the tests name kinds that there are
            return


def said(explained: ExplainExecutionResponse) -> list[str]:
    return [each.sentence for each in explained.obstacles]


@pytest.mark.usefixtures("prompt")
async def test_new_executions_wait_until_the_resume_wakes_them(client: flowkeep.Client, stage: Stage) -> None:
    name = await made(client, step("a"))
    paused = (await client.pause_workflow(name, "an incident", request_id="p")).pause
    assert (paused.paused_by, paused.reason, paused.running_paused) == ("developer", "an incident", False)
    assert (await client.get_workflow(name)).pause == paused
    ids = [await start(client, name, request_id=f"r-{number}") for number in range(3)]
    assert await start(client, name, request_id="r-0") == ids[0]
    assert [await state(client, each) for each in ids] == [PENDING] * 3
    listed = [each.execution_id async for each in client.list_executions(workflow=name, states=["PENDING"])]
    assert listed == ids[::-1]
    explained = await client.explain_execution(ids[0])
    (sentence,) = said(explained)
    since = f"{paused.pause_time.ToDatetime():%Y-%m-%d %H:%M:%S} UTC"
    wanted = f"Workflow {name} is paused by developer since {since}: an incident."
    assert sentence == f"{wanted} It starts when the workflow is resumed."
    (obstacle,) = explained.obstacles
    assert obstacle.workflow_paused.pause_id == paused.pause_id
    queue = await client.explain_queue(name)
    assert [each.WhichOneof("kind") for each in queue.obstacles] == ["workflow_paused", "empty"]

    cancelled = await client.cancel(ids[1], "not needed")
    assert (cancelled.execution.state, stage.calls) == (State.STATE_CANCELLED, [])
    await client.signal(ids[2], "hello", {})
    assert kinds(await log_so_far(client, ids[2])) == ["created", "signal_received"]
    assert not (await client.resume_workflow(name, "over")).HasField("pause")
    for each in (ids[0], ids[2]):
        assert (await ended(client, each)).state == State.STATE_COMPLETED
    assert stage.attempts("a") == [1, 1]
    assert not (await client.pause_workflow(name, "an incident", request_id="p")).HasField("pause")


async def log_so_far(client: flowkeep.Client, execution_id: str) -> list[flowkeep.ExecutionEvent]:
    """The history of an execution up to now."""
    last, events = (await client.get_execution(execution_id)).last_seq, list[flowkeep.ExecutionEvent]()
    async for event in client.watch(execution_id):
        events.append(event)
        if event.seq >= last:
            break
    return events


@pytest.mark.usefixtures("prompt")
async def test_each_server_lets_them_wait_and_one_resume_wakes_all(served: Served, serve: Any, stage: Stage) -> None:
    other = await serve()
    name = await made(served.client, step("a"))
    await start(other.client, name)  # from then on it knows the workflow
    await stage.called("a")
    await served.client.pause_workflow(name)
    ids = [await start(each.client, name) for each in (served, other) * 5]
    assert [await state(served.client, each) for each in ids] == [PENDING] * 10
    await other.client.resume_workflow(name)
    assert {(await ended(served.client, each)).state for each in ids} == {State.STATE_COMPLETED}


@pytest.mark.usefixtures("prompt")
async def test_the_pause_outlives_servers(served: Served, serve: Any, stage: Stage) -> None:
    name = await made(served.client, step("a"))
    running = await start(served.client, await made(served.client, step("r", "gate")))
    await served.client.pause_workflow(name, "an incident")
    execution_id = await start(served.client, name)
    await stage.called("r")
    await served.stop()
    other = await serve()
    await stage.called("r", 2)  # it has claimed what there is
    assert (await state(other.client, execution_id), stage.attempts("a")) == (PENDING, [])
    assert (await other.client.get_workflow(name)).pause.reason == "an incident"
    await other.client.resume_workflow(name)
    assert (await ended(other.client, execution_id)).state == State.STATE_COMPLETED
    stage.open("gate")
    await ended(other.client, running)


@pytest.mark.usefixtures("prompt")
async def test_what_runs_goes_on_unless_it_is_to_be_paused_too(client: flowkeep.Client, stage: Stage) -> None:
    name = await made(client, step("a", "gate"), step("b"))
    runs, mine = await start(client, name), await start(client, name)
    held = await start(client, name, breakpoints=["a"])
    await stage.called("a", 2)
    await client.pause(mine, "I look at it")
    await reaches(client, held, "paused")
    await client.pause_workflow(name)
    assert await state(client, runs) == RUNNING

    pause = (await client.pause_workflow(name, "all of it", pause_running=True, stop_deadline=True)).pause
    assert pause.running_paused
    await reaches(client, runs, "paused")
    stage.open("gate")
    found = (await client.get_execution(runs)).pause
    assert (found.workflow_pause_id, found.reason, found.stop_deadline) == (pause.pause_id, "all of it", True)
    (sentence,) = said(await client.explain_execution(runs))[:1]
    assert sentence.startswith("developer paused it with its whole workflow: all of it.")
    assert [(await client.get_execution(each)).pause.workflow_pause_id for each in (mine, held)] == ["", ""]

    await client.resume_workflow(name, "over")
    assert (await ended(client, runs)).state == State.STATE_COMPLETED
    told = [event.resumed for event in await log(client, runs) if event.HasField("resumed")]
    assert [(each.reason, each.workflow_pause_id) for each in told] == [("over", pause.pause_id)]
    assert [await state(client, each) for each in (mine, held)] == [PAUSED, PAUSED]
    for each in (mine, held):
        await client.resume(each)
        assert (await ended(client, each)).state == State.STATE_COMPLETED


@pytest.mark.usefixtures("prompt")
async def test_a_pause_of_one_takes_the_place_of_that_of_the_workflow(client: flowkeep.Client, stage: Stage) -> None:
    name = await made(client, step("a", "gate"), step("b"))
    mine, other = await start(client, name), await start(client, name)
    await stage.called("a", 2)
    await client.pause_workflow(name, "all", pause_running=True)
    for each in (mine, other):
        await reaches(client, each, "paused")
    paused = await client.pause(mine, "I look at it")
    assert (paused.pause.reason, paused.pause.workflow_pause_id) == ("I look at it", "")
    stage.open("gate")
    await client.resume_workflow(name)
    assert (await ended(client, other)).state == State.STATE_COMPLETED
    assert await state(client, mine) == PAUSED
    await client.resume(mine)
    assert (await ended(client, mine)).state == State.STATE_COMPLETED


@pytest.mark.usefixtures("prompt")
async def test_batches_forks_and_retries_wait_too(client: flowkeep.Client, stage: Stage) -> None:
    name = await made(client, step("a"), step("b", "fail", times=1, retryable=False, params={}))
    failed = await start(client, name)
    assert (await ended(client, failed)).state == State.STATE_FAILED
    stage.calls.clear()
    await client.pause_workflow(name, "an incident")
    begun = await client.batch_execute([execute_request(name), execute_request(name)])
    batch = [each.execution.execution_id for each in begun if isinstance(each, ExecuteResponse)]
    forks = [(await client.fork(failed, path)).execution.execution_id for path in ("", "b")]
    assert [await state(client, each) for each in (*batch, *forks)] == [PENDING] * 4
    fork = await client.get_execution(forks[1], EXECUTION_VIEW_FULL)
    assert [(each.path, each.state) for each in fork.steps][:1] == [("a", StepExecution.STATE_COMPLETED)]
    await client.retry(failed)
    await reaches_again(client, failed, "paused")
    retried = await client.get_execution(failed)
    assert (retried.state, retried.run, retried.pause.reason) == (PAUSED, 2, "an incident")
    assert stage.calls == []
    await client.resume_workflow(name)
    for each in (*batch, *forks, failed):
        assert (await ended(client, each)).state in (State.STATE_COMPLETED, State.STATE_FAILED)
    assert kinds(await log(client, failed)).count("resumed") == 1


async def reaches_again(client: flowkeep.Client, execution_id: str, kind: str) -> None:
    """Wait until the newest run of an execution has an event of this kind."""
    first = (await client.get_execution(execution_id)).last_seq
    async for event in client.watch(execution_id, after_seq=max(0, first - 1)):
        if event.HasField(kind):  # type: ignore[arg-type]  # the tests name kinds that there are
            return


@pytest.mark.usefixtures("prompt")
async def test_no_time_counts_for_what_waits_and_its_start_delay_runs_on(client: flowkeep.Client) -> None:
    name = await made(client, wait_step())
    before = await start(client, name, start_delay=1000)
    await client.pause_workflow(name)
    after, at_once = await start(client, name, start_delay=1000), await start(client, name, timeout=5)
    for each in (before, after, at_once):
        assert not (await client.get_execution(each)).HasField("deadline_time")
    assert [each.WhichOneof("kind") for each in (await client.explain_execution(before)).obstacles] == [
        "workflow_paused",
        "start_delay",
    ]
    resumed = await client.resume_workflow(name)
    await reaches(client, at_once, "started")
    started = await client.get_execution(at_once)
    assert started.start_time.ToDatetime() >= resumed.update_time.ToDatetime()
    assert (started.deadline_time.ToDatetime() - started.start_time.ToDatetime()).total_seconds() == 5
    for each in (before, after):
        execution = await client.get_execution(each)
        assert (execution.state, execution.HasField("scheduled_time")) == (PENDING, True)
        assert [o.WhichOneof("kind") for o in (await client.explain_execution(each)).obstacles] == ["start_delay"]


async def test_a_deleted_workflow_takes_what_waits_with_it(client: flowkeep.Client) -> None:
    name = await made(client, step("a"))
    await client.pause_workflow(name)
    execution_id = await start(client, name)
    with pytest.raises(flowkeep.FailedPreconditionError) as error:
        await client.delete_workflow(name)
    assert error.value.reason == "WORKFLOW_IN_USE"
    await client.delete_workflow(name, force=True)
    assert (await ended(client, execution_id)).state == State.STATE_CANCELLED


async def test_of_a_pause_and_a_start_each_execution_waits_or_runs_whole(served: Served, serve: Any) -> None:
    """What started before the pause goes on to its end; what came after it has not begun, and begins at the resume."""
    other = await serve()

    async def pair(number: int) -> str:
        here, there = (served, other) if number % 2 else (other, served)
        name = await made(here.client, step("a"), step("b"))
        if number % 4 < 2:
            await ended(here.client, await start(here.client, name))  # the workflow is known there
        # One of ten comes first in each way, however fast the machine is.
        if number % 10 == 0:
            await there.client.pause_workflow(name)
            execution_id = await start(here.client, name)
        elif number % 10 == 1:
            execution_id = await start(here.client, name)
            await there.client.pause_workflow(name)
        else:
            _, execution_id = await asyncio.gather(there.client.pause_workflow(name), start(here.client, name))
        events = kinds(await log_so_far(here.client, execution_id))
        if events == ["created"]:
            assert (await here.client.explain_execution(execution_id)).obstacles[0].HasField("workflow_paused")
            won = "pause"
        else:
            assert (await ended(there.client, execution_id)).state == State.STATE_COMPLETED
            won = "start"
        late = await start(here.client, name)
        assert kinds(await log_so_far(here.client, late)) == ["created"]
        await here.client.resume_workflow(name)
        for each in (execution_id, late):
            assert (await ended(here.client, each)).state == State.STATE_COMPLETED
        return won

    won: list[str] = []
    for first in range(0, PAIRS, AT_ONCE):
        won += await asyncio.gather(*(pair(number) for number in range(first, first + AT_ONCE)))
    assert len(won) == PAIRS
    assert set(won) == {"pause", "start"}
