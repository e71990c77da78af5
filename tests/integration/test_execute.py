"""Execute from end to end: what is accepted, once and only once, and what is refused.

Holds EX1 to EX6 of the contract on one replica; test_replicas.py holds EX2 and EX6 on several.
"""

import asyncio
from typing import Any

import grpc
import pytest

import flowkeep
from flowkeep.requests import execute_request
from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_FULL
from persistence.errors import UnavailableError
from tests.integration.stage import Store, ended, eventually, log, made, refusal, step
from tests.patience import PATIENCE

State = flowkeep.Execution


def seconds_between(start, end):
    return (end.ToNanoseconds() - start.ToNanoseconds()) / 1e9


async def test_an_execution_runs_to_its_end_and_answers_its_result(client):
    name = await made(
        client,
        step("a", "transform", value={"x": "${input.n + 1}"}, assign={"v": "result.x * 2"}),
        step("b", "transform", expression="vars.v + steps.a.output.x"),
        output={"sum": "${steps.b.output}", "by": "${execution.owner}", "team": "${execution.labels.team}"},
    )
    execution = await client.execute(name, {"n": 4}, labels={"team": "growth"})

    assert execution.state in (State.STATE_RUNNING, State.STATE_COMPLETED)
    assert (execution.workflow_name, execution.revision, execution.owner) == (name, 1, "developer")
    assert await client.result(execution.execution_id) == {"sum": 15, "by": "developer", "team": "growth"}
    found = await client.get_execution(execution.execution_id)
    assert (found.state, found.progress_percent, flowkeep.from_struct(found.vars)) == (
        State.STATE_COMPLETED,
        100,
        {"v": 10},
    )
    assert flowkeep.from_struct(found.input) == {"n": 4}


async def test_a_payload_comes_back_as_it_was(client):
    payload = {
        "text": "é ✓ 🙂 \u202e",
        "zero": -0.0,
        "whole": 2**53 - 1,
        "real": 1e-300,
        "large": 6.02e23,
        "deep": [[{"": [None, True]}]],
    }
    name = await made(client, step("echo", "transform", value="${input}"))
    execution = await client.execute(name, payload, wait=True, view=EXECUTION_VIEW_FULL)

    assert flowkeep.from_value(execution.result) == payload
    assert flowkeep.from_struct(execution.input) == payload


async def test_without_input_there_is_an_empty_one(served):
    name = await made(served.client, step("echo", "transform", value="${input}"))
    assert await served.client.run(name) == {}


async def test_the_same_request_returns_the_first_execution_as_it_is_now(served, stage):
    name = await made(served.client, step("a", "gate"), tags=["t"])
    request = execute_request(name, {"n": 1}, request_id="r-1", tags=["x"], labels={"k": "v"}, timeout="1h")
    first = await served.executions.Execute(request)
    again = await served.executions.Execute(request)
    stage.open("gate")
    await log(served.client, first.execution.execution_id)
    late = await served.executions.Execute(request)

    assert [first.created, again.created, late.created] == [True, False, False]
    assert first.execution.execution_id == again.execution.execution_id == late.execution.execution_id
    assert late.execution.state == State.STATE_COMPLETED
    assert stage.attempts("a") == [1]


async def test_an_update_in_between_does_not_make_it_another_request(served):
    name = await made(served.client, step("a"))
    request = execute_request(name, request_id="r-1")
    first = await served.executions.Execute(request)
    await served.client.update_workflow(name, {"steps": [step("b")]})
    again = await served.executions.Execute(request)
    assert (again.created, again.execution.execution_id) == (False, first.execution.execution_id)
    assert again.execution.revision == 1


