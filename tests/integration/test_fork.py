"""Executions that are made from others: with the same input or another one, by the same revision or another one."""

import asyncio
from typing import Any

import pytest

import flowkeep
from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_BASIC
from tests.integration.stage import ended, kinds, log, made, refusal, step

State = flowkeep.Execution
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


async def test_what_has_ended_runs_again_and_each_knows_the_other(client, stage):
    name = await made(client, step("a", by="${input.n}"), input_schema=SCHEMA, output="${steps.a.output}")
    labels = {"labels": {"k": "v"}, "tags": ["t"], "priority": 7, "correlation_id": "c", "timeout": "1h"}
    first = await client.execute(name, {"n": 10}, wait=True, **labels)
    before = await client.get_execution(first.execution_id)
    answer = await client.fork(first.execution_id)
    assert answer.created and answer.execution.execution_id != first.execution_id
    second = await ended(client, answer.execution.execution_id)
    assert (flowkeep.from_struct(second.input), flowkeep.from_value(second.result)) == ({"n": 10}, 20)
    assert (second.lineage.source_execution_id, second.lineage.source_step_path) == (first.execution_id, "")
    assert second.lineage.source_seq == before.last_seq
    for field in ("labels", "tags", "priority", "correlation_id", "timeout", "revision", "workflow_id"):
        assert getattr(second, field) == getattr(before, field)
    events = await log(client, second.execution_id)
    assert events[0].created.lineage == second.lineage
    assert kinds(events) == kinds(await log(client, first.execution_id))
    assert stage.attempts("a") == [1, 1]

    after = await client.get_execution(first.execution_id)
    assert [fork.execution_id for fork in after.forks] == [second.execution_id]
    assert (after.forks[0].revision, after.forks[0].create_time) == (1, second.create_time)
    listed = [each.execution_id async for each in client.list_executions(source_execution_id=first.execution_id)]
    assert listed == [second.execution_id]
    after.ClearField("forks")
    assert after == before


async def test_another_input_and_the_latest_revision(client, stage):
    name = await made(client, step("a", by=1), input_schema=SCHEMA, output="${input.n}")
    first = await client.execute(name, {"n": 1}, wait=True)
    wider = {**SCHEMA, "properties": {"n": {"type": "integer", "minimum": 5}}}
    changed = {
        "name": name,
        "steps": [step("a", by=1), step("b", by=1)],
        "input_schema": wider,
        "output": "${-input.n}",
    }
    await client.apply(changed)
    same = await client.fork(first.execution_id, input={"n": 2})
    assert flowkeep.from_value((await ended(client, same.execution.execution_id)).result) == 2

    checked = await client.fork(first.execution_id, revision=0, validate_only=True)
    assert not checked.HasField("execution") and not checked.created
    [check] = checked.checks
    assert (check.kind, check.path) == (pb.ForkExecutionResponse.Check.KIND_INPUT, "") and "input.n" in check.message
    with pytest.raises(flowkeep.FailedPreconditionError, match=r"input\.n") as refused:
        await client.fork(first.execution_id, revision=2)
    assert (refused.value.reason, refused.value.metadata["checks"]) == ("FORK_NOT_FITTING", "1")
    with pytest.raises(flowkeep.InvalidArgumentError, match=r"input\.n"):
        await client.fork(first.execution_id, input={"n": 3}, revision=0)
    latest = await client.fork(first.execution_id, input={"n": 6}, revision=0)
    found = await ended(client, latest.execution.execution_id)
    assert (found.revision, flowkeep.from_value(found.result)) == (2, -6)
    assert [each.execution_id for each in (await client.get_execution(first.execution_id)).forks] == [
        latest.execution.execution_id,
        same.execution.execution_id,
    ]


async def test_one_that_runs_and_one_that_was_cancelled(client, stage):
    name = await made(client, step("a", "gate"))
    running = (await client.execute(name)).execution_id
    await stage.called("a")
    made_of_it = (await client.fork(running)).execution.execution_id
    await stage.called("a", 2)
    await client.cancel(running)
    assert (await ended(client, running)).state == State.STATE_CANCELLED
    again = (await client.fork(running)).execution.execution_id
    stage.open("gate")
    for execution_id in (made_of_it, again):
        assert (await ended(client, execution_id)).state == State.STATE_COMPLETED


async def test_a_request_makes_one_execution(client, stage):
    name = await made(client, step("a"))
    first = await client.execute(name, wait=True)
    answers = await asyncio.gather(*(client.fork(first.execution_id, request_id="once") for _ in range(5)))
    assert len({each.execution.execution_id for each in answers}) == 1
    assert sum(each.created for each in answers) == 1
    others: tuple[dict[str, Any], ...] = ({"input": {}}, {"revision": 0}, {"input": {"n": 1}})
    for other in others:
        with pytest.raises(flowkeep.AlreadyExistsError):
            await client.fork(first.execution_id, request_id="once", **other)
    with pytest.raises(flowkeep.AlreadyExistsError):
        await client.execute(name, request_id="once")
    assert len((await client.get_execution(first.execution_id)).forks) == 1


async def test_what_is_not_there_is_named(client, served, stage):
    name = await made(client, step("a"))
    first = await client.execute(name, wait=True)
    absent = "01930000-0000-7000-8000-000000000000"
    request = pb.ForkExecutionRequest(execution_id=absent)
    assert (await refusal(served.executions.ForkExecution(request))).reason == "EXECUTION_NOT_FOUND"
    request = pb.ForkExecutionRequest(execution_id=first.execution_id, revision=7)
    assert (await refusal(served.executions.ForkExecution(request))).reason == "REVISION_NOT_FOUND"
    basic = await client.get_execution(first.execution_id, EXECUTION_VIEW_BASIC)
    assert not basic.forks
