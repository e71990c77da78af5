"""How executions go: progress and counts, failures and attempts, waits, results, and what handlers may not break."""

import asyncio
import math
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

import flowkeep
from flowkeep.handlers import HandlerError, StepContext, Suspend, handler
from flowkeep.payload import from_struct
from service.engine.expressions.cost import PER_ALLOWANCE
from service.engine.planning import block_rules
from tests.integration.stage import ended, kinds, log, made, step, wait_step
from tests.patience import PATIENCE

State = flowkeep.Execution
Step = flowkeep.StepExecution


async def test_progress_and_counts_rise_to_the_end(client, stage):
    name = await made(client, step("a"), step("b", "gate"), step("c", condition="false"), step("d"))
    execution = await client.execute(name)
    await stage.called("b")
    half = await client.get_execution(execution.execution_id)
    stage.open("gate")
    events = await log(client, execution.execution_id)

    counts = half.step_counts
    assert (counts.total, counts.completed, counts.running, half.progress_percent) == (4, 1, 1, 25)
    assert [each.state for each in half.steps] == [
        Step.STATE_COMPLETED,
        Step.STATE_RUNNING,
        Step.STATE_PENDING,
        Step.STATE_PENDING,
    ]
    percents = [event.progress_percent for event in events]
    assert percents == sorted(percents)
    assert (percents[0], percents[-1], percents.count(100)) == (0, 100, 1)
    counts = events[-1].step_counts
    assert (counts.total, counts.completed, counts.skipped, counts.running) == (4, 3, 1, 0)
    assert "step_skipped c" in kinds(events)


async def test_a_step_is_shown_as_it_stands(client, stage):
    name = await made(
        client,
        step("a", by=2, display_name="First", assign={"v": "result + 1"}),
        step("b", "gate", name="${string(vars.v)}"),
        step("c"),
    )
    execution = await client.execute(name)
    await stage.called("b")
    a, b, c = (await client.get_execution(execution.execution_id)).steps

    assert (a.path, a.display_name, a.handler, a.attempt, a.max_attempts) == ("a", "First", "count", 1, 1)
    assert a.state == Step.STATE_COMPLETED
    assert (flowkeep.from_struct(a.input), flowkeep.from_value(a.output)) == ({"by": 2}, 2)
    assert flowkeep.from_struct(a.assigned) == {"v": 3}
    assert a.start_time.ToNanoseconds() <= a.end_time.ToNanoseconds()
    assert a.duration.ToNanoseconds() == a.end_time.ToNanoseconds() - a.start_time.ToNanoseconds()
    assert (b.state, b.attempt, flowkeep.from_struct(b.input)) == (Step.STATE_RUNNING, 1, {"name": "3"})
    assert (b.display_name, list(b.depends_on), b.HasField("end_time")) == ("b", ["a"], False)
    assert (c.state, c.attempt, c.HasField("start_time")) == (Step.STATE_PENDING, 0, False)


async def test_a_handler_reports_its_progress(client, stage):
    execution = await client.execute(await made(client, step("a", "progress", percents=[10, 55, 30])))
    seen = []
    async with asyncio.timeout(PATIENCE):
        async for event in client.watch(execution.execution_id):
            if event.HasField("step_progressed"):
                seen.append((event.step_progressed.progress_percent, event.step_progressed.message))
                stage.open("a")

    assert seen[0] == (10, "10 done")
    assert [percent for percent, _ in seen] == sorted(percent for percent, _ in seen)


async def test_steps_of_a_graph_run_side_by_side(client, stage):
    name = await made(
        client,
        step("a", "gate", name="a"),
        step("b", "gate", name="b"),
        step("c", depends_on=["a", "b"]),
        step("d", "transform", value="${steps.b.output.name}", depends_on=["b"]),
        ordering="GRAPH",
    )
    execution = await client.execute(name)
    await stage.called("a")
    await stage.called("b")
    stage.open("b")
    stage.open("a")
    result = await client.result(execution.execution_id)
    assert result.keys() == {"c", "d"}
    assert result["d"] == "b"


