"""The workers in TypeScript and Go serve executions of a server."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

import flowkeep
from flowkeep.v1.worker_service_pb2 import ListWorkersRequest
from flowkeep.v1.worker_service_pb2_grpc import WorkerServiceStub
from tests.clients.program import LONGEST, WORKERS, pass_gate, worker_of
from tests.integration.callee import relayed
from tests.integration.raw_worker import working
from tests.integration.stage import Served, ended, eventually, kinds, log, made, step

pytestmark = [pytest.mark.timeout(600), pytest.mark.parametrize("language", WORKERS)]


async def registered(served: Served) -> Any:
    """Return the worker once the server knows it."""
    found: list[Any] = []

    async def is_there() -> bool:
        found[:] = (await WorkerServiceStub(served.channel).ListWorkers(ListWorkersRequest(handler="greet"))).workers
        return bool(found)

    await eventually(is_there)
    return found[0]


async def says(process: asyncio.subprocess.Process, wanted: str) -> None:
    """Return when a worker has said a line that begins so; others are passed over."""
    assert process.stdout is not None
    async with asyncio.timeout(LONGEST):
        while not (line := (await process.stdout.readline()).decode()).startswith(wanted):
            assert line, f"the worker has ended and did not say {wanted!r}"


async def test_it_runs_attempts_within_its_capacity(serve: Any, language: str) -> None:
    served = await serve([])
    async with worker_of(language, served.target):
        worker = await registered(served)
        assert (worker.name, worker.capacity) == (language, 2)
        assert list(worker.handlers) == ["bad", "break", "crowd", "greet", "hold", "refuse", f"stint_{language}"]
        crowd = [step(f"c{number}", "crowd") for number in range(20)]
        name = await made(served.client, *crowd, step("hello", "greet", name="you"), ordering="GRAPH")
        done = await ended(served.client, (await served.client.execute(name)).execution_id)
    assert done.state == flowkeep.Execution.STATE_COMPLETED
    *inside, hello = (flowkeep.from_value(each.output) for each in done.steps)
    assert len(inside) == 20 and set(inside) <= {1, 2}
    assert hello == {"text": "Hello you!", "attempt": 1}
    assert (done.usage.input_tokens, done.usage.output_tokens, done.usage.cost_micros) == (3, 2, 7)
    assert {each.attempt for each in done.steps} == {1}


async def test_steps_choose_it_by_version_and_labels(serve: Any, language: str) -> None:
    served = await serve([])
    async with worker_of(language, served.target), working(served.channel, "greet", version="2.0") as other:
        await eventually(lambda: _are_registered(served, 2))
        wishes = {"versions": ["1.4.*"], "labels": {"language": language}}
        name = await made(served.client, step("hello", "greet", name="you"), worker=wishes)
        done = await ended(served.client, (await served.client.execute(name)).execution_id)
        await other.nothing_but_heartbeats()
    assert flowkeep.from_value(done.steps[0].output) == {"text": "Hello you!", "attempt": 1}


async def _are_registered(served: Served, count: int) -> bool:
    return len(await served.client.list_workers("greet")) == count


async def test_what_handlers_throw_are_failures_of_steps(serve: Any, language: str) -> None:
    served = await serve([])
    async with worker_of(language, served.target):
        await registered(served)
        steps = step("a", "refuse", on_error="CONTINUE"), step("b", "break", on_error="CONTINUE")
        done = await ended(served.client, (await served.client.execute(await made(served.client, *steps))).execution_id)
    own, other = (each.failure for each in done.steps)
    assert (own.code, own.message, own.retryable) == ("TOO_LATE", "the shop is closed", False)
    assert flowkeep.from_struct(own.details) == {"opens": 9}
    assert (other.code, other.retryable) == ("HANDLER_ERROR", True)
    assert "secret text" not in other.message
    assert "secret text" in other.stack_trace


async def test_a_cancel_reaches_it(serve: Any, language: str, gate: Path) -> None:
    served = await serve([])
    async with worker_of(language, served.target) as process:
        await registered(served)
        name = await made(served.client, step("a", "hold", until=str(gate)))
        execution_id = (await served.client.execute(name)).execution_id
        await says(process, "holds 1")
        await served.client.cancel(execution_id)
        await says(process, "stopped")
        done = await ended(served.client, execution_id)
    assert done.state == flowkeep.Execution.STATE_CANCELLED


async def test_an_attempt_goes_on_when_its_connection_is_cut(serve: Any, language: str, gate: Path) -> None:
    served = await serve([])
    async with relayed(served.target) as relay, worker_of(language, relay.target) as process:
        await registered(served)
        name = await made(served.client, step("a", "hold", until=str(gate)))
        execution_id = (await served.client.execute(name)).execution_id
        await says(process, "holds 1")
        relay.cut()
        await says(process, "broke")
        pass_gate(gate)
        happened = kinds(await log(served.client, execution_id))
        done = await served.client.get_execution(execution_id)
    assert [(each.attempt, flowkeep.from_value(each.output)) for each in done.steps] == [(1, 1)]
    assert happened.count("step_completed a") == 1


async def test_what_does_not_end_in_time_is_given_back(serve: Any, language: str, gate: Path) -> None:
    served = await serve([])
    async with worker_of(language, served.target, FLOWKEEP_GRACE="10ms") as process:
        await registered(served)
        name = await made(served.client, step("a", "hold", until=str(gate)))
        execution_id = (await served.client.execute(name)).execution_id
        await says(process, "holds 1")
        process.send_signal(signal.SIGTERM)
        await says(process, "stopped")
        await says(process, "drained")
    async with worker_of(language, served.target) as process:
        await says(process, "holds 2")
        pass_gate(gate)
        done = await ended(served.client, execution_id)
    assert done.state == flowkeep.Execution.STATE_COMPLETED
    assert [each.failure.code for each in done.steps[0].failed_attempts] == ["WORKER_LOST"]


async def test_a_server_that_restarts_finds_it_again(serve: Any, language: str, gate: Path) -> None:
    """What it runs goes on meanwhile, and is recorded once, by the server that comes after the one that gave it."""
    first = await serve([])
    async with worker_of(language, first.target) as process:
        await registered(first)
        name = await made(first.client, step("a", "hold", until=str(gate)), step("b", "greet", name="you"))
        execution_id = (await first.client.execute(name)).execution_id
        await says(process, "holds 1")
        await first.stop()
        second = await serve([], listen=first.target)
        await registered(second)
        pass_gate(gate)
        happened = kinds(await log(second.client, execution_id))
        done = await second.client.get_execution(execution_id)
    assert done.state == flowkeep.Execution.STATE_COMPLETED
    assert [(each.attempt, flowkeep.from_value(each.output)) for each in done.steps] == [
        (1, 1),
        (1, {"text": "Hello you!", "attempt": 1}),
    ]
    assert [kind for kind in happened if kind.startswith("step_completed")] == ["step_completed a", "step_completed b"]
