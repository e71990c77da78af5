"""`flowkeep workers` against a real server."""

from __future__ import annotations

import asyncio

from flowkeep import Client
from flowkeep.handlers import handler
from flowkeep.worker import Worker
from tests.e2e.commands import at, execute, refused, shown
from tests.integration.stage import eventually
from tests.patience import PATIENCE

WORKING = """
name: working
steps: [{id: work, handler: work_on, params: {}}]
"""


async def test_who_is_connected_is_shown_with_what_it_runs(target: str) -> None:
    assert await shown(target, "workers") == "No worker is connected.\n"
    begun, may_end = asyncio.Event(), asyncio.Event()

    @handler("work_on")
    async def work_on() -> None:
        begun.set()
        await may_end.wait()

    labels = {"region": "eu"}
    worker = Worker(target, handlers=[work_on], name="the only one", capacity=2, version="2.1", labels=labels)
    running = asyncio.create_task(worker.run())
    async with Client(target) as client, asyncio.timeout(PATIENCE):

        async def is_connected() -> bool:
            return bool(await client.list_workers("work_on"))

        await eventually(is_connected)
        await shown(target, "apply", "-", given=WORKING)
        execution_id = (await execute(target, "working"))["execution_id"]
        await begun.wait()
    (found,) = (await at(target, "workers")).json["workers"]
    assert (found["name"], found["handlers"], found["running"]) == ("the only one", ["work_on"], 1)
    assert (found["version"], found["labels"]) == ("2.1", labels)
    text = await shown(target, "workers", "--handler", "work_on")
    assert "1 of 2" in text and execution_id in text
    assert await shown(target, "workers", "--handler", "other") == "No worker with the handler other is connected.\n"
    assert "handler" in await refused(target, "workers", "--handler", "x" * 129, code=2)
    may_end.set()
    worker.stop()
    await running