async def test_a_request_that_was_kept_stays_so_when_the_workflow_no_longer_takes_it(served):
    name = await made(served.client, step("a"))
    request = execute_request(name, {"n": "one"}, request_id="r-1")
    first = await served.executions.Execute(request)
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    await served.client.update_workflow(name, {"steps": [step("a")], "input_schema": schema})

    again = await served.executions.Execute(request)
    assert (again.created, again.execution.execution_id) == (False, first.execution.execution_id)
    error = await refusal(served.executions.Execute(execute_request(name, {"n": "two"}, request_id="r-1")))
    assert error.code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS)
    error = await refusal(served.executions.Execute(execute_request(name, {"n": "one"}, request_id="r-2")))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_request_id_with_other_content_is_refused(served):
    name, other = await made(served.client, step("a")), await made(served.client, step("a"))
    options: dict[str, Any] = {
        "input": {"n": 1},
        "request_id": "r-1",
        "revision": 1,
        "tags": ["x", "y"],
        "labels": {"k": "v"},
    }
    options |= {"priority": 1, "correlation_id": "c", "timeout": "2h", "start_delay": "0.001s"}
    await served.executions.Execute(execute_request(name, **options))

    for change in (
        {"input": {"n": 2}},
        {"input": {"n": True}},
        {"input": None},
        {"tags": ["x"]},
        {"labels": {"k": "w"}},
        {"priority": 2},
        {"priority": None},
        {"correlation_id": ""},
        {"timeout": "61m"},
        {"timeout": None},
        {"start_delay": None},
        {"revision": 0},
    ):
        error = await refusal(served.executions.Execute(execute_request(name, **{**options, **change})))
        assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"), change
        assert error.metadata == {"request_id": "r-1"}
    assert (await refusal(served.executions.Execute(execute_request(other, **options)))).reason == "REQUEST_ID_REUSED"
    assert len([each async for each in served.client.list_executions()]) == 1


async def test_the_same_request_in_another_form_is_the_same(served):
    workflow = await served.client.create_workflow({"name": "w", "steps": [step("a")], "default_priority": 3})
    plain: dict[str, Any] = {"tags": ["x", "y"], "labels": {"a": "1", "b": "2"}, "input": {"n": 1, "z": 0}}
    forms: list[dict[str, Any]] = [
        plain,
        {**plain, "tags": ["y", "x"]},
        {**plain, "labels": {"b": "2", "a": "1"}},
        {**plain, "input": {"z": -0.0, "n": 1.0}},
        {**plain, "priority": 3},
        {**plain, "timeout": "1h"},
        {**plain, "priority": 3, "timeout": "1h", "start_delay": "0s"},
    ]
    requests = [execute_request(name, **form) for form in forms for name in ("w", workflow.workflow_id)]
    for index, first in enumerate(requests):
        first.request_id = f"r-{index}"
        made_first = await served.executions.Execute(first)
        for other in requests:
            other.request_id = first.request_id
            again = await served.executions.Execute(other)
            assert (again.execution.execution_id, again.created) == (made_first.execution.execution_id, False), other


async def test_an_id_is_not_the_workflow_that_took_over_its_name(served):
    ids = []
    for _ in range(2):
        ids.append((await served.client.create_workflow({"name": "w", "steps": [step("a")]})).workflow_id)
        if len(ids) == 1:
            await served.executions.Execute(execute_request("w", request_id="r", wait=True))
            # A second one, so that the first workflow is still found by its id.
            await served.executions.Execute(execute_request("w", wait=True))
            await served.client.delete_workflow("w", force=True)
    error = await refusal(served.executions.Execute(execute_request(ids[1], request_id="r")))
    assert error.reason in ("REQUEST_ID_REUSED", "EXECUTION_NOT_FOUND")


async def test_calls_without_a_request_id_are_each_their_own(served):
    name = await made(served.client, step("a"))
    answers = [await served.executions.Execute(pb.ExecuteRequest(workflow=name)) for _ in range(3)]
    assert len({answer.execution.execution_id for answer in answers}) == 3
    assert all(answer.created for answer in answers)


async def test_a_start_delay_puts_the_start_off(client):
    execution = await client.execute(await made(client, step("a")), start_delay=0.3)
    assert execution.state == State.STATE_PENDING
    assert not execution.HasField("start_time")

    found = await ended(client, execution.execution_id)
    assert found.scheduled_time == execution.scheduled_time
    delay = seconds_between(found.create_time, found.scheduled_time)
    assert abs(delay - 0.3) < 1e-5
    assert found.start_time.ToNanoseconds() >= found.scheduled_time.ToNanoseconds()
    assert found.state == State.STATE_COMPLETED


