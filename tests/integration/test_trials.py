"""One step by itself: it runs as in executions, nothing is kept of it, and an execution only lends its values."""

import asyncio

import pytest

import flowkeep
from flowkeep import from_struct, from_value
from flowkeep.v1.execution_pb2 import StepExecution
from tests.integration.stage import eventually, log, made, step

State = StepExecution


def following(answer):
    return [(each.path, each.runs, bool(each.error)) for each in answer.next_steps]


async def test_a_step_of_a_workflow_with_given_values(client, stage):
    name = await made(
        client,
        step("first", "transform", value=1),
        step(
            "taken",
            "take",
            value="${ input.n + steps.first.output + vars.v }",
            give={"x": "${ attempt }"},
            condition="input.n > 0",
            assign={"seen": "result.x"},
        ),
        step("skipped", "take", condition="vars.seen > 1"),
        step("last", "take"),
        step("beyond", "take"),
    )
    given = {"input": {"n": 1}, "outputs": {"first": 10}, "variables": {"v": 100}}
    tried = await client.test_step(name, "taken", **given)
    assert tried.step.state == State.STATE_COMPLETED
    assert from_struct(tried.step.input) == {"value": 111, "give": {"x": 1}}
    assert (from_value(tried.step.output), from_struct(tried.step.assigned)) == ({"x": 1}, {"seen": 1})
    assert following(tried) == [("skipped", False, False), ("last", True, False)]

    skipped = await client.test_step(name, "taken", **{**given, "input": {"n": 0}})
    assert skipped.step.state == State.STATE_SKIPPED
    lacking = await client.test_step(name, "taken", input={"n": 1}, outputs={"first": 1})
    assert (lacking.step.state, lacking.step.failure.code) == (State.STATE_FAILED, "EXPRESSION_ERROR")
    assert following(lacking) == []
    instead = await client.test_step(name, "taken", **given, params={"give": "else"})
    assert instead.step.failure.code == "EXPRESSION_ERROR"  # of what it assigns
    assert from_struct(instead.step.input) == {"give": "else"}
    assert stage.attempts("taken") == [1, 1]
    assert [each async for each in client.list_executions(workflow=name)] == []


async def test_what_fails_fails_once_and_what_waits_says_for_what(client):
    name = await made(
        client,
        step("failing", "fail", retry_policy={"max_attempts": 5}, on_error="CONTINUE"),
        step("waiting", "wait", duration=1000),
        step("asking", "create_task", title="Approve ${ input.what }"),
        step("listening", "wait_signal", name="paid"),
        {"id": "all", "for_each": {"items": "[1, 2]", "steps": [step("each", "transform", value="${ item * 2 }")]}},
        step("slow", "gate", timeout=0.05),
        step("crashing", "crash"),
    )
    failing = await client.test_step(name, "failing")
    assert (failing.step.state, failing.step.failure.code) == (State.STATE_FAILED, "BROKEN")
    assert from_struct(failing.step.failure.details) == {"n": 1}
    assert following(failing) == [("waiting", True, False)]
    kinds = {}
    for path in ("waiting", "asking", "listening"):
        found = (await client.test_step(name, path, input={"what": "it"})).step
        assert found.state == State.STATE_WAITING
        kinds[path] = found.wait.WhichOneof("kind")
    assert kinds == {"waiting": "timer", "asking": "task", "listening": "signal"}
    assert [each async for each in client.list_tasks()] == []
    assert from_struct((await client.test_step(name, "all")).step.input) == {"items": [1, 2]}
    assert from_value((await client.test_step(name, "all[1].each")).step.output) == 4
    assert from_value((await client.test_step(name, "all[7].each", items={"item": 8})).step.output) == 16
    with pytest.raises(flowkeep.InvalidArgumentError, match="2 items"):
        await client.test_step(name, "all[7].each")
    assert (await client.test_step(name, "slow")).step.failure.code == "STEP_TIMEOUT"
    assert (await client.test_step(name, "crashing")).step.failure.code == "HANDLER_ERROR"


async def test_the_values_of_an_execution_and_a_definition_that_is_not_kept(client):
    name = await made(
        client,
        step("counted", "count", by="${ input.by }"),
        step("doubled", "transform", value="${ steps.counted.output * 2 }", assign={"v": "result"}),
    )
    done = await client.execute(name, {"by": 5}, wait=True)
    before = await log(client, done.execution_id)
    again = await client.test_step("", "doubled", execution_id=done.execution_id)
    assert from_value(again.step.output) == 10
    started = next(event.seq for event in before if event.WhichOneof("kind") == "step_started")
    early = await client.test_step("", "doubled", execution_id=done.execution_id, at_seq=started)
    assert early.step.failure.code == "EXPRESSION_ERROR"

    edited = {
        "name": "edited",
        "steps": [step("counted"), step("doubled", "transform", value="${ [steps.counted.output, vars.v, input.by] }")],
    }
    tried = await client.test_step(edited, "doubled", execution_id=done.execution_id, outputs={"counted": 7})
    assert from_value(tried.step.output) == [7, 10, 5]
    with pytest.raises(flowkeep.InvalidArgumentError) as wrong:
        await client.test_step({**edited, "steps": [step("a", "take", value="${ 1 + }")]}, "a")
    assert wrong.value.violations[0].field.startswith("definition.steps[0].params.value")
    assert await log(client, done.execution_id) == before
    with pytest.raises(flowkeep.InvalidArgumentError, match="no such step"):
        await client.test_step(name, "absent")
    with pytest.raises(flowkeep.NotFoundError):
        await client.test_step("absent", "a")


async def test_an_attempt_is_stopped_when_its_caller_goes(client, stage):
    name = await made(client, step("held", "gate"))
    call = asyncio.create_task(client.test_step(name, "held"))
    await stage.called("held")
    call.cancel()

    async def is_stopped():
        return stage.stopped == [("held", 1)]

    await eventually(is_stopped)
