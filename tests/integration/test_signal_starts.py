"""SignalWithStart over gRPC: at once from everywhere, repeated, refused, and beside executions that Execute starts.

Holds ST15 of the contract.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

import flowkeep
from flowkeep.payload import from_struct, from_value
from flowkeep.requests import signal_with_start_request
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_FULL, Execution
from tests.integration.conftest import Serve
from tests.integration.credentials import ALL, AUDIENCE, ISSUER, PUBLIC_PEM, bearer, token
from tests.integration.stage import ended, log, made, wait_step
from tests.integration.test_signals import listen

PAIRS, AT_A_TIME = 400, 40
KEYS = 100


async def test_of_many_at_once_one_starts_and_every_signal_is_taken_once(serve: Serve) -> None:
    """400 pairs through two servers: a pair is two calls at once, and four pairs have each correlation id."""
    servers = [await serve(), await serve()]
    name = await made(servers[0].client, *(listen(f"s{n}") for n in range(2 * PAIRS // KEYS)))
    turn, answers = asyncio.Semaphore(AT_A_TIME), defaultdict[str, list[Any]](list)

    async def send(key: str, number: int, client: flowkeep.Client) -> None:
        answers[key].append(await client.signal_with_start(name, key, "go", {"n": number}, input={"first": number}))

    async def pair(number: int) -> None:
        async with turn:
            key = f"{number % KEYS}"
            await asyncio.gather(*(send(key, 2 * number + at, server.client) for at, server in enumerate(servers)))

    async with asyncio.TaskGroup() as group:
        for number in range(PAIRS):
            group.create_task(pair(number))
    client = servers[0].client
    assert len([each async for each in client.list_executions(workflow=name)]) == KEYS
    for key, sent in answers.items():
        assert len({each.execution.execution_id for each in sent}) == 1, key
        assert Counter(each.started for each in sent) == {True: 1, False: 7}, key
        execution = await ended(client, sent[0].execution.execution_id)
        taken = [from_value(step.output) for step in execution.steps]
        assert sorted(each["signal_id"] for each in taken) == sorted(each.signal_id for each in sent)
        assert sorted(each["payload"]["n"] for each in taken) == [
            n for n in range(2 * PAIRS) if n // 2 % KEYS == int(key)
        ]


async def test_it_starts_the_execution_as_asked_with_the_signal_before_its_first_step(client: flowkeep.Client) -> None:
    name = await made(client, listen("wait", schema={"required": ["n"]}), listen("more"))
    sent = await client.signal_with_start(
        name, "A-17", "go", {"n": 1}, input={"item": "book"}, tags=["a"], labels={"b": "c"}, priority=7, timeout="1h"
    )
    execution = await client.get_execution(sent.execution.execution_id)
    assert (sent.started, execution.correlation_id, list(execution.tags), dict(execution.labels)) == (
        *(True, "A-17"),
        *(["a"], {"b": "c"}),
    )
    assert (execution.priority, execution.timeout.seconds, from_struct(execution.input)) == (7, 3600, {"item": "book"})
    kinds = [event.WhichOneof("kind") for event in await log_now(client, execution)]
    assert kinds[:4] == ["created", "signal_received", "started", "step_completed"]
    assert from_value(execution.steps[0].output)["signal_id"] == sent.signal_id
    with pytest.raises(flowkeep.InvalidArgumentError) as refused:  # as of any signal for a step that waits
        other = await made(client, listen(schema={"required": ["n"]}))
        await client.execute(other, correlation_id="B")
        await client.signal_with_start(other, "B", "go")
    assert [each.field for each in refused.value.violations] == ["payload.n"]


async def log_now(client: flowkeep.Client, execution: Execution) -> list[flowkeep.ExecutionEvent]:
    """The events of an execution up to the last that it shows."""
    events = []
    async for event in client.watch(execution.execution_id):
        events.append(event)
        if event.seq == execution.last_seq:
            break
    return events


async def test_repeated_it_tells_the_first_execution_and_does_nothing(client: flowkeep.Client) -> None:
    name = await made(client, listen("one"))
    first = await client.signal_with_start(name, "A", "go", {"n": 1}, request_id="r1")
    execution = await ended(client, first.execution.execution_id)
    again = await client.signal_with_start(name, "A", "go", {"n": 1}, request_id="r1")
    assert (again.started, again.signal_id) == (False, first.signal_id)
    assert (again.execution.execution_id, again.execution.state) == (execution.execution_id, Execution.STATE_COMPLETED)
    waiting = await made(client, wait_step())
    execution_id = (await client.execute(waiting, correlation_id="A")).execution_id
    sent, repeated = [await client.signal_with_start(waiting, "A", "go", request_id="r2") for _ in range(2)]
    assert repeated.signal_id == sent.signal_id
    assert {(each.execution.execution_id, each.started) for each in (sent, repeated)} == {(execution_id, False)}
    await client.cancel(execution_id)
    heard = [event for event in await log(client, execution_id) if event.HasField("signal_received")]
    assert [event.signal_received.signal_id for event in heard] == [sent.signal_id]
    for other in (
        {"name": "other"},
        {"payload": {"n": 2}},
        {"input": {"a": 1}},
        {"correlation_id": "B"},
        {"tags": ["t"]},
    ):
        asked: dict[str, Any] = {"correlation_id": "A", "name": "go", "payload": {"n": 1}, "request_id": "r1", **other}
        with pytest.raises(flowkeep.AlreadyExistsError):
            await client.signal_with_start(name, **asked)
    with pytest.raises(flowkeep.AlreadyExistsError):
        await client.execute(name, request_id="r1", correlation_id="A")


async def test_after_an_end_it_starts_another_one(client: flowkeep.Client) -> None:
    name = await made(client, listen())
    sent = [await client.signal_with_start(name, "A", "go", {"n": n}) for n in range(3)]
    assert [each.started for each in sent] == [True] * 3
    for each in sent:
        assert from_value((await ended(client, each.execution.execution_id)).result)["signal_id"] == each.signal_id


async def test_one_that_starts_later_keeps_the_signal_until_then(client: flowkeep.Client) -> None:
    name = await made(client, listen(signals=[{"name": "a"}, {"name": "b"}]))
    first = await client.signal_with_start(name, "A", "a", start_delay="0.3s")
    second = await client.signal_with_start(name, "A", "b", start_delay="1h")
    assert (first.started, second.started) == (True, False)
    assert first.execution.state == Execution.STATE_PENDING
    found = from_value((await ended(client, first.execution.execution_id)).result)
    assert {key: each["signal_id"] for key, each in found["signals"].items()} == {
        "a": first.signal_id,
        "b": second.signal_id,
    }


async def test_what_is_wrong_is_told_by_its_field_and_starts_nothing(client: flowkeep.Client) -> None:
    name = await made(client, wait_step(), input_schema={"required": ["item"]})
    send = client._executions.SignalWithStart
    for change, field in (
        ({"correlation_id": ""}, "start.correlation_id"),
        ({"workflow": ""}, "start.workflow"),
        ({"wait": True}, "start.wait"),
        ({"view": EXECUTION_VIEW_FULL}, "start.view"),
        ({"request_id": "r"}, "start.request_id"),
        ({"priority": 101}, "start.priority"),
        ({}, "start.input.item"),
    ):
        request = signal_with_start_request(name, "A", "go")
        for key, value in change.items():
            setattr(request.start, key, value)
        with pytest.raises(flowkeep.InvalidArgumentError) as refused:
            await client._call(send, request)
        assert [each.field for each in refused.value.violations] == [field]
    with pytest.raises(flowkeep.InvalidArgumentError) as large:
        await client.signal_with_start(name, "A", "go", {"x": "a" * (64 << 10)}, input={"item": "book"})
    assert [each.field for each in large.value.violations] == ["payload"]
    with pytest.raises(flowkeep.InvalidArgumentError) as point:
        await client.signal_with_start(name, "A", "go", input={"item": "book"}, breakpoints=["absent"])
    assert [each.field for each in point.value.violations] == ["start.breakpoints[0].path"]
    with pytest.raises(flowkeep.NotFoundError) as absent:
        await client.signal_with_start("absent", "A", "go")
    assert absent.value.reason == "WORKFLOW_NOT_FOUND"
    assert [each async for each in client.list_executions()] == []


async def test_it_never_guesses_and_waits_for_what_is_being_cancelled(client: flowkeep.Client) -> None:
    name = await made(client, wait_step())
    ids = [(await client.execute(name, correlation_id="A")).execution_id for _ in range(2)]
    with pytest.raises(flowkeep.FailedPreconditionError) as ambiguous:
        await client.signal_with_start(name, "A", "go")
    assert ambiguous.value.reason == "CORRELATION_AMBIGUOUS"
    await client.terminate(ids[0])
    assert (await client.signal_with_start(name, "A", "go")).execution.execution_id == ids[1]
    await client.cancel(ids[1])
    await ended(client, ids[1])
    assert (await client.signal_with_start(name, "A", "go")).started


async def test_it_takes_both_permissions_and_sees_no_execution_of_others(serve: Serve, tmp_path: Path) -> None:
    key_file = tmp_path / "key.pem"
    key_file.write_bytes(PUBLIC_PEM)
    guarded = await serve(jwt_key_file=key_file, jwt_issuer=ISSUER, jwt_audience=AUDIENCE)
    async with guarded.client_with(token()) as client:
        name = await made(client, wait_step())
        mine = await client.signal_with_start(name, "A", "go")
    async with guarded.client_with(token(sub="bob")) as client:
        theirs = await client.signal_with_start(name, "A", "go")
        assert theirs.started
        assert theirs.execution.execution_id != mine.execution.execution_id
    for missing in ("executions.execute", "executions.signal"):
        request = signal_with_start_request(name, "A", "go")
        metadata = bearer(token(permissions=[each for each in ALL if each != missing]))
        with pytest.raises(Exception, match=missing):
            await guarded.executions.SignalWithStart(request, metadata=metadata)