async def test_an_execution_that_takes_too_long_is_timed_out(client, stage):
    name = await made(client, step("a", "gate"), step("b"), timeout="1h")
    execution = await client.execute(name, timeout=3)
    found = await ended(client, execution.execution_id)

    assert (found.state, found.failure.code) == (State.STATE_TIMED_OUT, "EXECUTION_TIMEOUT")
    assert seconds_between(found.start_time, found.deadline_time) == 3
    assert found.end_time.ToNanoseconds() >= found.deadline_time.ToNanoseconds()
    assert found.progress_percent < 100
    assert [each.state for each in found.steps] == [flowkeep.StepExecution.STATE_CANCELLED] * 2
    assert stage.stopped == [("a", 1)]
    with pytest.raises(flowkeep.ExecutionFailedError, match="TIMED_OUT: EXECUTION_TIMEOUT"):
        await client.result(execution.execution_id)


async def test_labels_are_kept_and_defaults_taken_from_the_workflow(client):
    name = await made(client, step("a"), tags=["w", "both"], default_priority=-5, timeout="90s")
    plain = await client.execute(name)
    labelled = await client.execute(
        name, tags=["both", "e"], labels={"k": "v", "k2": ""}, priority=100, correlation_id="ci-7", timeout=7
    )

    assert (list(plain.tags), plain.priority, plain.timeout.seconds) == (["w", "both"], -5, 90)
    assert (list(labelled.tags), labelled.priority, labelled.timeout.seconds) == (["w", "both", "e"], 100, 7)
    assert dict(labelled.labels) == {"k": "v", "k2": ""}
    assert (labelled.correlation_id, bool(labelled.request_id)) == ("ci-7", True)
    assert (await client.execute(name, priority=0)).priority == 0


async def test_higher_priority_goes_first(serve, stage):
    served = await serve(max_running=1)
    name = await made(served.client, step("a", "gate", name="${string(input.n)}"))
    blocking = await served.client.execute(name, {"n": 100})
    await stage.called("a")
    waiting = [await served.client.execute(name, {"n": n}, priority=n) for n in (0, 5, -5, 9)]
    assert {each.state for each in waiting} == {State.STATE_PENDING}

    stage.open("100", "0", "5", "-5", "9")
    found = [await ended(served.client, each.execution_id) for each in (blocking, *waiting)]
    started = sorted(found, key=lambda each: each.start_time.ToNanoseconds())
    assert [each.priority for each in started] == [0, 9, 5, 0, -5]


async def test_input_must_meet_the_schema_of_the_workflow(client):
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "maximum": 9}, "items": {"type": "array", "items": {"type": "string"}}},
        "required": ["n"],
        "additionalProperties": False,
    }
    name = await made(client, step("a"), input_schema=schema)
    with pytest.raises(flowkeep.InvalidArgumentError) as error:
        await client.execute(name, {"items": ["a", 1], "m": 1})

    assert {violation.field for violation in error.value.violations} == {"input.n", "input.items[1]", "input.m"}
    with pytest.raises(flowkeep.InvalidArgumentError) as error:
        await client.execute(name, {"n": 10})
    assert [violation.field for violation in error.value.violations] == ["input.n"]
    assert [each async for each in client.list_executions()] == []
    assert (await client.execute(name, {"n": 9.0})).execution_id


async def test_an_execution_runs_the_revision_it_was_given_to_its_end(client, stage):
    name = await made(client, step("a", "gate"), step("old", "transform", value=1))
    pinned = await client.execute(name)
    await stage.called("a")
    await client.update_workflow(name, {"steps": [step("new", "transform", value=2)]})
    latest = await client.execute(name)
    first = await client.execute(name, revision=1)
    stage.open("gate")

    assert [await client.result(each.execution_id) for each in (pinned, latest, first)] == [1, 2, 1]
    assert [each.revision for each in (pinned, latest, first)] == [1, 2, 1]
    found = await client.get_execution(pinned.execution_id)
    assert [each.id for each in found.definition.steps] == ["a", "old"]


