"""Bytes that are no text, as a bad disk leaves them: the driver makes nothing of the whole answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

import flowkeep
from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1 import workflow_service_pb2 as workflows_pb
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_BASIC, EXECUTION_VIEW_FULL
from persistence.postgres import migrate
from tests.conftest import NewDatabase
from tests.integration.stage import ended, eventually, made, step

State = flowkeep.Execution
pytestmark = pytest.mark.tampered


@pytest_asyncio.fixture
async def database_dsn(new_database: NewDatabase) -> AsyncIterator[str]:
    """A database that lets any bytes in."""
    how = "TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C'"
    async with new_database(how) as dsn:
        await migrate(dsn)
        yield dsn


async def test_they_are_the_trouble_of_their_own_execution(serve, admin):
    served = await serve(park_after=0.05, claim_interval=0.1)
    name = await made(served.client, step("a", "transform", value=1), step("b", "wait", duration="30m"))
    ids = [(await served.client.execute(name)).execution_id for _ in range(5)]

    async def are_parked() -> bool:
        return not await admin.fetchval("SELECT count(*) FROM executions WHERE incarnation IS NOT NULL")

    async def have_ended() -> bool:
        return not await admin.fetchval("SELECT count(*) FROM executions WHERE end_time IS NULL")

    await eventually(are_parked)
    spoils = (
        "UPDATE executions SET correlation_id = E'\\xff' WHERE id = $1",
        "UPDATE steps SET worker = E'\\xff' WHERE execution_id = $1",
        'UPDATE execution_inputs SET input = E\'{"a": "\\xff"}\' WHERE execution_id = $1',
        "UPDATE executions SET owner = E'\\xff' WHERE id = $1",
    )
    for statement, execution_id in zip(spoils, ids, strict=False):
        assert await admin.execute(statement, UUID(execution_id)) != "UPDATE 0"
    await admin.execute("UPDATE workflows SET name = E'\\xff' WHERE id <> $1", uuid4())
    for _ in range(2):
        for view in (EXECUTION_VIEW_BASIC, EXECUTION_VIEW_FULL):
            page = await served.executions.ListExecutions(pb.ListExecutionsRequest(view=view))
            assert {each.execution_id for each in page.executions} == set(ids)
            for execution_id in ids:
                await served.executions.GetExecution(pb.GetExecutionRequest(execution_id=execution_id, view=view))
        assert len((await served.workflows.ListWorkflows(workflows_pb.ListWorkflowsRequest())).workflows) == 1
        cancelled = await served.executions.Cancel(pb.CancelRequest(execution_id=ids[3]))
        assert cancelled.execution.execution_id == ids[3]
        await admin.execute(
            "UPDATE steps SET wait = jsonb_set(wait, '{wake_time}', to_jsonb(now())) WHERE end_time IS NULL"
        )
        await admin.execute("UPDATE executions SET wake_time = now() WHERE wake_time IS NOT NULL")
        await eventually(have_ended)
    rows = await admin.fetch("SELECT state, failure->>'code' AS code FROM executions ORDER BY id")
    assert [tuple(row) for row in rows] == [
        *[("FAILED", "UNREADABLE_RECORD")] * 3,
        ("CANCELLED", "CANCELLED"),
        ("COMPLETED", None),
    ]


async def test_a_row_that_cannot_even_be_taken_holds_nobody_up(serve, admin):
    function = "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
    await admin.execute(
        f"{function} $$ BEGIN IF OLD.owner = 'stuck' THEN RAISE 'corrupt' USING ERRCODE = 'XX001'; END IF;"
        " RETURN NEW; END $$"
    )
    # Before a server runs: what changes a table locks it and its partitions, and can meet statements in a deadlock.
    await admin.execute("CREATE TRIGGER refuse BEFORE UPDATE ON executions FOR EACH ROW EXECUTE FUNCTION refuse()")
    served = await serve(park_after=0.05, claim_interval=0.1)
    name = await made(served.client, step("a", "wait", duration="0.3s"))
    stuck = (await served.client.execute(await made(served.client, step("a", "wait", duration="2s")))).execution_id
    await admin.execute("UPDATE executions SET owner = 'stuck' WHERE id = $1", UUID(stuck))
    others = [(await served.client.execute(name)).execution_id for _ in range(3)]
    for execution_id in others:
        assert (await ended(served.client, execution_id)).state == State.STATE_COMPLETED
    assert (await served.client.get_execution(stuck)).state == State.STATE_RUNNING
    await admin.execute(f"{function} $$ BEGIN RETURN NEW; END $$")
    assert (await ended(served.client, stuck)).state == State.STATE_COMPLETED
