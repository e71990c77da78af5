"""Retry in place from end to end: what failed or was stopped runs again, what is done does not, and of two one wins.

Holds RE1 and RE2 of the contract; `tests/e2e/test_retry.py` has the crashes.
"""

import asyncio

import pytest

import flowkeep
from flowkeep.requests import execute_request
from flowkeep.v1 import execution_service_pb2 as pb
from tests.integration.stage import ended, kinds, log, made, refusal, step

State = flowkeep.Execution
PAIRS = 20
"""The stores have 400 (`tests/conformance/journal/test_reopen.py`)."""


async def failed(client, *steps, **fields):
    """The id of an execution of these steps that has failed."""
    execution = await client.execute(await made(client, *steps, **fields), wait=True)
    assert execution.state == State.STATE_FAILED
    return execution.execution_id


async def test_a_failed_execution_goes_on_with_an_edited_input_and_keeps_what_is_done(client, stage):
    execution_id = await failed(
        client, step("a"), step("b", "fail", retryable=False), step("c"), output="${steps.b.output + steps.c.output}"
    )
    first = await log(client, execution_id)
    before = await client.get_execution(execution_id)
    answer = await client.retry(execution_id, "the code was wrong", edit=("b", {"times": 0, "code": "MENDED"}))
    assert (answer.run, answer.execution_id) == (2, execution_id)

    events = await log(client, execution_id)
    assert events[: len(first)] == first
    assert kinds(events[len(first) :]) == [
        "reopened",
        "step_started b",
        "step_completed b",
        "step_started c",
        "step_completed c",
        "finished",
    ]
    reopened = events[len(first)].reopened
    assert (reopened.run, reopened.reopened_by, reopened.reason) == (2, "developer", "the code was wrong")
    assert (reopened.edit.path, reopened.edit.iteration) == ("b", 2)
    assert flowkeep.from_struct(reopened.edit.input) == {"times": 0, "code": "MENDED"}
    found = await client.get_execution(execution_id)
    assert (found.state, found.run, flowkeep.from_value(found.result)) == (State.STATE_COMPLETED, 2, 1 + 4)
    assert not found.HasField("failure")
    assert stage.calls == [("a", 1), ("b", 1), ("b", 1), ("c", 1)]
    assert len(stage.tokens["b"]) == 2
    both = [(await client.get_step(execution_id, "b", iteration=iteration)).step for iteration in (1, 2)]
    assert [(each.state, each.iteration) for each in both] == [
        (flowkeep.StepExecution.STATE_FAILED, 1),
        (flowkeep.StepExecution.STATE_COMPLETED, 2),
    ]
    before.ClearField("written_bytes")  # which no event tells
    assert await client.get_execution(execution_id, at_seq=first[-1].seq) == before
    # Whoever resumes behind the first end sees the new run, and nothing else.
    assert await log(client, execution_id, first[-1].seq) == events[len(first) :]


async def test_a_step_is_skipped_by_hand_with_an_output(client, stage):
    execution_id = await failed(
        client,
        step("a", "fail", retryable=False, assign={"x": "result.n"}),
        step("b", "take", give="${vars.x}", depends_on=["a"]),
        ordering="GRAPH",
        output="${steps.b.output}",
    )
    await client.retry(execution_id, skip=("a", {"n": 7}))
    found = await ended(client, execution_id)
    assert (found.state, flowkeep.from_value(found.result)) == (State.STATE_COMPLETED, 7)
    assert stage.attempts("a") == [1]


async def test_only_the_items_that_are_not_done_run_again(client, stage):
    body = [step("one", "count"), step("two", "fail", times="${item}", retryable=False)]
    fan = {"id": "fan", "for_each": {"items": "[0, 1, 0]", "steps": body, "max_parallel": 1, "output": "${index}"}}
    execution_id = await failed(client, fan, output="${steps.fan.output}")
    await client.retry(execution_id, edit=("fan[1].two", {"times": 0}))
    found = await ended(client, execution_id)
    assert (found.state, flowkeep.from_value(found.result)) == (State.STATE_COMPLETED, [0, 1, 2])
    calls = [path for path, _ in stage.calls]
    assert calls == ["fan[0].one", "fan[0].two", "fan[1].one", "fan[1].two", "fan[1].two", "fan[2].one", "fan[2].two"]
    assert found.step_counts.completed == found.step_counts.total == 7


