"""An operation in bulk whose process is killed is carried on by the other replica: each execution is asked once.

Holds CA8.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest
import yaml

from flowkeep import Client
from flowkeep.requests import execute_request
from flowkeep.v1.bulk_pb2 import Bulk, BulkResult
from flowkeep.v1.execution_service_pb2 import ExecuteResponse
from persistence.embedded import EmbeddedPostgres
from tests.e2e.commands import SLEEP
from tests.e2e.history import fresh_watch
from tests.e2e.process import ServerProcess, copy_data
from tests.e2e.test_crash_control import BROKEN, kinds, until
from tests.patience import PATIENCE

MANY = 40
RATE = 20
"""Executions a second: the operation is still under way when its process dies."""

SETTINGS = {"FLOWKEEP_LEASE_TTL": "1.0", "FLOWKEEP_PARK_AFTER": "0.5"}
_CARRIER = """
SELECT r.name FROM bulks b JOIN replicas r ON r.incarnation = b.incarnation WHERE b.id = $1::text::uuid AND b.done > 0
"""


@pytest.mark.parametrize(("action", "event"), [("cancel", "cancelling"), ("retry", "reopened")])
async def test_the_other_replica_goes_on_with_it(prepared: Path, folder: Path, action: str, event: str) -> None:
    await copy_data(prepared, folder / "data")
    (folder / "beside").mkdir()
    with EmbeddedPostgres(folder / "data") as postgres:
        settings = {**SETTINGS, "FLOWKEEP_DATABASE_URL": postgres.dsn()}
        servers = [ServerProcess(path, settings=settings) for path in (folder, folder / "beside")]
        async with AsyncExitStack() as stack:
            for server in servers:
                server.is_healthy = False  # what one leaves behind, the other has to find
                stack.push_async_callback(server.close)
                await server.start()
            clients = [await stack.enter_async_context(Client(server.target, timeout=PATIENCE)) for server in servers]
            ids, bulk = await begun(clients[0], action)
            killed = await carrier(postgres.dsn(), bulk.bulk_id, servers)
            await servers[killed].kill9()
            await check(clients[1 - killed], bulk, ids, event)
    for server in servers:
        print(server.log[-4000:])
        assert not server.complaints


async def begun(client: Client, action: str) -> tuple[list[str], Bulk]:
    """Return executions, newest first, and an operation on them that has begun."""
    await client.apply([yaml.safe_load(each) for each in (SLEEP, BROKEN)])
    name = "sleep" if action == "cancel" else "broken"
    made = await client.batch_execute(execute_request(name, {"zero": 0}) for _ in range(MANY))
    ids = sorted((each.execution.execution_id for each in made if isinstance(each, ExecuteResponse)), reverse=True)
    if action == "retry":
        for each in ids:
            await until(client, each, "finished")
    return ids, await client.start_bulk(action, workflow=name, rate=RATE)


async def carrier(dsn: str, bulk_id: str, servers: list[ServerProcess]) -> int:
    """Return which of the servers carries an operation out, when a step of it is done."""
    connection = await asyncpg.connect(dsn)
    async with asyncio.timeout(PATIENCE):
        while (name := await connection.fetchval(_CARRIER, bulk_id)) is None:  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.02)
    await connection.close()
    return [server.pid for server in servers].index(int(name.rpartition(":")[2]))


async def check(client: Client, bulk: Bulk, ids: list[str], event: str) -> None:
    """Assert that all have been come to once when it has ended."""
    async with asyncio.timeout(PATIENCE):
        async for each in client.watch_bulk(bulk.bulk_id):
            bulk = each
    assert (bulk.state, bulk.done_count) == (Bulk.STATE_COMPLETED, MANY)
    results = [each async for each in client.list_bulk_results(bulk.bulk_id)]
    assert [each.execution_id for each in results] == ids
    assert {each.outcome for each in results} == {BulkResult.OUTCOME_DONE}
    for execution_id in ids:
        await until(client, execution_id, "finished", 1 if event == "cancelling" else 2)
        assert kinds(await fresh_watch(client, execution_id))[event] == 1
