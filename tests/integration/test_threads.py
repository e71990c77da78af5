"""Sync handlers: what waits for a thread says so, what outlives its attempt is named, and what was told to stop knows.

Their threads cannot be stopped, so nothing may say that they were.
"""

import asyncio
import threading
import time
from datetime import UTC, datetime

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import flowkeep
from flowkeep.handlers import StepContext, handler
from service import app
from service.engine.handlers import threads
from service.server import HANDLERS
from tests.integration.stage import ended, eventually, kinds, log, made, step
from tests.integration.test_cancel import effects
from tests.patience import PATIENCE

State, Step = flowkeep.Execution, flowkeep.StepExecution


@pytest.fixture
def soon(monkeypatch):
    """Nobody waits for seconds until something counts as late."""
    monkeypatch.setattr(threads, "MOMENT", 0.1)
    monkeypatch.setattr("service.engine.running.invocation.MOMENT", 0.1)
    monkeypatch.setattr(threads, "STUCK", 0.3)
    monkeypatch.setattr(threads, "LOOK", 0.1)
    monkeypatch.setattr(app, "READINESS_INTERVAL", 0.1)


async def health_of(served, name):
    stub = health_pb2_grpc.HealthStub(served.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


async def hold_all_threads(client, stage):
    """Take every thread, by attempts whose time is over."""
    name = await made(client, step("long", "thread", timeout=0.1))
    stuck = [await client.execute(name) for _ in range(threads.THREADS)]
    await stage.called("long", threads.THREADS)
    for execution in stuck:
        found = await ended(client, execution.execution_id)
        assert found.steps[0].failure.code == "STEP_TIMEOUT"
        assert "its thread was told to stop and still runs: it may still take effect" in found.steps[0].failure.message


async def waiting(client, execution_id):
    """Return when the step of an execution waits for a thread; and how its events say so."""
    async with asyncio.timeout(PATIENCE):
        async for event in client.watch(execution_id):
            if event.HasField("step_waiting"):
                return event.step_waiting


@pytest.mark.parametrize("delivery", ["AT_LEAST_ONCE", "AT_MOST_ONCE"])
async def test_a_step_waits_for_a_thread_that_is_held_beyond_its_attempt(said, soon, served, stage, delivery):
    client = served.client
    await hold_all_threads(client, stage)
    quick = await client.execute(await made(client, step("quick", "thread", timeout=2.0, delivery=delivery)))
    told = await waiting(client, quick.execution_id)
    assert told.path == "quick" and not told.wait.HasField("wake_time")
    assert told.wait.reason.startswith("waits for a free thread: other handlers hold all 32 of the server")
    found = (await client.get_execution(quick.execution_id)).steps[0]
    assert (found.state, found.attempt, found.wait) == (Step.STATE_WAITING, 0, told.wait)
    assert found.wait.slot.resource == "threads" and not found.HasField("failure")
    assert not found.HasField("start_time")

    async def are_all_stuck():
        return await health_of(served, HANDLERS) == "NOT_SERVING"

    await eventually(are_all_stuck)
    assert await health_of(served, "") == "SERVING"

    async def are_all_named():
        return len({entry["execution_id"] for entry in said("thread is stuck")}) == threads.THREADS

    await eventually(are_all_named)
    reports = said("thread is stuck")
    assert {(entry["step"], entry["handler"]) for entry in reports} == {("long", "thread")}
    assert all("thread_released.wait" in entry["stack"] and entry["late"] >= 0.3 for entry in reports)

    # Longer than the step may take: the wait is not its time.
    assert stage.attempts("quick") == []
    stage.thread_released.set()
    found = await ended(client, quick.execution_id)
    assert (found.state, stage.attempts("quick")) == (State.STATE_COMPLETED, [1])
    course = kinds(await log(client, quick.execution_id))
    assert course[2:5] == ["step_started quick", "step_waiting quick", "step_started quick"]

    async def are_free():
        return await health_of(served, HANDLERS) == "SERVING"

    await eventually(are_free)
    assert len(said("stuck thread ended")) == threads.THREADS


@pytest.mark.usefixtures("prompt")
async def test_what_waits_for_a_thread_is_cancelled_and_timed_out(soon, client, stage):
    await hold_all_threads(client, stage)
    name = await made(client, step("quick", "thread"))
    cancelled, late = await client.execute(name), await client.execute(name, timeout=0.5)
    await waiting(client, cancelled.execution_id)
    answer = await client.cancel(cancelled.execution_id)
    assert (answer.execution.state, effects(answer)) == (State.STATE_CANCELLED, {"quick": "WAIT_REMOVED"})
    assert (await ended(client, late.execution_id)).state == State.STATE_TIMED_OUT
    # They left the queue: the first thread is for who still wants it.
    stage.thread_released.set()
    await client.run(name)
    assert stage.attempts("quick") == [1]


async def test_what_waits_for_a_thread_goes_on_when_its_server_goes(soon, serve, stage):
    """And no other ends it for not knowing what it waits for."""
    first, second = await serve(), await serve()
    await hold_all_threads(first.client, stage)
    quick = await first.client.execute(await made(first.client, step("quick", "thread")))
    await waiting(first.client, quick.execution_id)
    await first.stop()
    stage.thread_released.set()
    assert (await ended(second.client, quick.execution_id)).state == State.STATE_COMPLETED


async def test_a_cancelled_thread_is_not_said_to_have_stopped(said, soon, serve, stage):
    served = await serve(cancel_grace=0.5)
    client = served.client
    execution = await client.execute(await made(client, step("a", "thread")))
    await stage.called("a")
    first = await client.cancel(execution.execution_id)
    found = await ended(client, execution.execution_id)
    again = await client.cancel(execution.execution_id)

    assert effects(first)["a"] in ("STOPPING", "UNKNOWN")
    assert effects(again) == {"a": "UNKNOWN"}
    assert (found.state, found.steps[0].state) == (State.STATE_CANCELLED, Step.STATE_CANCELLED)
    assert found.steps[0].failure.code == "OUTCOME_UNKNOWN"
    assert found.steps[0].failure.message == ("attempt 1 was told to stop and has not ended: it may still take effect")
    (told,) = [
        event.step_cancelled for event in await log(client, execution.execution_id) if event.HasField("step_cancelled")
    ]
    assert told.failure == found.steps[0].failure

    async def is_named():
        return bool(said("thread is stuck"))

    await eventually(is_named)


async def test_a_thread_that_completes_after_a_cancel_has_taken_effect(serve, stage):
    served = await serve(cancel_grace=30.0)
    execution = await served.client.execute(await made(served.client, step("a", "thread")))
    await stage.called("a")
    answer = await served.client.cancel(execution.execution_id)
    assert (answer.execution.state, effects(answer)) == (State.STATE_CANCELLING, {"a": "STOPPING"})
    stage.thread_released.set()
    found = await ended(served.client, execution.execution_id)
    assert (found.steps[0].failure.code, found.steps[0].HasField("output")) == ("RESULT_DISCARDED", False)
    assert effects(await served.client.cancel(execution.execution_id)) == {"a": "COMPLETED"}


class Asking:
    """A sync handler that does what it was told to."""

    def __init__(self):
        self.begun = threading.Event()
        self.seen = []

    def handlers(self):
        @handler("asks")
        def asks(context: StepContext) -> float:
            self.begun.set()
            self.seen.append((context.remaining, context.deadline - datetime.now(UTC)))
            give_up = time.monotonic() + PATIENCE
            while not context.cancelled and time.monotonic() < give_up:
                time.sleep(0.01)
            self.seen.append(context.cancelled)
            return context.remaining

        return [asks]


@pytest.mark.parametrize("how", ["cancel", "timeout", "stop"])
async def test_a_sync_handler_can_ask_whether_it_must_stop(serve, how):
    asking = Asking()
    served = await serve(asking.handlers(), cancel_grace=5.0)
    timeout = 0.5 if how == "timeout" else 60.0
    execution = await served.client.execute(await made(served.client, step("a", "asks", timeout=timeout)))
    assert await asyncio.to_thread(asking.begun.wait, PATIENCE)
    if how == "stop":
        await served.stop()
    else:
        if how == "cancel":
            await served.client.cancel(execution.execution_id)
        found = await ended(served.client, execution.execution_id)
        assert found.state == (State.STATE_CANCELLED if how == "cancel" else State.STATE_FAILED)
        if how == "timeout":
            assert found.steps[0].failure.code == "STEP_TIMEOUT"
        if how == "cancel":
            assert effects(await served.client.cancel(execution.execution_id)) == {"a": "STOPPED"}

    async def has_seen():
        return len(asking.seen) == 2

    await eventually(has_seen)
    (remaining, left), was_told = asking.seen
    assert was_told
    assert timeout - 5 < remaining <= timeout
    assert abs(left.total_seconds() - timeout) < 5


async def test_an_async_handler_that_swallows_its_timeout_is_not_waited_for(client, stage):
    execution = await client.execute(await made(client, step("a", "stubborn", timeout=0.1), step("b")))
    found = await ended(client, execution.execution_id)
    assert (found.state, found.steps[0].failure.code) == (State.STATE_FAILED, "STEP_TIMEOUT")
    assert "its handler was told to stop and still runs: it may still take effect" in found.steps[0].failure.message
    stage.open("a")
    assert await client.get_execution(execution.execution_id) == found


async def test_an_async_handler_that_swallows_its_timeout_is_named_and_keeps_its_place(said, soon, serve, stage):
    served = await serve(max_running=1)
    client = served.client
    stuck = await client.execute(await made(client, step("a", "stubborn", timeout=0.1)))
    found = await ended(client, stuck.execution_id)
    assert found.steps[0].failure.code == "STEP_TIMEOUT"

    async def is_named():
        return len(said("handler is stuck")) >= 2

    await eventually(is_named)
    report = said("handler is stuck")[0]
    assert (report["execution_id"], report["step"], report["handler"]) == (stuck.execution_id, "a", "stubborn")
    assert report["late"] >= 0.3
    assert "in stubborn" in report["stack"]
    other = await client.execute(await made(client, step("b")))
    await asyncio.sleep(0.3)  # nothing tells that it does not begin
    assert (await client.get_execution(other.execution_id)).state == State.STATE_PENDING
    stage.open("a")
    assert (await ended(client, other.execution_id)).state == State.STATE_COMPLETED
    assert len(said("stuck handler ended")) == 1


async def test_an_async_handler_that_swallows_a_cancel_is_not_said_to_have_stopped(client, stage):
    execution = await client.execute(await made(client, step("a", "stubborn")))
    await stage.called("a")
    await client.cancel(execution.execution_id)
    found = await ended(client, execution.execution_id)
    assert found.steps[0].failure.code == "OUTCOME_UNKNOWN"
    assert effects(await client.cancel(execution.execution_id)) == {"a": "UNKNOWN"}


async def test_health_does_not_know_what_it_was_not_told_of(served):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await health_of(served, "flowkeep.else")
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
