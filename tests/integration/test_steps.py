"""Reading steps: lists in pages, and each of them whole, whatever the execution holds in all.

Holds LI2 of the contract.
"""

from typing import Any

import grpc
import pytest

import flowkeep
from flowkeep.requests import steps_request
from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1.execution_pb2 import STEP_VIEW_BASIC, STEP_VIEW_FULL, STEP_VIEW_UNSPECIFIED
from tests.integration.stage import Store, log, made, refusal, step, wait_step
from tests.patience import PATIENCE

State = flowkeep.StepExecution
PAYLOADS = ("input", "output", "assigned", "failed_attempts")
LARGE = "x" * 250_000


async def paths(client, execution_id, **asked):
    return [each.path async for each in client.list_steps(execution_id, **asked)]


def without_durations(steps):
    """Steps that can be compared: the duration of one that runs grows."""
    for each in steps:
        each.ClearField("duration")
    return list(steps)


async def running(client, stage):
    """An execution with a step in each state that lasts, in an order that is not that of their names."""
    name = await made(
        client,
        step("e", "transform", value={"x": 1}, assign={"v": "result"}),
        step("d", "fail", on_error="CONTINUE", retry_policy={"max_attempts": 2, "initial_interval": 0.01}),
        step("c", "transform", value=1, condition="false"),
        step("b", "gate"),
        step("a", "transform", value=1),
    )
    execution = await client.execute(name, {"n": 1})
    await stage.called("b")
    return execution.execution_id


async def test_steps_are_those_of_the_execution_in_the_order_of_the_definition(served, stage):
    execution_id = await running(served.client, stage)
    whole = without_durations((await served.client.get_execution(execution_id)).steps)
    assert [each.path for each in whole] == list("edcba")

    async def listed(view):
        page = await served.executions.ListSteps(pb.ListStepsRequest(execution_id=execution_id, view=view))
        assert (page.next_page_token, page.definition_withheld, list(page.unreadable)) == ("", False, [])
        return without_durations(page.steps)

    assert await listed(STEP_VIEW_FULL) == whole
    for each in whole:
        answer = await served.client.get_step(execution_id, each.path)
        assert without_durations([answer.step]) == [each]
    for each in whole:
        for name in PAYLOADS:
            each.ClearField(name)
        each.failure.ClearField("details") if each.HasField("failure") else None
    assert await listed(STEP_VIEW_BASIC) == await listed(STEP_VIEW_UNSPECIFIED) == whole


async def test_both_filters_hold(served, stage):
    client = served.client
    execution_id = await running(client, stage)
    asked: Any
    for asked, found in (
        ({}, "edcba"),
        ({"states": ["COMPLETED"]}, "e"),
        ({"states": ["FAILED", "SKIPPED"]}, "dc"),
        ({"states": ["RUNNING"]}, "b"),
        ({"states": ["PENDING"]}, "a"),
        ({"states": ["WAITING", "CANCELLED", "COMPENSATED"]}, ""),
        ({"states": State.State.values()[1:]}, "edcba"),
        ({"handler": "transform"}, "eca"),
        ({"handler": "transform", "states": ["PENDING", "RUNNING"]}, "a"),
        ({"handler": "absent"}, ""),
    ):
        for page_size in (1, 2, 50):
            assert "".join(await paths(client, execution_id, page_size=page_size, **asked)) == found, asked
    await client.cancel(execution_id)
    async for _ in client.watch(execution_id):
        pass
    # What never started has no record, and never will.
    assert await paths(client, execution_id, states=["PENDING"]) == []
    assert await paths(client, execution_id, states=["CANCELLED"]) == ["b", "a"]
    assert (await client.get_step(execution_id, "a")).step.state == State.STATE_CANCELLED


@pytest.mark.parametrize("view", [STEP_VIEW_BASIC, STEP_VIEW_FULL])
async def test_pages_hold_each_step_once(client, view):
    name = await made(client, *(step(f"s{n}", "transform", value=n) for n in range(23)))
    execution_id = (await client.execute(name, wait=True)).execution_id
    for page_size in (1, 7, 22, 23, 0):
        assert await paths(client, execution_id, view=view, page_size=page_size) == [f"s{n}" for n in range(23)]
    page = await client.steps_page(steps_request(execution_id, page_size=23))
    assert (len(page.steps), page.next_page_token) == (23, "")


async def test_an_execution_of_any_size_is_read_in_answers_that_every_client_takes(served):
    """What GetExecution leaves out of 36 MB is in the list, 3 MiB at a time, and in GetStep."""
    steps = (step(f"s{n}", "transform", value=f"{n}" + "${input.x}") for n in range(144))
    name = await made(served.client, *steps, output="small")
    execution_id = (await served.client.execute(name, {"x": LARGE}, wait=True)).execution_id
    roomy = [("grpc.max_receive_message_length", -1)]
    async with flowkeep.Client(served.target, options=roomy, timeout=PATIENCE) as client:
        cut = (await client.get_execution(execution_id)).steps
    assert [each.payloads_omitted for each in cut] == sorted(each.payloads_omitted for each in cut)
    assert cut[-1].payloads_omitted

    request, found = steps_request(execution_id, view=STEP_VIEW_FULL, page_size=200), []
    while True:
        page = await served.client.steps_page(request)
        assert page.steps
        assert page.ByteSize() <= 3 << 20
        found += page.steps
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert [each.path for each in found] == [f"s{n}" for n in range(144)]
    for n, each in enumerate(found):
        assert (each.payloads_omitted, each.output.string_value) == (False, f"{n}{LARGE}")
    last = await served.client.get_step(execution_id, cut[-1].path)
    assert (last.step.payloads_omitted, last.step) == (False, found[-1])


