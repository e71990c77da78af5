"""An execution as it was after an event of its history."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import pytest

from flowkeep import FailedPreconditionError, NotFoundError, OutOfRangeError
from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_BASIC, EXECUTION_VIEW_FULL, Execution, ExecutionView
from persistence.gate import Gate
from persistence.postgres.executions import PostgresExecutions
from service.engine import history
from tests.integration.stage import Served, Stage, ended, made, refusal, step, wait_step

ABSENT = "01930000-0000-7000-8000-000000000000"


def told(execution: Execution) -> Execution:
    """An execution without what no event tells."""
    kept = Execution.FromString(execution.SerializeToString())
    kept.ClearField("written_bytes")
    for each in kept.steps:
        each.ClearField("duration")  # of one that runs it grows
        for failure in (each.failure, *(attempt.failure for attempt in each.failed_attempts)):
            failure.ClearField("stack_trace")
            failure.ClearField("stack_trace_withheld")
        if not each.failure.code:
            each.ClearField("failure")
    return kept


async def test_it_is_shown_as_it_was_shown_then(served: Served, stage: Stage) -> None:
    again = {"max_attempts": 3, "initial_interval": 0.01, "jitter": 0}
    large = "x" * 20_000
    name = await made(
        served.client,
        step("one", "transform", value={"n": 1, "large": large}, assign={"v": "result.n"}),
        step("two", "fail", times=1, retry_policy=again, assign={"w": "[result]"}),
        step("three", condition="false"),
        wait_step("four", 0.05),
        step("five", "gate"),
        step("six", "fail", on_error="CONTINUE"),
        output={"v": "${ vars.v }"},
    )
    started = await served.client.execute(name, {"a": [1]}, labels={"a": "b"})
    await stage.called("five")
    shown: list[Execution] = []
    while not shown or "five" not in {each.path for each in shown[-1].steps if each.state == each.STATE_RUNNING}:
        shown.append(await served.client.get_execution(started.execution_id))
    stage.open("gate")
    shown.append(await ended(served.client, started.execution_id))
    for then in shown:
        found = await served.client.get_execution(started.execution_id, at_seq=then.last_seq)
        assert told(found) == told(then)
    first = await served.client.get_execution(started.execution_id, at_seq=1)
    assert (first.state, first.last_seq, first.input) == (Execution.STATE_PENDING, 1, shown[0].input)
    assert not first.HasField("start_time") and not any(each.attempt for each in first.steps)


async def test_without_steps_it_is_as_small_as_it_is_now(served: Served) -> None:
    name = await made(served.client, step("a"), step("b"))
    now = await served.client.execute(name, wait=True)
    now = await served.client.get_execution(now.execution_id, EXECUTION_VIEW_BASIC)
    found = await served.client.get_execution(now.execution_id, EXECUTION_VIEW_BASIC, at_seq=now.last_seq)
    assert told(found) == told(now)
    before = await served.client.get_execution(now.execution_id, EXECUTION_VIEW_BASIC, at_seq=now.last_seq - 1)
    assert (before.state, before.step_counts.completed) == (Execution.STATE_RUNNING, 2)
    assert not before.HasField("end_time")


async def test_what_ran_then_had_taken_the_time_up_to_then(served: Served, stage: Stage) -> None:
    name = await made(served.client, step("a", "gate"))
    started = await served.client.execute(name)
    await stage.called("a")
    stage.open("gate")
    await ended(served.client, started.execution_id)
    events = [event async for event in served.client.watch(started.execution_id)]
    begun = next(event for event in events if event.HasField("step_started"))
    (then,) = (await served.client.get_execution(started.execution_id, at_seq=begun.seq)).steps
    assert (then.state, then.start_time) == (then.STATE_RUNNING, begun.time)
    assert then.HasField("duration") and not then.duration.ToNanoseconds()


async def test_what_is_not_there_is_said(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    name = await made(served.client, step("a"))
    done = await served.client.execute(name, wait=True)
    last = (await served.client.get_execution(done.execution_id, EXECUTION_VIEW_BASIC)).last_seq
    with pytest.raises(OutOfRangeError) as ahead:
        await served.client.get_execution(done.execution_id, at_seq=last + 1)
    assert ahead.value.reason == "CURSOR_AHEAD"
    with pytest.raises(NotFoundError):
        await served.client.get_execution(ABSENT, at_seq=1)

    async def reason(seq: int, view: ExecutionView.ValueType = EXECUTION_VIEW_FULL) -> str:
        request = pb.GetExecutionRequest(execution_id=done.execution_id, at_seq=seq, view=view)
        return (await refusal(served.executions.GetExecution(request))).reason

    assert await reason(-1) == "INVALID_FIELDS"
    monkeypatch.setattr(history, "MOST_HISTORY", 100)
    for view in EXECUTION_VIEW_FULL, EXECUTION_VIEW_BASIC:
        assert await reason(last, view) == "HISTORY_TOO_LARGE"


@pytest.mark.parametrize("view", [EXECUTION_VIEW_FULL, EXECUTION_VIEW_BASIC])
async def test_only_a_long_history_waits_for_a_place(
    served: Served, monkeypatch: pytest.MonkeyPatch, view: ExecutionView.ValueType
) -> None:
    asked: list[str] = []
    place = Gate.place

    def asking(gate: Gate, org: str) -> AbstractAsyncContextManager[None]:
        asked.append(org)
        return place(gate, org)

    steps = (step(f"s{n}", "transform", value="${ input.text }") for n in range(4))
    done = await served.client.execute(await made(served.client, *steps), {"text": "x" * 100_000}, wait=True)
    last = (await served.client.get_execution(done.execution_id, EXECUTION_VIEW_BASIC)).last_seq
    monkeypatch.setattr(Gate, "place", asking)
    await served.client.get_execution(done.execution_id, view, at_seq=4)
    assert not asked
    then = await served.client.get_execution(done.execution_id, view, at_seq=last)
    assert (len(asked), then.last_seq, then.state) == (1, last, Execution.STATE_COMPLETED)


async def test_values_count_where_they_are_shown(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    name = await made(served.client, step("a", "transform", value="${ input.l }"), step("b", "transform", value=1))
    done = await served.client.execute(name, {"l": [True] * 5_000}, wait=True)
    last = (await served.client.get_execution(done.execution_id, EXECUTION_VIEW_BASIC)).last_seq
    monkeypatch.setattr(history, "MOST_HISTORY", 100_000)
    await served.client.get_execution(done.execution_id, EXECUTION_VIEW_BASIC, at_seq=last)
    with pytest.raises(FailedPreconditionError) as refused:
        await served.client.get_execution(done.execution_id, at_seq=last)
    assert refused.value.reason == "HISTORY_TOO_LARGE"


async def test_without_steps_no_record_of_a_step_is_read(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    name = await made(served.client, step("a"))
    done = await served.client.execute(name, wait=True)
    monkeypatch.setattr(PostgresExecutions, "get_detail", None)
    found = await served.client.get_execution(done.execution_id, EXECUTION_VIEW_BASIC, at_seq=2)
    assert found.last_seq == 2