async def test_a_failed_step_fails_its_execution(client, stage):
    name = await made(client, step("a"), step("b", "fail", code="NO_STOCK", retryable=False), step("c"))
    execution = await client.execute(name)
    events = await log(client, execution.execution_id)
    found = await client.get_execution(execution.execution_id)

    assert (found.state, found.failure.code) == (State.STATE_FAILED, "STEP_FAILED")
    assert (found.failure.step_path, found.failure.step_iteration) == ("b", 1)
    assert (found.failure.message, found.failure.details["code"]) == ("attempt 1 broke", "NO_STOCK")
    assert [each.state for each in found.steps] == [Step.STATE_COMPLETED, Step.STATE_FAILED, Step.STATE_CANCELLED]
    failure = found.steps[1].failure
    assert (failure.code, failure.message, failure.retryable) == ("NO_STOCK", "attempt 1 broke", False)
    assert flowkeep.from_struct(failure.details) == {"n": 1}
    assert kinds(events)[-2:] == ["step_failed b", "finished"]
    assert events[-1].finished.failure == found.failure
    assert stage.attempts("c") == []
    with pytest.raises(flowkeep.ExecutionFailedError, match=r"FAILED: NO_STOCK in step b: attempt 1 broke"):
        await client.result(execution.execution_id)


async def test_attempts_are_repeated_and_recorded(client, stage):
    retry = {"max_attempts": 5, "initial_interval": "0.02s", "backoff_coefficient": 1, "jitter": 0}
    name = await made(client, step("a", "fail", times=2, retry_policy=retry))
    execution = await client.execute(name)
    events = await log(client, execution.execution_id)
    found = await client.get_execution(execution.execution_id)

    assert kinds(events)[2:8] == [
        "step_started a",
        "step_retrying a",
        "step_started a",
        "step_retrying a",
        "step_started a",
        "step_completed a",
    ]
    (shown,) = found.steps
    assert (found.state, shown.attempt, shown.max_attempts) == (State.STATE_COMPLETED, 3, 5)
    assert [(each.attempt, each.failure.message) for each in shown.failed_attempts] == [
        (1, "attempt 1 broke"),
        (2, "attempt 2 broke"),
    ]
    assert all(each.HasField("start_time") and each.HasField("end_time") for each in shown.failed_attempts)
    pause = events[3].step_retrying.retry_time.ToNanoseconds() - events[3].time.ToNanoseconds()
    assert pause == 20_000_000
    assert stage.attempts("a") == [1, 2, 3]
    assert len(stage.tokens["a"]) == 1  # ST5


async def test_attempts_end_with_the_policy(client, stage):
    retry = {"max_attempts": 3, "initial_interval": "0.01s"}
    once = {**retry, "non_retryable_codes": ["FATAL"]}
    name = await made(
        client,
        step("a", "fail", retry_policy=retry, on_error="CONTINUE"),
        step("b", "fail", code="FATAL", retry_policy=once, on_error="CONTINUE"),
        step("c", "transform", value=["${steps.a.error.code}", "${steps.b.state}"]),
    )
    assert await client.run(name) == ["BROKEN", "FAILED"]
    assert (stage.attempts("a"), stage.attempts("b")) == ([1, 2, 3], [1])


async def test_an_attempt_that_takes_too_long_fails(client, stage):
    name = await made(client, step("a", "gate", timeout="0.1s"))
    found = await ended(client, (await client.execute(name)).execution_id)
    assert (found.steps[0].failure.code, found.state) == ("STEP_TIMEOUT", State.STATE_FAILED)
    assert stage.stopped == [("a", 1)]


async def test_a_waiting_execution_is_parked_and_woken(serve):
    served = await serve(park_after=0.0)
    name = await made(served.client, step("a"), wait_step(seconds=0.3), step("b"))
    execution = await served.client.execute(name)
    events = await log(served.client, execution.execution_id)
    found = await served.client.get_execution(execution.execution_id)

    assert kinds(events)[4:6] == ["step_waiting pause", "step_completed pause"]
    wake = events[4].step_waiting.wait.wake_time
    late = found.steps[1].end_time.ToNanoseconds() - wake.ToNanoseconds()
    assert late >= 0  # ST8: never early
    assert found.state == State.STATE_COMPLETED


async def test_many_executions_wait_without_a_place(serve):
    served = await serve(park_after=0.0, max_running=2)
    name = await made(served.client, wait_step(seconds=0.4), step("b"))
    executions = [await served.client.execute(name) for _ in range(12)]
    found = await asyncio.gather(*(ended(served.client, each.execution_id) for each in executions))
    assert {each.state for each in found} == {State.STATE_COMPLETED}


