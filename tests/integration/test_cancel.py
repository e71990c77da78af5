"""Cancel from end to end: what becomes of each step.

Holds CA1 and, on one replica, CA3 and CA4 of the contract; test_replicas.py holds CA2.
"""

import asyncio
import random
from typing import Any

import grpc
import pytest

import flowkeep
from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_FULL
from tests.integration.stage import ended, kinds, log, made, refusal, step, wait_step

State = flowkeep.Execution
Step = flowkeep.StepExecution
Receipt = pb.CancelResponse.StepReceipt
ABSENT = "01930000-0000-7000-8000-000000000000"
NEVER = {"max_attempts": 2, "initial_interval": "1000s", "max_interval": "1000s"}


def effects(answer):
    return {receipt.path: Receipt.Effect.Name(receipt.effect).removeprefix("EFFECT_") for receipt in answer.steps}


@pytest.mark.usefixtures("prompt")
async def test_the_receipt_says_what_became_of_each_step(client, stage):
    name = await made(
        client,
        step("done"),
        step("failed", "fail", retryable=False, on_error="CONTINUE"),
        step("skipped", condition="false"),
        step("running", "gate"),
        wait_step("waiting"),
        step("retrying", "fail", retry_policy=NEVER),
        step("never", depends_on=["running"]),
        ordering="GRAPH",
    )
    execution = await client.execute(name)
    for path in ("done", "failed", "running", "retrying"):
        await stage.called(path)
    await until_waiting(client, execution.execution_id, "waiting", "retrying")
    answer = await client.cancel(execution.execution_id, "enough")

    assert effects(answer) == {
        "done": "ALREADY_ENDED",
        "failed": "ALREADY_ENDED",
        "skipped": "ALREADY_ENDED",
        "running": "STOPPED",
        "waiting": "WAIT_REMOVED",
        "retrying": "WAIT_REMOVED",
        "never": "NEVER_STARTED",
    }
    assert [receipt.path for receipt in answer.steps] == list(effects(answer))
    assert answer.execution.state == State.STATE_CANCELLED
    found = await client.get_execution(execution.execution_id)
    assert [receipt.state for receipt in answer.steps] == [each.state for each in found.steps]
    assert (found.failure.code, found.failure.message) == ("CANCELLED", "cancelled by developer: enough")
    assert stage.stopped == [("running", 1)]

    events = await log(client, execution.execution_id)
    cancelling = next(event.cancelling for event in events if event.HasField("cancelling"))
    assert (cancelling.cancelled_by, cancelling.reason) == ("developer", "enough")
    assert set(kinds(events)[-5:]) == {
        "cancelling",
        "step_cancelled running",
        "step_cancelled waiting",
        "step_cancelled retrying",
        "finished",
    }
    counts = found.step_counts
    assert (counts.completed, counts.failed, counts.skipped, counts.cancelled, counts.running) == (1, 1, 1, 4, 0)
    with pytest.raises(flowkeep.ExecutionFailedError, match="CANCELLED"):
        await client.result(execution.execution_id)


async def until_waiting(client, execution_id, *paths):
    """Return when these steps wait for a timer."""
    left = set(paths)
    async for event in client.watch(execution_id):
        left -= {getattr(event, kind).path for kind in ("step_waiting", "step_retrying") if event.HasField(kind)}
        if not left:
            return


@pytest.mark.usefixtures("prompt")
async def test_cancelling_twice_is_cancelling_once(client, stage):
    execution = await client.execute(await made(client, step("a", "gate")))
    await stage.called("a")
    answers = await asyncio.gather(*(client.cancel(execution.execution_id, f"reason {n}") for n in range(16)))
    late = await client.cancel(execution.execution_id, "another")

    assert late.execution.state == State.STATE_CANCELLED
    assert {answer.execution.state for answer in answers} <= {State.STATE_CANCELLED, State.STATE_CANCELLING}
    assert effects(late) == {"a": "STOPPED"}
    events = await log(client, execution.execution_id)
    assert kinds(events)[-3:] == ["cancelling", "step_cancelled a", "finished"]
    assert kinds(events).count("cancelling") == 1
    assert late.execution.failure.message.startswith("cancelled by developer: reason ")


