"""A stream of Execute calls while the server is killed: what was acknowledged is kept, once, and comes to its end.

Holds EX1, EX2, EX4, EX7.
"""

from __future__ import annotations

import asyncio
import random
from uuid import uuid4

import asyncpg
import pytest

from flowkeep import Client, execute_request
from tests.e2e.history import check_history, fresh_watch
from tests.e2e.process import ServerProcess
from tests.patience import PATIENCE

WORKFLOW = {
    "name": "count",
    "steps": [
        {"id": "add", "handler": "transform", "params": {"expression": "input.number + 1"}},
        {"id": "keep", "handler": "transform", "params": {"value": "${ steps.add.output }"}},
    ],
}
CALLERS = 8
KILLS = 3


class Stream:
    """Callers that execute one workflow after the other, and what they were told."""

    def __init__(self, client: Client) -> None:
        self.acknowledged: dict[str, str] = {}
        self._client = client
        self._is_over = False
        self._more = asyncio.Condition()
        self._callers = [asyncio.create_task(self._call(caller)) for caller in range(CALLERS)]

    async def until(self, count: int) -> None:
        """Return when `count` executions were acknowledged."""
        async with asyncio.timeout(PATIENCE), self._more:
            await self._more.wait_for(lambda: len(self.acknowledged) >= count)

    async def end(self) -> None:
        """Return when every caller has had the answer to its last call."""
        self._is_over = True
        await asyncio.gather(*self._callers)

    async def _call(self, caller: int) -> None:
        while not self._is_over:
            # The client sends it again, under the same id, for as long as the server is away.
            request = execute_request("count", {"number": caller}, request_id=str(uuid4()))
            response = await self._client.start(request)
            async with self._more:
                self.acknowledged[request.request_id] = response.execution.execution_id
                self._more.notify_all()


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_acknowledged_execution_is_lost(server: ServerProcess, client: Client, seed: int) -> None:
    draw = random.Random(f"acknowledged {seed}")
    await client.create_workflow(WORKFLOW)
    stream = Stream(client)
    for _ in range(KILLS):
        await stream.until(len(stream.acknowledged) + draw.randint(20, 200))
        await server.kill9(with_postgres=draw.random() < 0.5)
        await server.restart()
    await stream.until(len(stream.acknowledged) + 1)
    await stream.end()

    for execution_id in stream.acknowledged.values():
        assert await client.result(execution_id) in range(1, CALLERS + 1)
    connection = await asyncpg.connect(server.dsn)
    rows = await connection.fetch("SELECT request_id, id, state FROM executions")
    await connection.close()
    assert {row["state"] for row in rows} == {"COMPLETED"}
    kept = {row["request_id"]: str(row["id"]) for row in rows}
    assert len(kept) == len(rows), "a request id started two executions"
    assert stream.acknowledged.items() <= kept.items()
    for execution_id in draw.sample(sorted(stream.acknowledged.values()), 20):
        check_history(await fresh_watch(client, execution_id))
