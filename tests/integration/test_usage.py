"""What handlers report to have used is told by the events that end attempts, and summed up for steps and executions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flowkeep.handlers import HandlerError, StepContext, handler
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_BASIC, EXECUTION_VIEW_FULL, Execution, Usage
from tests.integration.conftest import Serve
from tests.integration.stage import Stage, log, made, step

FIRST = Usage(input_tokens=110, output_tokens=5, cost_micros=1)
SECOND = Usage(input_tokens=210, output_tokens=5, cost_micros=1)
BOTH = Usage(input_tokens=320, output_tokens=10, cost_micros=2)


@handler("think")
async def think(context: StepContext) -> str:
    """Use something twice in each attempt, and fail in the first."""
    context.add_usage(input_tokens=100 * context.attempt)
    context.add_usage(input_tokens=10, output_tokens=5, cost_micros=1)
    if context.attempt == 1:
        raise HandlerError("AGAIN", "not yet")
    return "thought"


def told(events: Any) -> list[tuple[str, Usage]]:
    """What of an execution's history tells of usage."""
    bodies = [(kind, getattr(event, kind)) for event in events if (kind := event.WhichOneof("kind"))]
    return [(kind, body.usage) for kind, body in bodies if any(each.name == "usage" for each, _ in body.ListFields())]


async def test_what_both_attempts_of_a_step_used_counts(serve: Serve, stage: Stage) -> None:
    client = (await serve([*stage.handlers(), think])).client
    retry = {"max_attempts": 2, "initial_interval": "0.01s"}
    name = await made(client, step("a", "think", retry_policy=retry), step("b"), step("c", "think", retry_policy=retry))
    done = await client.execute(name, wait=True)
    whole = Usage(input_tokens=640, output_tokens=20, cost_micros=4)
    assert (done.state, done.usage) == (Execution.STATE_COMPLETED, whole)
    events = await log(client, done.execution_id)
    assert told(events) == [("step_retrying", FIRST), ("step_completed", SECOND)] * 2
    found = await client.get_execution(done.execution_id)
    assert found.usage == whole
    assert [each.usage for each in found.steps] == [BOTH, Usage(), BOTH]
    assert not found.steps[1].HasField("usage")
    [between] = [event.seq for event in events if event.step_retrying.path == "c"]
    for view in EXECUTION_VIEW_FULL, EXECUTION_VIEW_BASIC:
        then = await client.get_execution(done.execution_id, view, at_seq=between)
        assert then.usage == Usage(input_tokens=430, output_tokens=15, cost_micros=3)
    assert (await client.get_step(done.execution_id, "a")).step.usage == BOTH
    assert [each.usage async for each in client.list_steps(done.execution_id)] == [BOTH, Usage(), BOTH]


@pytest.mark.parametrize(("end", "kind"), [("cancel", "step_cancelled"), ("timeout", "step_failed")])
async def test_what_an_attempt_used_counts_however_it_ends(serve: Serve, stage: Stage, end: str, kind: str) -> None:
    @handler("use")
    async def use(context: StepContext) -> None:
        context.add_usage(output_tokens=5)
        await stage._enter(context)
        await asyncio.Event().wait()

    client = (await serve([use])).client
    fields = {"timeout": "0.1s"} if end == "timeout" else {}
    started = await client.execute(await made(client, step("a", "use", **fields)))
    await stage.called("a")
    if end == "cancel":
        await client.cancel(started.execution_id)
    used = Usage(output_tokens=5)
    assert told(await log(client, started.execution_id)) == [(kind, used)]
    found = await client.get_execution(started.execution_id)
    assert (found.usage, found.steps[0].usage) == (used, used)