async def test_what_ended_otherwise_cannot_be_cancelled(client):
    whole: Any = {"wait": True, "view": EXECUTION_VIEW_FULL}
    completed = await client.execute(await made(client, step("a")), **whole)
    failed = await client.execute(await made(client, step("a", "fail", retryable=False)), **whole)
    timed_out = await client.execute(await made(client, wait_step()), timeout=0.05, **whole)
    for execution, state in ((completed, "COMPLETED"), (failed, "FAILED"), (timed_out, "TIMED_OUT")):
        with pytest.raises(flowkeep.FailedPreconditionError) as error:
            await client.cancel(execution.execution_id)
        assert error.value.reason == "EXECUTION_FINISHED"
        assert error.value.metadata == {"execution_id": execution.execution_id, "state": state}
        assert await client.get_execution(execution.execution_id) == execution


async def test_what_does_not_exist_is_not_found(served):
    error = await refusal(
        served.executions.Cancel(pb.CancelRequest(execution_id="01930000-0000-7000-8000-000000000000"))
    )
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "EXECUTION_NOT_FOUND")


@pytest.mark.usefixtures("prompt")
async def test_an_execution_that_has_not_started_is_cancelled_at_once(serve, stage):
    served = await serve(max_running=1, park_after=0.0)
    client = served.client
    delayed = await client.execute(await made(client, step("a")), start_delay=1000)
    parked = await client.execute(await made(client, wait_step(), step("b")))
    await until_waiting(client, parked.execution_id, "pause")
    blocking = await client.execute(await made(client, step("c", "gate")))
    await stage.called("c")
    queued = await client.execute(await made(client, step("d")))

    answers = [await client.cancel(each.execution_id) for each in (delayed, parked, queued, blocking)]
    assert [answer.execution.state for answer in answers] == [State.STATE_CANCELLED] * 4
    assert [effects(answer) for answer in answers] == [
        {"a": "NEVER_STARTED"},
        {"pause": "WAIT_REMOVED", "b": "NEVER_STARTED"},
        {"d": "NEVER_STARTED"},
        {"c": "STOPPED"},
    ]
    for execution in (delayed, queued):
        assert kinds(await log(client, execution.execution_id)) == ["created", "cancelling", "finished"]
        assert not (await client.get_execution(execution.execution_id)).HasField("start_time")
    assert stage.calls == [("c", 1)]


@pytest.mark.parametrize("handler", ["stubborn", "thread"])
async def test_a_handler_that_does_not_stop_holds_up_nobody(client, stage, handler):
    execution = await client.execute(await made(client, step("a", handler), step("b")))
    await stage.called("a")
    await client.cancel(execution.execution_id)
    found = await ended(client, execution.execution_id)

    assert (found.state, found.steps[0].state) == (State.STATE_CANCELLED, Step.STATE_CANCELLED)
    # What it gives later is of no interest to anybody.
    events = await log(client, execution.execution_id)
    stage.open("a")
    stage.thread_released.set()
    await client.run(await made(client, step("c")))
    assert await log(client, execution.execution_id) == events
    assert await client.get_execution(execution.execution_id) == found
    assert stage.attempts("b") == []


async def test_an_attempt_is_stopping_until_it_answers(serve, stage):
    served = await serve(cancel_grace=30.0)
    execution = await served.client.execute(await made(served.client, step("a", "stubborn"), step("b")))
    await stage.called("a")
    answer = await served.client.cancel(execution.execution_id)
    again = await served.client.cancel(execution.execution_id)

    for each in (answer, again):
        assert each.execution.state == State.STATE_CANCELLING
        assert effects(each) == {"a": "STOPPING", "b": "NEVER_STARTED"}
        assert [receipt.state for receipt in each.steps] == [Step.STATE_RUNNING, Step.STATE_PENDING]
    stage.open("a")
    found = await ended(served.client, execution.execution_id)
    assert (found.state, found.steps[0].HasField("output")) == (State.STATE_CANCELLED, False)


@pytest.mark.usefixtures("prompt")
async def test_steps_side_by_side_are_all_stopped(client, stage):
    name = await made(client, *(step(f"s{n}", "gate") for n in range(20)), ordering="GRAPH")
    execution = await client.execute(name)
    for n in range(20):
        await stage.called(f"s{n}")
    answer = await client.cancel(execution.execution_id)
    assert set(effects(answer).values()) == {"STOPPED"}
    assert len(stage.stopped) == 20


async def test_a_caller_who_went_away_has_cancelled_all_the_same(served, stage):
    execution = await served.client.execute(await made(served.client, wait_step(), step("b")), start_delay=1000)
    for _ in range(30):
        call = served.executions.Cancel(pb.CancelRequest(execution_id=execution.execution_id))
        await asyncio.sleep(random.uniform(0, 0.01))
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    await served.client.cancel(execution.execution_id)
    found = await ended(served.client, execution.execution_id)
    assert found.state == State.STATE_CANCELLED