@pytest.mark.usefixtures("prompt")
async def test_what_was_cancelled_and_what_was_too_slow_go_on(client, stage):
    name = await made(client, step("a"), step("b", "gate"))
    cancelled = (await client.execute(name)).execution_id
    await stage.called("b")
    await client.cancel(cancelled)
    assert (await ended(client, cancelled)).state == State.STATE_CANCELLED
    slow = (await client.execute(name, timeout=0.3)).execution_id
    assert (await ended(client, slow)).state == State.STATE_TIMED_OUT
    stage.open("gate")
    for execution_id in (cancelled, slow):
        answer = await client.retry(execution_id, timeout="1h")
        assert answer.deadline_time.ToSeconds() - answer.start_time.ToSeconds() > 3_000
        assert (await ended(client, execution_id)).state == State.STATE_COMPLETED
    assert stage.attempts("a") == [1, 1]


async def test_what_does_not_fit_is_named_and_nothing_changes(client, served, stage):
    execution_id = await failed(
        client,
        step("a"),
        step("b", "fail", retryable=False),
        step("c"),
        {"id": "t", "handler": "transform", "params": {"value": 1}},
    )
    before = await client.get_execution(execution_id)

    async def refused(**fields):
        return await refusal(served.executions.Retry(pb.RetryRequest(execution_id=execution_id, **fields)))

    wrong = await refused(edit={"path": "b", "input": {"times": "many", "extra": 1}})
    assert sorted(violation.field for violation in wrong.violations) == ["edit.input.extra", "edit.input.times"]
    for change, state in (
        ({"edit": {"path": "a", "input": {}}}, "COMPLETED"),
        ({"skip": {"path": "c"}}, "PENDING"),
        ({"edit": {"path": "t", "input": {}}}, "PENDING"),
    ):
        error = await refused(**change)
        assert (error.reason, error.metadata["state"]) == ("STEP_NOT_RETRIED", state)
        assert "those that do: b" in str(error)
    absent = await refused(skip={"path": "absent"})
    assert absent.reason == "STEP_NOT_FOUND"
    assert await client.get_execution(execution_id) == before

    done = await client.execute(await made(client, step("a")), wait=True)
    with pytest.raises(flowkeep.FailedPreconditionError, match="only what has ended FAILED") as completed:
        await client.retry(done.execution_id)
    assert (completed.value.reason, completed.value.metadata["state"]) == ("EXECUTION_STATE", "COMPLETED")


async def test_a_request_retries_once(client, stage):
    execution_id = await failed(client, step("a", "fail", retryable=False))
    for _ in range(3):
        await client.retry(execution_id, request_id="once")
        assert (await ended(client, execution_id)).run == 2
    with pytest.raises(flowkeep.AlreadyExistsError):
        await client.retry(execution_id, "otherwise", request_id="once")
    assert stage.attempts("a") == [1, 1]


async def test_of_two_retries_at_once_one_wins(client, served, stage):
    name = await made(client, step("a", "fail", retryable=False), step("b", "gate"))
    begun = await client.batch_execute(execute_request(name) for _ in range(PAIRS))
    started = [each.execution.execution_id for each in begun]
    at_a_time = asyncio.Semaphore(20)

    async def attempt(execution_id):
        try:
            return await client.retry(execution_id, skip=("a", None))
        except flowkeep.FailedPreconditionError as error:
            return error

    async def pair(execution_id):
        async with at_a_time:
            assert (await ended(client, execution_id)).state == State.STATE_FAILED
            both = await asyncio.gather(attempt(execution_id), attempt(execution_id))
        won = [each for each in both if not isinstance(each, Exception)]
        lost = [each for each in both if isinstance(each, flowkeep.FlowkeepError)]
        assert len(won) == 1 and [each.reason for each in lost] == ["EXECUTION_STATE"]

    await asyncio.gather(*map(pair, started))
    stage.open("gate")
    for execution_id in started:
        events = await log(client, execution_id)
        assert kinds(events).count("reopened") == 1
        assert events[-1].finished.state == State.STATE_COMPLETED