async def test_what_there_is_not_is_not_found(served):
    execution_id = (await served.client.execute(await made(served.client, step("a")), wait=True)).execution_id
    for path in ("b", "A", "a ", "a[0]", "x" * 1024):
        error = await refusal(served.executions.GetStep(pb.GetStepRequest(execution_id=execution_id, path=path)))
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "STEP_NOT_FOUND")
        assert error.metadata["path"][:500] == path[:500]


async def test_a_step_is_shown_in_the_iteration_asked_for(served, admin):
    name = await made(served.client, step("a", "transform", value=1))
    execution_id = (await served.client.execute(name, wait=True)).execution_id
    await admin.execute(
        """INSERT INTO steps
        SELECT (jsonb_populate_record(s, '{"iteration": 2, "output": 7}')).* FROM steps s WHERE execution_id = $1""",
        execution_id,
    )
    for asked, iteration, output in ((0, 2, 7), (1, 1, 1), (2, 2, 7)):
        found = (await served.client.get_step(execution_id, "a", iteration=asked)).step
        assert (found.iteration, found.output.number_value) == (iteration, output)
    request = pb.GetStepRequest(execution_id=execution_id, path="a", iteration=3)
    assert (await refusal(served.executions.GetStep(request))).reason == "STEP_NOT_FOUND"


async def test_a_page_token_belongs_to_its_execution_and_filter(served):
    name = await made(served.client, *(step(f"s{n}", "transform", value=n) for n in range(3)))
    one, other = [(await served.client.execute(name, wait=True)).execution_id for _ in range(2)]
    token = (await served.client.steps_page(steps_request(one, page_size=1))).next_page_token
    for change in ({"page_size": 2}, {"view": STEP_VIEW_FULL}):
        page = await served.client.steps_page(steps_request(one, page_token=token, **change))
        assert page.steps[0].path == "s1"
    listed = (await served.client.list_page(page_size=1)).next_page_token
    for request in (
        steps_request(other, page_token=token),
        steps_request(one, page_token=token, states=["COMPLETED"]),
        steps_request(one, page_token=token, handler="transform"),
        steps_request(one, page_token=listed),
        steps_request(one, page_token=token[:-4]),
        pb.ListExecutionsRequest(page_token=token),
    ):
        method = "ListSteps" if isinstance(request, pb.ListStepsRequest) else "ListExecutions"
        error = await refusal(getattr(served.executions, method)(request))
        assert (error.reason, [each.field for each in error.violations]) == ("INVALID_FIELDS", ["page_token"])


async def test_what_cannot_be_read_of_a_step_is_named_where_it_is_shown(served, admin):
    name = await made(served.client, step("a", "transform", value=1), step("b", "transform", value=2), wait_step())
    execution_id = (await served.client.execute(name)).execution_id
    async for event in served.client.watch(execution_id):
        if event.WhichOneof("kind") == "step_waiting":
            break
    await admin.execute("UPDATE steps SET end_time = '0044-03-15 BC', assigned = '[]' WHERE path = 'b'")

    lost = ["steps.b.end_time"]
    for request, names, unreadable in (
        (steps_request(execution_id), ["a", "b", "pause"], lost),
        (steps_request(execution_id, page_size=1), ["a"], []),
        (steps_request(execution_id, handler="wait"), ["pause"], []),
    ):
        page = await served.client.steps_page(request)
        assert [each.path for each in page.steps] == names
        assert page.unreadable == unreadable
    step_b = await served.client.get_step(execution_id, "b")
    assert (step_b.unreadable, step_b.step.output.number_value) == ([*lost, "steps.b.assigned"], 2.0)
    assert list((await served.client.get_step(execution_id, "a")).unreadable) == []


async def test_an_iteration_that_no_answer_can_hold_is_named_and_left_out(served, admin):
    name = await made(served.client, step("a", "transform", value="${ 1 / 0 }"))
    failed = await served.client.execute(name, wait=True)
    await admin.execute("""UPDATE executions SET failure = failure || '{"step_iteration": 4294967296}'""")
    assert (await served.client.get_execution(failed.execution_id)).unreadable == ["failure"]


async def test_steps_of_a_definition_that_cannot_be_read_are_those_that_were_begun(serve, stage, admin):
    execution_id = await running((await serve()).client, stage)
    await admin.execute("UPDATE workflow_revisions SET document = '[]'")
    other = (await serve()).client  # which has not read it before
    begun = await paths(other, execution_id)
    assert sorted(begun) == list("bcde")
    assert await paths(other, execution_id, page_size=1) == begun
    assert (await other.get_step(execution_id, "b")).step.state == State.STATE_RUNNING
    with pytest.raises(flowkeep.NotFoundError):
        await other.get_step(execution_id, "a")


async def test_a_step_that_goes_on_while_a_page_is_made_is_in_no_list_of_a_state_that_it_has_left(serve, stage):
    """The steps of a state are chosen first, and then read."""
    reads = []

    def moving(repository):
        async def get_steps(scope, execution_id, paths, most):
            reads.append(list(paths))
            if len(reads) == 2:
                stage.open("gate")
                await log(client, str(execution_id))
            return await repository.get_steps(scope, execution_id, paths, most)

        return Store(repository, get_steps=get_steps)

    client = (await serve(wrap=moving)).client
    execution_id = await running(client, stage)
    assert await paths(client, execution_id, states=["RUNNING"]) == []
    assert reads == [list("edcba"), ["b"]]
