"""A server that is told to stop: what has come to rest is given back at once, whatever else takes its time."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import asyncpg

from flowkeep.v1.execution_service_pb2 import WatchExecutionRequest
from tests.conformance.builders import until
from tests.integration.conftest import Serve
from tests.integration.stage import Served, Stage, ended, made, step
from tests.patience import PATIENCE

OWNED = "SELECT count(*) FROM executions WHERE id = ANY($1::uuid[]) AND incarnation IS NOT NULL"


async def given_back(admin: asyncpg.Connection, *executions: Any) -> None:
    """Return when no server owns them."""

    async def are_free() -> bool:
        return not await admin.fetchval(OWNED, [UUID(each.execution_id) for each in executions])

    await until(are_free)


async def slow_server(serve: Serve) -> Served:
    """A server that gives streams and attempts longer to end than the test waits for anything."""
    return await serve(stop_grace=2 * PATIENCE, cancel_grace=2 * PATIENCE, watch_patience=2 * PATIENCE, park_after=1e6)


async def test_a_handler_that_does_not_stop_holds_back_no_other_execution(
    serve: Serve, stage: Stage, admin: asyncpg.Connection
) -> None:
    first = await slow_server(serve)
    stubborn = await first.client.execute(await made(first.client, step("deaf", "stubborn")))
    other = await first.client.execute(await made(first.client, step("open", "gate")))
    await stage.called("deaf")
    await stage.called("open")
    second = await serve()
    stopping = asyncio.ensure_future(first.stop())
    await stage.called("open", 2)
    assert not stopping.done()
    assert stage.attempts("deaf") == [1]
    stage.open("gate", "deaf")
    await stopping
    for execution in (other, stubborn):
        async for _ in second.client.watch(execution.execution_id):
            pass
    assert stage.attempts("open") == [1, 2]


async def test_what_has_ended_and_waits_for_its_turn_is_recorded(serve: Serve, stage: Stage) -> None:
    """A step that may run once only has an outcome when its handler gave it, and what follows begins elsewhere."""
    first = await serve(park_after=1e6, cancel_grace=2 * PATIENCE)
    large = step("large", "progress", percents=[1] * 4_000, delivery="AT_MOST_ONCE")
    workflow = await made(first.client, large, step("next"))
    executions = await asyncio.gather(*(first.client.execute(workflow) for _ in range(40)))
    await stage.called("large", 40)
    stage.open("large")
    await first.stop()
    assert len(stage.attempts("next")) < 40  # else none was cut off
    second = await serve()
    ends = await asyncio.gather(*(ended(second.client, each.execution_id) for each in executions))
    assert [end.failure.message for end in ends] == [""] * 40
    assert stage.attempts("large") == [1] * 40


async def test_a_stream_that_nobody_reads_holds_back_no_execution(
    serve: Serve, stage: Stage, admin: asyncpg.Connection
) -> None:
    server = await slow_server(serve)
    steps = [step(f"s{number}", "transform", expression="input.text") for number in range(80)]
    execution = await server.client.execute(
        await made(server.client, *steps, step("open", "gate")), {"text": "x" * 200_000}
    )
    await stage.called("open")
    stream = server.executions.WatchExecution(WatchExecutionRequest(execution_id=execution.execution_id))
    await stream.read()  # and never again
    async for event in server.client.watch(execution.execution_id):
        if event.step_started.path == "open":
            break  # the other stream could have come as far
    stopping = asyncio.ensure_future(server.stop())
    await given_back(admin, execution)
    assert not stopping.done()
    stream.cancel()
    await stopping


async def test_no_more_executions_are_taken_than_there_is_room_for(
    serve: Serve, stage: Stage, admin: asyncpg.Connection
) -> None:
    """Those whose creation is on its way count as well."""
    server = await serve(max_running=5, park_after=1e6)
    workflow = await made(server.client, step("open", "gate"))
    await asyncio.gather(*(server.client.execute(workflow) for _ in range(60)))
    await stage.called("open", 5)
    owned = await admin.fetchval("SELECT count(*) FROM executions WHERE incarnation IS NOT NULL")
    assert owned == 5
    stage.open("gate")
    await stage.called("open", 60)
