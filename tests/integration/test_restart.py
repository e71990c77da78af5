"""A server that stops in the middle: the next one on the same database goes on where it was.

Holds ST3, ST5, ST6 and EX7 of the contract for an orderly stop.
"""

import asyncio

import pytest

import flowkeep
from flowkeep.requests import execute_request
from tests.integration.stage import ended, kinds, log, made, step, wait_step
from tests.patience import PATIENCE

State = flowkeep.Execution
Step = flowkeep.StepExecution


async def test_an_execution_goes_on_where_it_was(serve, stage):
    first = await serve()
    name = await made(first.client, step("a"), step("b"), step("c", "gate"), step("d"))
    execution = await first.client.execute(name, request_id="r")
    await stage.called("c")
    await first.stop()

    second = await serve()
    await stage.called("c", 2)
    again = await second.executions.Execute(execute_request(name, request_id="r"))
    stage.open("gate")
    events = await log(second.client, execution.execution_id)
    found = await second.client.get_execution(execution.execution_id)

    assert (again.created, again.execution.execution_id) == (False, execution.execution_id)
    assert found.state == State.STATE_COMPLETED
    assert [stage.attempts(path) for path in "abcd"] == [[1], [1], [1, 2], [1]]
    assert all(len(tokens) == 1 for tokens in stage.tokens.values())
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    course = ["started", "retrying", "started", "completed"]
    assert [kind for kind in kinds(events) if kind.endswith(" c")] == [f"step_{kind} c" for kind in course]
    assert [kept.failure.code for kept in found.steps[2].failed_attempts] == ["INTERRUPTED"]


async def test_many_executions_go_on(serve, stage):
    first = await serve()
    name = await made(first.client, step("a"), step("b", "gate"), step("c", "transform", value="${input.n}"))
    executions = [await first.client.execute(name, {"n": n}) for n in range(40)]
    await stage.called("b", 40)
    await first.stop()

    second = await serve()
    stage.open("gate")
    async with asyncio.timeout(PATIENCE):
        results = await asyncio.gather(*(second.client.result(each.execution_id) for each in executions))
    assert results == list(range(40))
    assert len(stage.attempts("a")) == 40


async def test_a_step_that_may_run_once_only_is_not_started_again(serve, stage):
    first = await serve()
    name = await made(
        first.client,
        step("a", "gate", delivery="AT_MOST_ONCE", on_error="CONTINUE"),
        step("b", "transform", value="${steps.a.error.code}"),
    )
    execution = await first.client.execute(name)
    await stage.called("a")
    await first.stop()

    second = await serve()
    assert await second.client.result(execution.execution_id) == "OUTCOME_UNKNOWN"
    found = await second.client.get_execution(execution.execution_id)
    assert (found.steps[0].state, found.steps[0].attempt) == (Step.STATE_FAILED, 1)
    assert stage.attempts("a") == [1]


@pytest.mark.parametrize("park_after", [0.0, 60.0])
async def test_timers_fire_on_the_next_server(serve, stage, park_after):
    first = await serve(park_after=park_after)
    retry = {"max_attempts": 2, "initial_interval": "0.6s", "jitter": 0}
    name = await made(
        first.client,
        wait_step("pause", 0.6),
        step("again", "fail", times=1, retry_policy=retry),
        ordering="GRAPH",
    )
    waiting = await first.client.execute(name)
    delayed = await first.client.execute(await made(first.client, step("late")), start_delay=0.6)
    overdue = await first.client.execute(await made(first.client, step("slow", "gate")), timeout=3)
    await stage.called("again")
    await stage.called("slow")
    await first.stop()

    second = await serve()
    found = [await ended(second.client, each.execution_id) for each in (waiting, delayed, overdue)]
    assert [each.state for each in found] == [State.STATE_COMPLETED, State.STATE_COMPLETED, State.STATE_TIMED_OUT]
    assert (stage.attempts("again"), stage.attempts("late")) == ([1, 2], [1])
    pause = {each.path: each for each in found[0].steps}["pause"]
    assert pause.end_time.ToNanoseconds() - pause.start_time.ToNanoseconds() >= 0.6e9


async def test_a_cancel_that_was_not_carried_out_is_by_the_next_server(serve, stage):
    first = await serve(cancel_grace=5.0)
    execution = await first.client.execute(await made(first.client, step("a", "stubborn"), step("b")))
    await stage.called("a")
    answer = await first.client.cancel(execution.execution_id)
    assert answer.execution.state == State.STATE_CANCELLING
    stopping = asyncio.create_task(first.stop())
    stage.open("a")
    await stopping

    second = await serve()
    found = await ended(second.client, execution.execution_id)
    assert found.state == State.STATE_CANCELLED
    assert stage.attempts("b") == []


async def test_a_step_whose_handler_is_gone_waits_for_a_server_that_has_it(serve, stage, admin):
    first = await serve()
    execution = await first.client.execute(await made(first.client, step("a", "gate"), step("b")))
    await stage.called("a")
    await first.stop()

    second = await serve(handlers=[])
    async for event in second.client.watch(execution.execution_id):
        if event.HasField("step_waiting"):
            assert event.step_waiting.wait.worker.handler == "gate"
            break

    row = await admin.fetchrow(
        "SELECT incarnation, epoch, awaits, wake_time = deadline_time AS is_last FROM executions"
    )
    assert (row["incarnation"], row["awaits"], row["is_last"]) == (None, '["gate", "development\\tgate"]', True)
    # The claims of a server that lacks the handler pass it by, and nothing is written of it.
    other = await second.client.execute(await made(second.client, wait_step("pause", 0.05)))
    await ended(second.client, other.execution_id)
    assert await admin.fetchval("SELECT epoch FROM executions WHERE id = $1", execution.execution_id) == row["epoch"]
    found = await second.client.get_execution(execution.execution_id)
    assert (found.last_seq, found.steps[0].wait.worker.handler) == (event.seq, "gate")
    await second.stop()

    stage.open("gate")
    third = await serve()
    found = await ended(third.client, execution.execution_id)
    assert found.state == State.STATE_COMPLETED
    assert {kept.failure.code for kept in found.steps[0].failed_attempts} == {"INTERRUPTED"}


@pytest.mark.parametrize("timeout", [{}, {"timeout": PATIENCE - 1}], ids=["", "with an end that is near"])
async def test_a_step_goes_on_at_once_on_another_server_that_has_its_handler(serve, stage, timeout):
    stage.open("gate")
    having = await serve(claim_interval=60.0, park_after=PATIENCE)
    lacking = await serve(handlers=[], claim_interval=60.0, park_after=PATIENCE)
    workflow = await made(having.client, wait_step("pause", 0.01), step("a", "count"), **timeout)
    execution = await lacking.client.execute(workflow)
    assert (await ended(lacking.client, execution.execution_id)).state == State.STATE_COMPLETED


async def test_timers_beside_a_step_that_waits_for_another_server_go_on(serve, stage):
    lacking = await serve(handlers=[], claim_interval=60.0)
    steps = [step("absent", "count", depends_on=[]), *(wait_step(f"pause{n}", 0.1) for n in range(3))]
    having = await serve()
    workflow = await made(having.client, *steps, ordering="GRAPH", timeout="4s")
    await having.stop()
    execution = await lacking.client.execute(workflow)
    found = await ended(lacking.client, execution.execution_id)
    assert found.state == State.STATE_TIMED_OUT
    states = {each.path: flowkeep.StepExecution.State.Name(each.state) for each in found.steps}
    assert states == {"absent": "STATE_CANCELLED", **dict.fromkeys(("pause0", "pause1", "pause2"), "STATE_COMPLETED")}