async def test_what_another_server_made_of_a_workflow_counts_at_once(serve):
    here, there = (await serve()).client, (await serve()).client
    name = await made(there, step("a", "transform", value=1))
    assert await here.run(name) == await here.run(name) == 1

    schema = {"type": "object", "required": ["n"]}
    await there.update_workflow(name, {"steps": [step("a", "transform", value=2)], "input_schema": schema})
    with pytest.raises(flowkeep.InvalidArgumentError):
        await here.execute(name)
    assert await here.run(name, {"n": 1}) == 2

    await there.update_workflow(name, {"steps": [step("a", "transform", value=3)]})
    assert await here.run(name) == 3  # its input was refused by what was known here
    assert await here.run(name, {"n": 1}, revision=2) == 2

    before = (await there.get_workflow(name)).workflow_id
    await there.delete_workflow(name, force=True)
    for revision in (0, 2):
        with pytest.raises(flowkeep.NotFoundError):
            await here.execute(name, {"n": 1}, revision=revision)
    await there.create_workflow({"name": name, "steps": [step("a", "transform", value=4)]})
    execution = await here.execute(name)
    assert execution.workflow_id != before
    assert await here.result(execution.execution_id) == 4


async def test_a_workflow_that_is_known_is_not_looked_up(serve):
    looked_up = []

    def counted(repository):
        async def get_workflow(*arguments):
            looked_up.append(arguments)
            return await repository.get_workflow(*arguments)

        return Store(repository, get_workflow=get_workflow)

    client = (await serve(wrap=counted)).client
    name = await made(client, step("a"))
    await client.execute(name)
    looked_up.clear()
    for _ in range(3):
        await client.execute(name)
    assert looked_up == []


@pytest.mark.parametrize(("workflow", "revision", "reason"), [("absent", 0, "WORKFLOW"), ("KNOWN", 9, "REVISION")])
async def test_what_does_not_exist_cannot_be_executed(client, workflow, revision, reason):
    workflow = workflow if workflow == "absent" else await made(client, step("a"))
    with pytest.raises(flowkeep.NotFoundError) as error:
        await client.execute(workflow, revision=revision)
    assert error.value.reason == f"{reason}_NOT_FOUND"


async def test_what_was_acknowledged_is_seen_by_every_read(client):
    """EX6 on one replica."""
    name = await made(client, step("a", "gate"))
    for _ in range(50):
        execution = await client.execute(name)
        assert (await client.get_execution(execution.execution_id)).execution_id == execution.execution_id
        assert (await client.list_page(page_size=1)).executions[0].execution_id == execution.execution_id
        async for event in client.watch(execution.execution_id):
            assert event.created.workflow_name == name
            break


async def test_a_caller_who_went_away_leaves_an_execution_that_runs(serve):
    """EX7: the creation is on its way to the disk when the call is cancelled."""
    reached, goes_on = asyncio.Event(), asyncio.Event()

    def slow(repository):
        def create(new):
            return asyncio.ensure_future(later(new))

        async def later(new):
            reached.set()
            await goes_on.wait()
            return await repository.create(new)

        return Store(repository, create=create)

    served = await serve(wrap=slow)
    name = await made(served.client, step("a"))
    call = served.executions.Execute(execute_request(name))
    async with asyncio.timeout(PATIENCE):
        await reached.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    goes_on.set()

    async def is_kept():
        return bool((await served.client.list_page()).executions)

    await eventually(is_kept)
    (execution,) = (await served.client.list_page()).executions
    assert (await ended(served.client, execution.execution_id)).state == State.STATE_COMPLETED


async def test_an_execution_whose_creation_ended_unknown_runs_all_the_same(serve):
    def unsure(repository):
        def create(new):
            return asyncio.ensure_future(later(new))

        async def later(new):
            created = await repository.create(new)
            if created.created:
                raise UnavailableError("the answer was lost")
            return created

        return Store(repository, create=create)

    served = await serve(wrap=unsure)
    name = await made(served.client, step("a"))
    request = execute_request(name, request_id="r")
    error = await refusal(served.executions.Execute(request))
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
    assert error.retry_after

    answer = await served.executions.Execute(request)
    assert not answer.created
    assert (await ended(served.client, answer.execution.execution_id)).state == State.STATE_COMPLETED
