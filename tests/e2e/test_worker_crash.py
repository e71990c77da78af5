"""Servers are killed while a worker of another process has attempts: they go on, and every step is recorded once.

Holds ST1, ST2, ST4, EX7 for workers.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from flowkeep import Client, from_value
from flowkeep.handlers import StepContext, handler
from flowkeep.v1.execution_pb2 import Execution
from flowkeep.worker import Worker
from tests.e2e.process import ServerProcess
from tests.patience import PATIENCE

ITEMS, CAPACITY = 40, 8
"""No more items are open at a time than the worker has room for: what stands in line when a server dies was given to
nobody, and is made again only when a worker would have come back with it."""

PATIENT = {"FLOWKEEP_WORKER_HEARTBEAT_TIMEOUT": str(10 * PATIENCE)}
"""However long a server takes to come back, the worker is not lost."""


@pytest.mark.parametrize("server", [PATIENT], indirect=True, ids=["patient"])
@pytest.mark.parametrize("with_postgres", [False, True], ids=["server", "server-and-postgres"])
async def test_a_server_is_killed_while_a_worker_works(server: ServerProcess, with_postgres: bool) -> None:
    begun = Counter[str]()
    held, half_way, free = set[str](), asyncio.Event(), asyncio.Event()

    @handler("slow")
    async def slow(context: StepContext) -> str:
        begun[context.step_path] += 1
        if begun.total() > ITEMS // 2:
            held.add(context.step_path)
            if len(held) == CAPACITY:
                half_way.set()  # nothing more is on its way to the worker
            await free.wait()  # those that run when the server is killed
        return context.idempotency_token

    worker = Worker(server.target, handlers=slow, capacity=CAPACITY)
    serving = asyncio.create_task(worker.run(signals=False))
    await asyncio.wait_for(worker.connected.wait(), PATIENCE)
    body = {"items": "input.list", "max_parallel": CAPACITY, "steps": [{"id": "work", "handler": "slow"}]}
    async with Client(server.target, timeout=PATIENCE) as client:
        await client.create_workflow({"name": "all", "steps": [{"id": "each", "for_each": body}]})
        execution_id = (await client.execute("all", {"list": list(range(ITEMS))})).execution_id
        await asyncio.wait_for(half_way.wait(), PATIENCE)
        await server.kill9(with_postgres=with_postgres)
        free.set()
        await server.restart()
        completed = Counter[str]()
        async with asyncio.timeout(PATIENCE):
            async for event in client.watch(execution_id):
                if event.HasField("step_completed"):
                    completed[event.step_completed.path] += 1
        execution = await client.get_execution(execution_id)
        tokens = {from_value(each.output) for each in execution.steps if each.path.endswith("work")}
    worker.stop()
    await asyncio.wait_for(serving, PATIENCE)
    assert execution.state == Execution.STATE_COMPLETED
    work = {f"each[{number}].work": 1 for number in range(ITEMS)}
    assert {path: count for path, count in completed.items() if path.endswith("work")} == work
    assert len(tokens) == ITEMS
    assert begun == work, "an attempt was made again that its worker never left"
    assert {each.attempt for each in execution.steps if each.path.endswith("work")} == {1}
