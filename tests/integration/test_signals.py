"""Signals over gRPC: the example, early and late ones, takeovers, what is refused, and one against its timeout.

Holds ST14 of the contract.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import yaml

import flowkeep
from flowkeep.payload import from_struct, from_value
from persistence import signals
from tests.folders import ROOT
from tests.integration.conftest import Serve
from tests.integration.stage import Stage, ended, log, made, step, wait_step
from tests.patience import PATIENCE

EXAMPLE = yaml.safe_load((ROOT / "clients" / "examples" / "order_paid.yaml").read_text())
PAIRS = 400
AT_A_TIME = 40


def listen(step_id: str = "wait", name: str = "go", **params: Any) -> dict[str, Any]:
    given = params if "signals" in params else {"name": name, **params}
    return {"id": step_id, "handler": "wait_signal", "params": given}


async def waiting(client: flowkeep.Client, execution_id: str) -> flowkeep.ExecutionEvent:
    """The event with which an execution begins to wait."""
    async with asyncio.timeout(PATIENCE):
        async for event in client.watch(execution_id):
            if event.WhichOneof("kind") == "step_waiting":
                return event
    raise AssertionError("it waits for nothing")


async def output(client: flowkeep.Client, execution_id: str) -> Any:
    return from_value((await ended(client, execution_id)).result)


@pytest.mark.parametrize(
    ("name", "payload", "outcome"),
    [
        ("paid", {"amount": 12}, "shipped"),
        ("paid", {"amount": 3}, "to be refunded"),
        ("cancelled", None, "cancelled"),
    ],
)
async def test_the_example_ships_what_was_paid(client: flowkeep.Client, name: str, payload: Any, outcome: str) -> None:
    await client.create_workflow(EXAMPLE)
    order = {"item": "book", "total": 12}
    execution_id = (await client.execute("order", order, correlation_id=f"A-{outcome}")).execution_id
    await client.execute("order", order, correlation_id="another")
    await waiting(client, execution_id)
    with pytest.raises(flowkeep.InvalidArgumentError) as refused:
        await client.signal("", "paid", {"amount": "12"}, workflow="order", correlation_id=f"A-{outcome}")
    assert [violation.field for violation in refused.value.violations] == ["payload.amount"]
    sent = await client.signal("", name, payload, workflow="order", correlation_id=f"A-{outcome}")
    assert sent.execution.execution_id == execution_id
    assert await output(client, execution_id) == {"outcome": outcome, "told_by": "developer"}


async def test_an_early_one_is_kept_over_a_restart_and_each_is_taken_once(serve: Serve) -> None:
    """From the first server, which hands over to the second; the last one comes when the step waits and is parked."""
    first = await serve(park_after=0)
    name = await made(first.client, wait_step("pause", 0.2), listen("a"), listen("b"), listen("c", timeout="1h"))
    execution_id = (await first.client.execute(name)).execution_id
    early = [(await first.client.signal(execution_id, "go", {"n": n}, request_id=f"{n}")).signal_id for n in (1, 2)]
    repeated = await first.client.signal(execution_id, "go", {"n": 2}, request_id="2")
    assert repeated.signal_id == early[1]
    second = await serve(park_after=0)
    await first.stop()
    events = await log_until(second.client, execution_id, "c")
    assert events[-1].step_waiting.wait.signal.names == ["go"]
    last = (await second.client.signal(execution_id, "go", {"n": 3})).signal_id
    execution = await ended(second.client, execution_id)
    assert [from_value(each.output)["payload"] for each in execution.steps[1:]] == [{"n": 1}, {"n": 2}, {"n": 3}]
    history = await log(second.client, execution_id)
    received = [event.signal_received for event in history if event.HasField("signal_received")]
    assert [(each.signal_id, each.sender) for each in received] == [(each, "developer") for each in (*early, last)]
    assert [from_struct(each.payload) for each in received] == [{"n": 1}, {"n": 2}, {"n": 3}]
    taken = {event.step_completed.path: list(event.step_completed.signal_ids) for event in history}
    assert {path: taken[path] for path in "abc"} == {"a": [early[0]], "b": [early[1]], "c": [last]}


async def log_until(client: flowkeep.Client, execution_id: str, path: str) -> list[flowkeep.ExecutionEvent]:
    """The events up to that with which a step begins to wait."""
    events = []
    async with asyncio.timeout(PATIENCE):
        async for event in client.watch(execution_id):
            events.append(event)
            if event.step_waiting.path == path:
                return events
    raise AssertionError(f"{path} waits for nothing")


async def test_one_that_comes_before_the_start_waits_for_the_step(client: flowkeep.Client) -> None:
    name = await made(client, listen(signals=[{"name": "a"}, {"name": "b"}]))
    execution_id = (await client.execute(name, start_delay="0.3s")).execution_id
    await client.signal(execution_id, "b", {"n": 2})
    await client.signal(execution_id, "a", {"n": 1})
    found = await output(client, execution_id)
    assert {key: each["payload"] for key, each in found["signals"].items()} == {"a": {"n": 1}, "b": {"n": 2}}


async def test_what_no_step_has_taken_is_there_after_a_retry(client: flowkeep.Client, stage: Stage) -> None:
    name = await made(client, step("first", "gate"), listen())
    execution_id = (await client.execute(name)).execution_id
    await stage.called("first")
    sent = await client.signal(execution_id, "go", {"n": 1})
    await client.cancel(execution_id)
    assert (await ended(client, execution_id)).state == flowkeep.Execution.STATE_CANCELLED
    stage.open("gate")
    await client.retry(execution_id)
    assert (await output(client, execution_id))["signal_id"] == sent.signal_id


async def test_what_came_early_and_does_not_fit_fails_the_step(client: flowkeep.Client, stage: Stage) -> None:
    name = await made(client, step("first", "gate"), listen(schema={"required": ["n"]}))
    execution_id = (await client.execute(name)).execution_id
    sent = await client.signal(execution_id, "go")
    stage.open("gate")
    failure = (await ended(client, execution_id)).steps[1].failure
    assert (failure.code, from_struct(failure.details)["signal_id"]) == ("SIGNAL_INVALID", sent.signal_id)
    assert "payload.n is required" in failure.message


async def test_what_cannot_be_kept_is_refused(client: flowkeep.Client) -> None:
    name = await made(client, wait_step())
    execution = await client.execute(name, correlation_id="A")
    await client.execute(name, correlation_id="A")
    with pytest.raises(flowkeep.FailedPreconditionError) as ambiguous:
        await client.signal("", "go", workflow=name, correlation_id="A")
    assert (ambiguous.value.reason, ambiguous.value.metadata["workflow"]) == ("CORRELATION_AMBIGUOUS", name)
    large = {"text": "x" * (signals.MOST_PAYLOAD_BYTES - 100)}
    for _ in range(signals.MOST_WAITING_BYTES // signals.MOST_PAYLOAD_BYTES):
        await client.signal(execution.execution_id, "go", large)
    with pytest.raises(flowkeep.ResourceExhaustedError) as full:
        await client.signal(execution.execution_id, "go", large)
    assert full.value.reason == "SIGNALS_FULL"
    await client.cancel(execution.execution_id)
    await ended(client, execution.execution_id)
    with pytest.raises(flowkeep.FailedPreconditionError) as finished:
        await client.signal(execution.execution_id, "go")
    assert finished.value.reason == "EXECUTION_FINISHED"


async def test_of_a_signal_and_the_timeout_one_wins_and_an_answer_means_the_signal(serve: Serve) -> None:
    """400 times, at about the moment at which the step gives up, through the server that does not drive it as well."""
    servers = [await serve(), await serve()]
    client = servers[0].client
    name = await made(client, listen(timeout=0.3, on_timeout="CONTINUE"))
    turn = asyncio.Semaphore(AT_A_TIME)

    async def race(number: int) -> None:
        async with turn:
            execution_id = (await client.execute(name)).execution_id
            await asyncio.sleep(0.3 * (number % 20) / 15)
            try:
                sent = await servers[number % 2].client.signal(execution_id, "go", {"n": number})
            except flowkeep.FailedPreconditionError as refused:
                assert refused.reason == "EXECUTION_FINISHED"
                sent = None
            found = await client.result(execution_id)
            assert found["timed_out"] == (sent is None), (number, found)
            if sent is not None:
                assert (found["signal_id"], found["payload"]) == (sent.signal_id, {"n": number})

    async with asyncio.TaskGroup() as group:
        for number in range(PAIRS):
            group.create_task(race(number))