def evil_handlers():
    """Handlers whose words can be neither kept nor sent."""

    @handler("named")
    async def named():
        raise HandlerError("C\0DE\ud800", "nul \0, half \udfff, " + "long" * 10_000, {"k": object(), "n": math.nan})

    @handler("unnamed")
    async def unnamed():
        raise RuntimeError("nul \0, half \ud800 and " + "é" * 5_000_000)

    @handler("numbered")
    async def numbered():
        raise HandlerError(404, 17, retry_after=math.nan)  # type: ignore[arg-type]

    @handler("reporting")
    async def reporting(context: StepContext):
        context.report(50.5, "nul \0 half \ud800")
        await asyncio.sleep(0)
        return "done"

    @handler("output")
    async def output():
        return {"x": ["\0", "\ud800", math.inf, 2**53]}

    @handler("deep")
    async def deep():
        value: list[object] = []
        for _ in range(100_000):
            value = [value]
        return value

    @handler("large")
    async def large():
        return "x" * 1_000_000

    @handler("busy")
    def busy():
        raise HandlerError("BUSY", "ask later", retry_after="2")  # type: ignore[arg-type]

    @handler("far")
    def far():
        return Suspend(datetime.max.replace(tzinfo=timezone(-timedelta(hours=5))))

    return [named, unnamed, numbered, reporting, output, deep, large, busy, far]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("named", "C\N{REPLACEMENT CHARACTER}DE?"),
        ("unnamed", "HANDLER_ERROR"),
        ("numbered", "404"),
        ("reporting", None),
        ("output", "INVALID_OUTPUT"),
        ("deep", "INVALID_OUTPUT"),
        ("large", "INVALID_OUTPUT"),
        ("busy", "BUSY"),
        ("far", "INVALID_OUTPUT"),
    ],
)
async def test_whatever_a_handler_says_its_step_ends_and_the_execution_goes_on(serve, name, code):
    served = await serve(evil_handlers())
    workflow = await made(
        served.client, {**step("a", name), "on_error": "CONTINUE"}, step("b", "transform", value="went on")
    )
    execution = await served.client.execute(workflow)
    events = await log(served.client, execution.execution_id)
    found = await served.client.get_execution(execution.execution_id)

    assert kinds(events)[-1] == "finished"
    assert (found.state, flowkeep.from_value(found.steps[1].output)) == (State.STATE_COMPLETED, "went on")
    if code is None:
        return
    assert found.steps[0].failure.code == code
    assert len(found.steps[0].failure.message) <= 2048
    recorded = next(event.step_failed.failure for event in events if event.HasField("step_failed"))
    assert recorded.message == found.steps[0].failure.message


async def test_st2_what_a_handler_changes_of_what_it_was_given_or_gave_changes_nothing_else(serve):
    kept: list[dict[str, Any]] = []

    @handler("spoil")
    async def spoil(params: dict[str, Any], context: StepContext):
        seen = context.variables
        params["list"].append("spoilt")
        seen["input"]["list"][0]["a"] = "spoilt"
        seen["vars"]["v"]["deep"].append("spoilt")
        seen["steps"].clear()
        for output in kept:
            output["own"].append("spoilt")
        kept.append({"own": ["kept"], "input": seen["input"]})
        return kept[-1]

    @handler("see")
    def see(context: StepContext, read: list[Any]):
        for output in kept:
            output["own"].append("spoilt")
        return {name: context.variables[name] for name in ("input", "vars", "steps")}

    reading = {"read": "${ [steps.one.output, steps.two.output, steps.three.output] }"}

    client = (await serve([spoil, see])).client
    params = {"list": "${ input.list }"}
    one = step("one", "transform", value=1, assign={"v": "{'deep': ['kept']}"})
    spoiling = [step(each, "spoil", **params) for each in ("two", "three")]
    name = await made(client, one, *spoiling, step("four", "see", **reading))
    found = await ended(client, (await client.execute(name, {"list": [{"a": 1}]})).execution_id)
    first, two, three, four = (flowkeep.from_value(each.output) for each in found.steps)
    assert two == three == {"own": ["kept"], "input": {"list": [{"a": "spoilt"}]}}
    assert four["input"] == {"list": [{"a": 1}]}
    assert four["vars"] == {"v": {"deep": ["kept"]}}
    assert {path: each["output"] for path, each in four["steps"].items()} == {"one": first, "two": two, "three": three}
    assert from_struct(found.input) == {"list": [{"a": 1}]}


async def test_a_long_list_is_collected_though_for_a_while_nothing_is_recorded_of_it(client, monkeypatch):
    monkeypatch.setattr(block_rules, "WORK_OF_OUTPUT", PER_ALLOWANCE)  # of one item in each application
    items = {"items": "[1, 2, 3, 4]", "steps": [step("a", "transform", expression="item")]}
    execution = await client.execute(await made(client, {"id": "each", "for_each": items}))
    found = await ended(client, execution.execution_id)
    assert (found.state, flowkeep.from_value(found.result)) == (State.STATE_COMPLETED, [1, 2, 3, 4])
