"""Whatever a row holds, all others move, every call answers, and what cannot be read is ended and named.

Each column of each table is spoilt in turn, as the tables' own metadata name them, so that a new column is too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

import flowkeep
from flowkeep.errors import OutOfRangeError
from flowkeep.requests import steps_request
from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1 import workflow_service_pb2 as workflows_pb
from flowkeep.v1.execution_pb2 import (
    EXECUTION_VIEW_BASIC,
    EXECUTION_VIEW_FULL,
    STEP_VIEW_BASIC,
    STEP_VIEW_FULL,
    StepExecution,
)
from flowkeep.v1.workflow_pb2 import WORKFLOW_VIEW_BASIC, WORKFLOW_VIEW_FULL
from persistence.model import MessageKind
from persistence.postgres.revisions import expected_revision
from persistence.postgres.tables import PARTITIONED, metadata
from tests.integration.spoiling import SEND, TOGETHER, answer, cases, values_of
from tests.integration.stage import made, step
from tests.patience import PATIENCE

State = flowkeep.Execution
pytestmark = pytest.mark.tampered
SPOILT_TOGETHER = (
    ("executions", "execution_inputs"),
    ("steps",),
    ("transitions", "shared_payloads", "messages"),
)
"""Tables with about as many columns each, of which one test takes only so many."""
TOLD = (
    *("executions.create_time", "executions.deadline_time", "executions.start_time", "executions.tags"),
    *("executions.labels", "executions.timeout", "executions.workflow_id", "execution_inputs.input"),
    *("steps.wait", "steps.assigned", "steps.failure", "steps.path"),
)
"""Columns of which some value can be read by nobody."""
CODES = ("", "UNREADABLE_RECORD", "CANCELLED", "POISONED", "INTERNAL", "STEP_FAILED")


@dataclass
class Spoilt:
    """An execution of which one value is spoilt, and by which id it is found then."""

    where: str
    id: UUID


class World:
    """A server whose executions wait for hours, and the database behind it."""

    def __init__(self, served: Any, admin: asyncpg.Connection, workflow: str) -> None:
        self.served, self.admin, self.workflow = served, admin, workflow

    async def parked(self, count: int) -> list[UUID]:
        """So many executions that nobody owns: their first step is done, their second waits for its next attempt."""
        started = []
        for begin in range(0, count, 50):
            calls = [self.served.client.execute(self.workflow, {}) for _ in range(min(50, count - begin))]
            started += [UUID(each.execution_id) for each in await asyncio.gather(*calls)]
        await self.until("SELECT count(*) FROM executions WHERE id = ANY ($1) AND incarnation IS NOT NULL", started)
        return started

    async def until(self, count: str, *arguments: Any) -> None:
        """Return when a query counts none."""
        async with asyncio.timeout(PATIENCE):
            while await self.admin.fetchval(count, *arguments):  # noqa: ASYNC110 - no signal tells of it
                await asyncio.sleep(0.05)

    async def spoil(self, statement: str, *arguments: Any) -> bool:
        """Change something; False when the database keeps it out. A message to be changed is sent at that moment."""
        try:
            async with self.admin.transaction():
                if statement.startswith("UPDATE messages"):
                    kind = next(kind for kind in MessageKind if f"kind = '{kind}'" in statement)
                    await self.admin.execute(SEND, kind, arguments)
                return await self.admin.execute(statement, *arguments) != "UPDATE 0"
        except asyncpg.PostgresError:
            return False

    async def wake(self) -> None:
        """Let all timers be due that stand at a time of the calendar."""
        await self.admin.execute(
            "UPDATE steps SET wait = jsonb_set(wait, '{wake_time}', to_jsonb(clock_timestamp()))"
            " WHERE wait->>'wake_time' BETWEEN '2' AND '9999-01-01' AND end_time IS NULL"
        )
        await self.admin.execute(
            "UPDATE executions SET wake_time = clock_timestamp()"
            " WHERE wake_time BETWEEN now() AND '9999-01-01' AND end_time IS NULL"
        )

    async def listed(self, **asked: Any) -> set[str]:
        """All ids of a list in both views; no page may fail."""
        found = []
        for view, size in ((EXECUTION_VIEW_BASIC, 100), (EXECUTION_VIEW_FULL, 20)):
            token, ids = "", list[str]()
            while True:
                request = pb.ListExecutionsRequest(view=view, page_size=size, page_token=token, **asked)
                page = await self.served.executions.ListExecutions(request)
                ids += [each.execution_id for each in page.executions]
                token = page.next_page_token
                if not token:
                    break
            assert len(ids) == len(set(ids))
            found.append(set(ids))
        assert found[0] == found[1]
        return found[0]

    async def check_steps(self, spoilt: Spoilt) -> None:
        """Assert that the steps are read one by one as the whole execution shows them, and what is lost is named."""
        shown = await self.served.client.get_execution(str(spoilt.id))
        found, unreadable = [], set[str]()
        bare, page = [
            await self.served.client.steps_page(steps_request(shown.execution_id, view=view))
            for view in (STEP_VIEW_BASIC, STEP_VIEW_FULL)
        ]
        assert [each.path for each in bare.steps] == [each.path for each in shown.steps], spoilt
        for each in page.steps:
            answer = await self.served.client.get_step(shown.execution_id, each.path)
            found.append(answer.step)
            unreadable.update(answer.unreadable)
        for one, other, third in zip(found, page.steps, shown.steps, strict=True):
            for each in (one, other, third):
                each.ClearField("duration")
            assert one == other == third, spoilt
        of_steps = {name for name in shown.unreadable if name.startswith("steps")}
        assert set(page.unreadable) == unreadable == of_steps, spoilt


@pytest_asyncio.fixture
async def world(serve: Any, admin: asyncpg.Connection) -> AsyncIterator[World]:
    """The world of a test."""
    # As in the database of a later release, which has more states and messages; before a server runs, whose
    # statements it could meet in a deadlock.
    for table, constraint in (("executions", "state"), ("steps", "state"), ("messages", "kind")):
        await admin.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_{constraint}")
    served = await serve(park_after=0.05, claim_interval=0.1)
    name = await made(
        served.client,
        step("a", "take", give={"x": 1, "pad": "p" * 9_000}, assign={"v": "result.x"}),
        step("b", "fail", times=1, retry_policy={"max_attempts": 2, "initial_interval": "30m", "max_interval": "30m"}),
    )
    yield World(served, admin, name)


def test_each_table_of_an_execution_is_spoilt():
    assert sorted(table for tables in SPOILT_TOGETHER for table in tables) == sorted(PARTITIONED)


async def spoil_all(world: World, tables: tuple[str, ...]) -> list[Spoilt]:
    """Spoil each column of these tables, each value on an execution of its own."""
    spoilt, wanted = [], cases(tables)
    rest = await world.parked(len(wanted))
    for statement, name, value in wanted:
        if await world.spoil(statement, rest[-1]):
            execution_id = rest.pop()
            moved = name == "executions.id"
            spoilt.append(Spoilt(f"{name} = {value}", UUID(value.strip("'")) if moved else execution_id))
    named = {each.where.partition(" ")[0] for each in spoilt}
    assert named == {name for _, name, _ in wanted}, "a column that no value spoils"
    return spoilt


def one_of_each_column(spoilt: list[Spoilt]) -> list[Spoilt]:
    """The last value of each column, without those that are of no org that can be asked."""
    return [
        each
        for name, each in {each.where.partition(" ")[0]: each for each in spoilt}.items()
        if name != "executions.org_id"
    ]


@pytest.mark.parametrize("tables", SPOILT_TOGETHER, ids=lambda tables: tables[0])
async def test_each_column_spoilt_in_turn_stops_nobody(world, mistakes, tables):
    spoilt = await spoil_all(world, tables)
    in_org = "SELECT count(*) FROM executions WHERE org_id = 'development'"
    await world.listed()
    for each in spoilt:
        if each.where.startswith("executions.org_id"):
            continue
        for view in (EXECUTION_VIEW_BASIC, EXECUTION_VIEW_FULL):
            request = pb.GetExecutionRequest(execution_id=str(each.id), view=view)
            assert (await world.served.executions.GetExecution(request)).execution.execution_id == str(each.id)
    # What is not of a step spoils the reading of steps by one value as by any other.
    for each in spoilt if tables == ("steps",) else one_of_each_column(spoilt):
        await world.check_steps(each)

    neighbours = [await world.served.client.execute(world.workflow, {}) for _ in range(5)]
    await world.until(
        "SELECT count(*) FROM executions WHERE id = ANY ($1) AND incarnation IS NOT NULL",
        [UUID(each.execution_id) for each in neighbours],
    )
    await world.wake()
    for each in neighbours:
        async with asyncio.timeout(PATIENCE):
            assert [event async for event in world.served.client.watch(each.execution_id)][-1].HasField("finished")
        assert (await world.served.client.get_execution(each.execution_id)).state == State.STATE_COMPLETED
    await world.until("SELECT count(*) FROM executions WHERE end_time IS NULL")

    for order in ("ORDER_NEWEST", "ORDER_LONGEST", "ORDER_LAST_ENDED"):
        listed = await world.listed(order=pb.ListExecutionsRequest.Order.Value(order))
        assert len(listed) == await world.admin.fetchval(in_org), order
    ends = {each.where: await end_of(world, each) for each in spoilt}
    told = {where for where, code in ends.items() if code == "UNREADABLE_RECORD"}
    assert {where: code for where, code in ends.items() if code not in CODES} == {}
    for name in TOLD:
        assert name.partition(".")[0] not in tables or any(where.startswith(f"{name} ") for where in told), name
    mistakes[:] = [entry for entry in mistakes if entry["event"] != "execution cannot go on"]


async def end_of(world: World, spoilt: Spoilt) -> str:
    """With which code an execution has ended; its history can be read as far as it is there."""
    if spoilt.where.startswith("executions.org_id"):
        found = await world.admin.fetchval("SELECT failure->>'code' FROM executions WHERE id = $1", spoilt.id)
        return str(found or "")
    try:
        async with asyncio.timeout(PATIENCE):
            async for _ in world.served.client.watch(str(spoilt.id)):
                pass
    except OutOfRangeError as error:  # some of it is not where it should be
        assert error.reason in ("CURSOR_EXPIRED", "CURSOR_AHEAD"), spoilt
    return str((await world.served.client.get_execution(str(spoilt.id))).failure.code)


async def test_cancel_works_on_what_cannot_be_read(world):
    parked = await world.parked(2)
    assert await world.spoil("UPDATE executions SET deadline_time = '12000-01-01' WHERE id = $1", parked[0])
    never = "UPDATE steps SET wait = '{}' WHERE execution_id = $1 AND path = 'b'"
    assert await world.spoil(never, parked[1])
    shown = State()
    for execution_id in parked:
        receipt = await world.served.executions.Cancel(pb.CancelRequest(execution_id=str(execution_id)))
        assert receipt.execution.execution_id == str(execution_id)
        # An answer waits for the effect, but not for ever, nor for a claim that is on its way.
        await world.until("SELECT count(*) FROM executions WHERE id = $1 AND end_time IS NULL", execution_id)
        shown = await world.served.client.get_execution(str(execution_id))
        assert (shown.state, shown.failure.code) == (State.STATE_CANCELLED, "CANCELLED")
        assert [each.state for each in shown.steps][1] == StepExecution.STATE_CANCELLED
    assert list(shown.unreadable) == ["steps.b.wait"]
    assert not shown.steps[1].HasField("wait")


async def test_a_cancel_that_nobody_can_number_ends_all_the_same(world, mistakes):
    """It was asked, but not seen to; that it cannot be recorded is noticed before any verdict is reached."""
    (parked,) = await world.parked(1)
    assert await world.spoil("UPDATE executions SET last_seq = 9223372036854775807, mail = 1 WHERE id = $1", parked)
    await world.admin.execute(SEND, "CANCEL", [parked])
    await world.wake()
    await world.until("SELECT count(*) FROM executions WHERE end_time IS NULL")
    assert (await world.served.client.get_execution(str(parked))).state == State.STATE_CANCELLED
    mistakes[:] = [entry for entry in mistakes if entry["event"] != "execution cannot go on"]


async def test_a_watch_ends_although_the_last_event_is_not_known_as_one(world):
    (parked,) = await world.parked(1)
    await world.wake()
    await world.until("SELECT count(*) FROM executions WHERE end_time IS NULL")
    last = "execution_id = $1 AND seq = (SELECT max(seq) FROM transitions WHERE execution_id = $1)"
    spoil = f"UPDATE transitions SET layout = replace(layout, 'f', ' '), body = 'x' WHERE {last}"  # noqa: S608
    assert await world.spoil(spoil, parked)
    async with asyncio.timeout(PATIENCE):
        events = [event async for event in world.served.client.watch(str(parked))]
    assert [event.seq for event in events] == list(range(1, events[-1].seq + 1))
    assert events[-1].WhichOneof("kind") is None


async def spoilt_workflows(world: World) -> dict[str, str]:
    """Spoil each column of workflows and revisions, each value on a workflow of its own; return what, by its id."""
    steps = step("a", "wait", duration="30m"), step("b", "transform", value=1)
    found: dict[str, str] = {}
    name = workflow_id = ""
    for table, key in (("workflows", "id"), ("workflow_revisions", "workflow_id")):
        for column in metadata.tables[table].columns:
            also = "".join(f", {n} = {v}" for n, v in TOGETHER.get(column.name, {}).items() if n != column.name)
            for value in [*values_of(column), '\'{"name": "w", "steps": 5}\'', "'{\"nmae\": [1]}'"]:
                if not name:
                    name = await made(world.served.client, *steps)
                    workflow_id = (await world.served.client.get_workflow(name)).workflow_id
                    await world.served.client.execute(name)
                statement = f"UPDATE {table} SET {column.name} = {value}{also} WHERE {key} = $1"  # noqa: S608
                if await world.spoil(statement, UUID(workflow_id)):
                    found[workflow_id] = f"{table}.{column.name} = {value}"
                    name = ""
    assert {where.partition(" ")[0] for where in found.values()} == {
        f"{table}.{column.name}"
        for table in ("workflows", "workflow_revisions")
        for column in metadata.tables[table].columns
        # These hold a workflow and its revisions together.
        if column.name not in ("org_id", "id", "workflow_id")
    }
    return found


async def test_a_spoilt_workflow_stops_no_other_nor_a_start(world, serve):
    """The server that is up knows what it parsed; the one that starts meets it all."""
    spoilt = await spoilt_workflows(world)
    await world.until("SELECT count(*) FROM executions WHERE incarnation IS NOT NULL")
    await world.served.stop()
    world.served = served = await serve(park_after=0.05, claim_interval=0.1)

    for view in (WORKFLOW_VIEW_BASIC, WORKFLOW_VIEW_FULL):
        listed = []
        request = workflows_pb.ListWorkflowsRequest(view=view, page_size=20)
        while True:
            page = await served.workflows.ListWorkflows(request)
            listed += [each.workflow_id for each in page.workflows]
            request.page_token = page.next_page_token
            if not request.page_token:
                break
        there = await world.admin.fetchval("SELECT count(*) FROM workflows WHERE delete_time IS NULL")
        assert len(set(listed)) == len(listed) == there
    for workflow_id, where in spoilt.items():
        answers = [
            await answer(served.workflows.GetWorkflow(workflows_pb.GetWorkflowRequest(workflow=workflow_id))),
            await answer(served.executions.Execute(pb.ExecuteRequest(workflow=workflow_id))),
        ]
        assert set(answers) <= {"OK", "UNREADABLE_RECORD", "REVISION_NOT_FOUND", "WORKFLOW_NOT_FOUND"}, (where, answers)
        assert answers[0] == "OK" or ".delete" in where, (where, answers)

    await served.client.execute(world.workflow)
    await world.until("SELECT count(*) FROM executions WHERE incarnation IS NOT NULL")
    # What ends would be removed.
    await world.admin.execute("UPDATE workflows SET delete_time = NULL, deleted_by = NULL")
    # Whatever stands there of a pause, it is one, which a resume ends.
    for workflow_id, where in spoilt.items():
        if ".pause" in where:
            await served.client.resume_workflow(workflow_id)
    await world.until("SELECT count(*) FROM executions WHERE end_time IS NULL AND start_time IS NULL")
    await world.until("SELECT count(*) FROM executions WHERE incarnation IS NOT NULL")
    await world.wake()
    await world.until("SELECT count(*) FROM executions WHERE end_time IS NULL")
    codes = {each.failure.code async for each in served.client.list_executions()}
    assert codes == {"", "UNREADABLE_RECORD"}
    assert len(await world.listed()) == await world.admin.fetchval("SELECT count(*) FROM executions")
    # Another revision mends it, but for a name that none may have.
    for workflow_id, where in spoilt.items():
        if ".name" in where:
            continue
        await served.client.update_workflow(workflow_id, {"steps": [step("a", "transform", value=1)]})
        done = await served.client.execute(workflow_id, wait=True)
        assert done.state == State.STATE_COMPLETED, where


async def test_what_a_dead_process_left_is_taken_over_whatever_its_lease_says(world):
    values = [*values_of(metadata.tables["replicas"].c.lease_until), "now() + interval '9 years'", "now()"]
    parked = await world.parked(len(values))
    for value, execution_id in zip(values, parked, strict=True):
        columns = "incarnation, name, register_time, lease_until, revision"
        made = f"gen_random_uuid(), '', {value}, {value}, '{expected_revision()}'"
        statement = f"INSERT INTO replicas ({columns}) VALUES ({made}) RETURNING incarnation"  # noqa: S608
        try:
            dead = await world.admin.fetchval(statement)
        except asyncpg.PostgresError:
            continue
        await world.admin.execute(
            "UPDATE executions SET incarnation = $1, wake_time = NULL WHERE id = $2", dead, execution_id
        )
    await world.until("SELECT count(*) FROM executions WHERE incarnation IS NOT NULL")
    assert await world.admin.fetchval("SELECT count(*) FROM executions WHERE deaths > 0") == len(values) - 1


async def test_a_server_whose_own_lease_is_spoilt_goes_on(world):
    for column in metadata.tables["replicas"].columns:
        for value in values_of(column):
            await world.spoil(f"UPDATE replicas SET {column.name} = {value}")  # noqa: S608
    async with asyncio.timeout(PATIENCE):
        done = await world.served.client.execute(
            await made(world.served.client, step("a", "transform", value=1)), wait=True
        )
    assert done.state == State.STATE_COMPLETED
