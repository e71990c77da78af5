"""The worker of the Python client: functions with types, on its loop or in threads, whatever becomes of the server."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

import flowkeep
from flowkeep.handlers import HandlerError, StepContext, handler
from flowkeep.v1 import worker_service_pb2 as pb
from flowkeep.worker import Worker
from flowkeep.worker.__main__ import loaded
from tests.clients.scripted import serving
from tests.folders import ROOT
from tests.integration.conftest import Serve
from tests.integration.stage import Served, Stage, ended, eventually, log, made, step
from tests.patience import PATIENCE


@dataclass
class Order:
    """What is ordered."""

    sku: str
    amount: int = 1


@handler("price")
async def price(order: Order, context: StepContext, rate: float = 1.0) -> dict[str, Any]:
    """Price an order."""
    context.report(50, "half")
    context.add_usage(input_tokens=3)
    return {"sku": order.sku, "total": order.amount * rate, "token": context.idempotency_token}


@handler("pack", effect="external")
def pack(sku: str, context: StepContext) -> str:
    """Pack in a thread."""
    return f"{sku} in {threading.current_thread().name.partition('_')[0]} as {context.step_path}"


@handler("refuse")
def refuse() -> None:
    """Fail under a code of its own."""
    raise HandlerError("SOLD_OUT", "none is left", {"left": 0}, retryable=False)


@handler("break")
async def break_() -> None:
    """Fail as no handler should."""
    raise LookupError("the secret text of the error")


@asynccontextmanager
async def running(target: str, *handlers: Any, **options: Any) -> AsyncIterator[Worker]:
    """A worker that has connected; stopped at the end."""
    worker = Worker(target, handlers=list(handlers), **options)
    task = asyncio.create_task(worker.run(signals=False))
    try:
        ready = asyncio.create_task(worker.connected.wait())
        await asyncio.wait((ready, task), timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        yield worker
    finally:
        worker.stop()
        await asyncio.wait_for(task, PATIENCE)


async def test_functions_take_typed_params_and_a_context(served: Served):
    async with running(served.target, price, pack):
        (listed,) = [each for each in await served.client.list_handlers() if each.name == "price"]
        assert flowkeep.from_struct(listed.params_schema)["required"] == ["order"]
        first = step("a", "price", order={"sku": "x1", "amount": 2}, rate=1.5)
        name = await made(served.client, first, step("b", "pack", sku="${ steps.a.output.sku }"))
        execution_id = (await served.client.execute(name)).execution_id
        events = await log(served.client, execution_id)
        done = await ended(served.client, execution_id)
    one, two = (flowkeep.from_value(each.output) for each in done.steps)
    assert (one["sku"], one["total"]) == ("x1", 3.0)
    assert one["token"]
    assert two == "x1 in flowkeep-handler as b"
    assert done.usage.input_tokens == 3
    assert "half" in [event.step_progressed.message for event in events]


async def test_errors_of_functions_are_failures_of_steps(served: Served):
    async with running(served.target, refuse, break_):
        steps = step("a", "refuse", on_error="CONTINUE"), step("b", "break", on_error="CONTINUE")
        done = await ended(served.client, (await served.client.execute(await made(served.client, *steps))).execution_id)
    first, second = (each.failure for each in done.steps)
    assert (first.code, first.message, flowkeep.from_struct(first.details)) == ("SOLD_OUT", "none is left", {"left": 0})
    assert (second.code, second.retryable) == ("HANDLER_ERROR", True)
    assert "secret text" not in second.message
    assert "secret text" in second.stack_trace


def gate_of(stage: Stage) -> Any:
    """The handler of the stage that waits for the test; the server of these tests has none of them."""
    return next(each for each in stage.handlers() if each.__name__ == "gate")


async def test_a_cancel_stops_functions_on_the_loop_and_in_threads(serve: Serve, stage: Stage):
    served = await serve([])
    begun, noticed = threading.Event(), threading.Event()

    @handler("in_thread")
    def in_thread(context: StepContext) -> None:
        begun.set()
        if context.stop.wait(PATIENCE) and context.cancelled:
            noticed.set()

    async with running(served.target, gate_of(stage), in_thread):
        name = await made(served.client, step("a", "gate"), step("b", "in_thread"), ordering="GRAPH")
        execution_id = (await served.client.execute(name)).execution_id
        await stage.called("a")
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        await served.client.cancel(execution_id)
        assert (await ended(served.client, execution_id)).state == flowkeep.Execution.STATE_CANCELLED
        assert stage.stopped == [("a", 1)]
        assert await asyncio.to_thread(noticed.wait, PATIENCE)


async def test_a_worker_that_stops_ends_what_it_runs_and_takes_nothing_more(serve: Serve, stage: Stage):
    served = await serve([])
    gate = gate_of(stage)
    worker = Worker(served.target, handlers=gate)
    serving = asyncio.create_task(worker.run(signals=False))
    await asyncio.wait_for(worker.connected.wait(), PATIENCE)
    execution_id = (await served.client.execute(await made(served.client, step("a", "gate")))).execution_id
    await stage.called("a")
    worker.stop()

    async def takes_nothing() -> bool:
        return not [each.worker_count for each in await served.client.list_handlers() if each.worker_count]

    await eventually(takes_nothing)
    assert not serving.done()
    stage.open("gate")
    await asyncio.wait_for(serving, PATIENCE)
    done = await served.client.get_execution(execution_id)
    assert done.steps[0].state == flowkeep.StepExecution.STATE_COMPLETED


async def test_what_does_not_end_in_time_is_given_back(serve: Serve, stage: Stage):
    served = await serve([])
    gate = gate_of(stage)
    async with running(served.target, gate, grace=0.01):
        execution_id = (await served.client.execute(await made(served.client, step("a", "gate")))).execution_id
        await stage.called("a")
    stage.open("gate")
    async with running(served.target, gate):
        done = await ended(served.client, execution_id)
    assert stage.attempts("a") == [1, 2]
    assert done.state == flowkeep.Execution.STATE_COMPLETED


async def test_a_function_that_does_not_stop_holds_up_no_end_of_its_process(served: Served, tmp_path: Path):
    """The attempt is given back after the grace, and must not run on beside the next one."""
    file = tmp_path / "stuck.py"
    text = "from flowkeep.handlers import handler\nimport time\n@handler('stuck')\ndef stuck(path: str):\n"
    file.write_text(f"{text}    open(path, 'w').close()\n    time.sleep(100_000)\n")
    begun = tmp_path / "begun"
    command = [sys.executable, "-m", "flowkeep.worker", str(file), "--server", served.target, "--grace", "0.01"]
    process = await asyncio.create_subprocess_exec(*command)
    try:
        name = f"stuck-{uuid4()}"
        document = {"name": name, "steps": [step("a", "stuck", path=str(begun))]}

        async def is_known() -> bool:
            return "stuck" in [each.name for each in await served.client.list_handlers() if each.worker_count]

        async def has_begun() -> bool:
            return begun.exists()

        await eventually(is_known)
        await served.client.apply(document)
        await served.client.execute(name)
        await eventually(has_begun)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_worker_that_has_ever_so_much_to_say_still_says_that_it_lives():
    """Only a heartbeat is answered, and without answers the worker would take its server for silent."""
    enough = asyncio.Event()

    @handler("talk")
    async def talk(context: StepContext) -> None:
        while not enough.is_set():
            for _ in range(100):
                context.emit("word")
            await asyncio.sleep(0)

    async with serving() as server:
        worker = Worker(server.target, handlers=talk)
        task = asyncio.create_task(worker.run(signals=False))
        stream, _ = await server.stream()
        attempt = pb.Attempt(execution_id=str(uuid4()), step_path="a", iteration=1, attempt=1)
        stream.tell(assignment=pb.Assignment(attempt=attempt, handler="talk"))
        await stream.hears("progress")
        await stream.hears("heartbeat")
        await stream.hears("heartbeat")
        enough.set()
        await stream.hears("completed")
        stream.tell(settled=pb.AttemptSettled(attempt=attempt, is_recorded=True))
        worker.stop()
        await asyncio.wait_for(task, PATIENCE)


async def test_what_gives_tokens_may_fail_for_a_while(serve: Serve):
    """The worker keeps what it runs; before it was ever connected, it is a mistake that is told."""
    first = await serve([])
    fails, failed = asyncio.Event(), asyncio.Event()

    def fresh() -> str:
        if fails.is_set():
            failed.set()
            raise OSError("the file with the token is away")
        return ""

    async with running(first.target, price, token=fresh) as worker:
        fails.set()
        await first.stop()
        second = await serve([], listen=first.target)
        await asyncio.wait_for(failed.wait(), PATIENCE)
        assert not worker.connected.is_set()
        fails.clear()
        await asyncio.wait_for(worker.connected.wait(), PATIENCE)
        assert "price" in [each.name for each in await second.client.list_handlers()]
    fails.set()
    with pytest.raises(OSError, match="is away"):
        await Worker(first.target, handlers=price, token=fresh).run(signals=False)


async def test_a_server_that_restarts_finds_its_workers_again(serve: Serve, stage: Stage):
    """What the worker ran for the one that stopped goes on; each step is called and recorded once."""
    first = await serve([])
    gate = gate_of(stage)
    async with running(first.target, gate):
        name = await made(first.client, step("a", "gate"), step("b", "gate"))
        execution_id = (await first.client.execute(name)).execution_id
        await stage.called("a")
        await first.stop()
        second = await serve([], listen=first.target)
        stage.open("gate")
        done = await ended(second.client, execution_id)
    assert done.state == flowkeep.Execution.STATE_COMPLETED
    assert stage.attempts("a") == [1]
    assert stage.attempts("b") == [1]


async def test_a_worker_that_is_refused_says_why(served: Served):
    @handler("call_api")
    async def mine() -> None: ...

    with pytest.raises(flowkeep.AlreadyExistsError, match="call_api"):
        await Worker(served.target, handlers=mine).run(signals=False)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"handlers": []}, "no function decorated"),
        ({"handlers": [len]}, "neither a module nor a function"),
        ({"handlers": price, "capacity": 0}, "capacity must be a whole number from 1 to 1,000"),
        ({"handlers": price, "target": "http://x"}, "is a URL"),
        ({"handlers": price, "version": 2}, "version must be a string of at most 64 characters"),
        ({"handlers": price, "version": "x" * 65}, "version must be a string of at most 64 characters"),
        ({"handlers": price, "labels": ["eu"]}, "labels must be a mapping"),
        ({"handlers": price, "labels": {"gpus": 2}}, "labels must map strings to strings, not 'gpus' to 2"),
        ({"handlers": price, "labels": {"": "x"}}, "a key of 1 to 64"),
        ({"handlers": price, "labels": {"a": "x" * 129}}, "a value of at most 128"),
        ({"handlers": price, "labels": {f"k{n}": "" for n in range(33)}}, "labels must be at most 32, not 33"),
    ],
)
def test_settings_that_are_wrong_are_refused_at_once(given: dict[str, Any], said: str):
    with pytest.raises((TypeError, ValueError), match=said):
        Worker(**given)


async def test_the_example_ships(served: Served):
    example = loaded(str(ROOT / "clients" / "examples" / "worker.py"))
    definition = yaml.safe_load((ROOT / "clients" / "examples" / "worker.yaml").read_text(encoding="utf-8"))
    async with running(served.target, example):
        await served.client.create_workflow(definition)
        assert await served.client.run("ship", {"item": "lamp", "amount": 2}) == {"parcel": "2 x lamp", "left": 1}
        with pytest.raises(flowkeep.ExecutionFailedError, match="SOLD_OUT"):
            await served.client.run("ship", {"item": "chair", "amount": 1})
