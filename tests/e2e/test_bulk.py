"""Operations in bulk with the command, and over kill -9: another goes on, and nothing is done twice or left out.

Holds CA8.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from flowkeep import Client
from flowkeep.v1.bulk_pb2 import Bulk, BulkResult
from flowkeep.v1.execution_pb2 import Execution
from tests.e2e.commands import SLEEP, at, execute, refused, shown
from tests.e2e.process import ServerProcess
from tests.patience import PATIENCE

MANY = 50
"""Executions: two steps of an operation and one that is not full, in which the server that follows does not die."""

CRASHES = {
    "FLOWKEEP_FAILPOINTS": "bulk.after_step_before_delivery=crash@2",
    "FLOWKEEP_ENVIRONMENT": "test",
}


async def many(client: Client, target: str) -> list[str]:
    """Start executions that wait; return their ids, newest first."""
    await shown(target, "apply", "-", given=SLEEP)
    return [(await client.execute("sleep")).execution_id for _ in range(MANY)][::-1]


async def followed(client: Client, bulk: Bulk) -> Bulk:
    """An operation at its end."""
    async for each in client.watch_bulk(bulk.bulk_id):
        bulk = each
    return bulk


@pytest.mark.parametrize("server", [CRASHES], indirect=True)
async def test_an_operation_goes_on_after_a_crash_between_a_commit_and_what_follows(
    server: ServerProcess, client: Client
) -> None:
    ids = await many(client, server.target)
    bulk = await client.start_bulk("cancel", workflow="sleep", reason="a flood")
    following = asyncio.create_task(followed(client, bulk))
    await server.death()  # the second step is committed, and nobody was told
    await server.restart()
    async with asyncio.timeout(PATIENCE):
        end = await following
    assert (end.state, end.done_count, end.matched_count) == (Bulk.STATE_COMPLETED, MANY, MANY)
    results = [each async for each in client.list_bulk_results(bulk.bulk_id)]
    assert [each.execution_id for each in results] == ids
    assert {each.outcome for each in results} == {BulkResult.OUTCOME_DONE}
    for execution_id in ids[::10]:
        events = [event async for event in client.watch(execution_id)]
        assert Counter(event.WhichOneof("kind") for event in events)["cancelling"] == 1
        assert events[-1].finished.state == Execution.STATE_CANCELLED
    left = [each async for each in client.list_executions(workflow="sleep", states=["RUNNING", "PENDING"])]
    assert not left


async def test_the_command_counts_acts_follows_and_tells(target: str) -> None:
    await shown(target, "apply", "-", given=SLEEP)
    ids = [(await execute(target, "sleep"))["execution_id"] for _ in range(3)][::-1]
    where = ("--workflow", "sleep", "--state", "RUNNING")
    text = await shown(target, "bulk", "cancel", *where, "--limit", "2", "--dry-run")
    assert "It would cancel 2 executions. Nothing was done." in text and ids[0] in text and ids[2] not in text
    text = await shown(target, "bulk", "cancel", *where, "--reason", "enough", "--rate", "1000", "--watch")
    assert "cancel COMPLETED: 3 of 3" in text
    (bulk,) = (await at(target, "bulk", "list", "--state", "completed")).json["bulks"]
    bulk_id = bulk["bulk_id"]
    assert (bulk["done_count"], bulk["reason"]) == (3, "enough")
    text = await shown(target, "bulk", "get", bulk_id)
    assert "workflow=sleep, states=RUNNING" in text
    assert "COMPLETED" in await shown(target, "bulk", "stop", bulk_id)  # it has ended
    found = (await at(target, "bulk", "results", bulk_id, "--outcome", "done")).json["results"]
    assert [(each["execution_id"], each["outcome"]) for each in found] == [(each, "DONE") for each in ids]
    assert bulk_id in (await at(target, "events", ids[0])).out
    assert "match_all" in await refused(target, "bulk", "resume", code=2)
    assert "BULK_NOT_FOUND" in await refused(target, "bulk", "watch", ids[0], code=3)
