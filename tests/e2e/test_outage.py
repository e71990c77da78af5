"""Postgres away for longer than the lease lasts: what runs goes on, and nothing of it is done again or thrown away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import psutil
import pytest
import pytest_asyncio

from flowkeep import Client
from flowkeep.v1.execution_pb2 import Execution
from persistence.embedded import EmbeddedPostgres
from tests.conformance.builders import until
from tests.e2e.effects import EffectServer
from tests.e2e.history import Watcher, check_watch, paths
from tests.e2e.process import ServerProcess, copy_data
from tests.e2e.test_crash import call

Serve = Callable[[str], Awaitable[ServerProcess]]

PACE = {"FLOWKEEP_LEASE_TTL": "3.0", "FLOWKEEP_CLAIM_INTERVAL": "0.1", "FLOWKEEP_WATCH_POLL": "0.2"}


@pytest.fixture
async def postgres(prepared: Path, folder: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A Postgres beside the servers, which the test may stop and start."""
    await copy_data(prepared, folder / "data")
    postgres = EmbeddedPostgres(folder / "data").start()
    yield postgres
    postgres.stop()


@pytest_asyncio.fixture
async def serve(postgres: EmbeddedPostgres, folder: Path) -> AsyncIterator[Serve]:
    """Starts servers on that Postgres."""
    async with AsyncExitStack() as stack:

        async def start(name: str) -> ServerProcess:
            home = folder / name
            home.mkdir()
            server = ServerProcess(home, settings={"FLOWKEEP_DATABASE_URL": postgres.dsn(), **PACE})
            server.is_healthy = False  # while its database is away, nobody tells it anything
            stack.push_async_callback(server.close)
            await server.start()
            return server

        yield start


async def lapsed(server: ServerProcess) -> None:
    """Return when the server has noticed that its lease has run out and could not be renewed."""

    async def has_lapsed() -> bool:
        return '"may_begin":false' in server.log.replace(" ", "")

    await until(has_lapsed)


@pytest.mark.parametrize("count", [1, 2])
async def test_what_runs_outlives_the_lease(
    serve: Serve, postgres: EmbeddedPostgres, effects: EffectServer, count: int
) -> None:
    """Also a step that must never be called twice; and no server robs another that was cut off with it."""
    servers = [await serve(f"server-{number}") for number in range(count)]
    often, once = effects.hold("/often"), effects.hold("/once")
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(server.target)) for server in servers]
        await clients[0].create_workflow({"name": "often", "steps": [call(effects, "often"), call(effects, "next")]})
        await clients[0].create_workflow({"name": "once", "steps": [call(effects, "once", delivery="AT_MOST_ONCE")]})
        watchers: list[Watcher] = []

        async def all_called() -> bool:
            return len(effects.calls) == len(watchers)

        for client in clients:
            for workflow in ("often", "once"):
                watchers.append(Watcher(client, (await client.execute(workflow)).execution_id))
        await until(all_called)
        await asyncio.to_thread(postgres.stop)
        await asyncio.gather(*(lapsed(server) for server in servers))
        often.opened.set()
        once.opened.set()
        postgres.start()
        for watcher, client in zip(watchers, [each for each in clients for _ in range(2)], strict=True):
            events = await check_watch(client, watcher)
            execution = await client.get_execution(watcher.execution_id)
            assert execution.state == Execution.STATE_COMPLETED
            assert paths(events, "step_started") == paths(events, "step_completed")
    assert [len(calls) for calls in effects.by_key().values()] == [1] * 3 * count
    for server in servers:
        assert not server.complaints


async def test_paused_in_the_middle_of_a_renewal_it_goes_on_under_a_new_incarnation(
    serve: Serve, postgres: EmbeddedPostgres
) -> None:
    """CONTRACT 2.5: as when the pause comes at any other time."""
    server = psutil.Process((await serve("server")).pid)
    renewing = await asyncpg.connect(postgres.dsn())
    looking = await asyncpg.connect(postgres.dsn())
    try:
        async with renewing.transaction():
            before = await renewing.fetchval("SELECT incarnation FROM replicas FOR UPDATE")
            await until(lambda: looking.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
            server.suspend()
            try:
                late = "SELECT lease_until + interval '1 s' < clock_timestamp() FROM replicas"
                await until(lambda: looking.fetchval(late))
            except BaseException:
                server.resume()
                raise
        server.resume()
        await until(lambda: looking.fetchval("SELECT count(*) FROM replicas WHERE incarnation <> $1", before))
    finally:
        await renewing.close()
        await looking.close()
