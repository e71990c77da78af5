"""The server that gave an attempt to a worker goes: the attempt goes on, and its result is recorded once.

Holds ST2, ST4 and ST6 for workers that come back to another server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

import flowkeep
from flowkeep.v1 import worker_service_pb2 as pb
from flowkeep.v1.execution_pb2 import Usage
from tests.integration.conftest import Serve
from tests.integration.raw_worker import RawWorker, bare, working
from tests.integration.stage import Served, ended, eventually, log
from tests.integration.test_replicas import end_lease_of_owner
from tests.integration.test_workers_lost import given_to, living

pytestmark = pytest.mark.tampered  # leases end by hand, of which nobody is told

NEVER = {"claim_interval": 1000.0}
SOON = {"claim_interval": 0.1}

State = flowkeep.Execution


@asynccontextmanager
async def back(served: Served, worker: RawWorker, *attempts: pb.Attempt, **fields: Any) -> AsyncIterator[RawWorker]:
    """The worker on another stream, with attempts that it was given on the one before."""
    fields = {"worker_id": worker.worker_id, **fields}
    async with working(served.channel, "work", attempts=attempts, **fields) as again:
        yield again


async def owner_of(dsn: str, execution_id: str) -> Any:
    """The process that drives an execution."""
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval("SELECT incarnation FROM executions WHERE id = $1", execution_id)
    finally:
        await connection.close()


async def changes_hands(dsn: str, execution_id: str) -> None:
    """Take the execution from its owner, and return when another one has it."""
    owner = await owner_of(dsn, execution_id)
    await end_lease_of_owner(dsn, execution_id)

    async def does() -> bool:
        return await owner_of(dsn, execution_id) not in (None, owner)

    await eventually(does)


async def check_one_attempt(served: Served, execution_id: str, output: Any) -> None:
    """Assert that the execution completes with the output of the only attempt of its step."""
    execution = await ended(served.client, execution_id)
    (done,) = execution.steps
    assert execution.state == State.STATE_COMPLETED
    assert (flowkeep.from_value(done.output), done.attempt, len(done.failed_attempts)) == (output, 1, 0)
    told = [event.WhichOneof("kind") for event in await log(served.client, execution_id)]
    assert told.count("step_started") == 1


@pytest.mark.parametrize("delivery", ["AT_LEAST_ONCE", "AT_MOST_ONCE"])
@pytest.mark.parametrize("comes", ["before", "after"])
async def test_an_attempt_goes_on_when_its_server_is_lost(
    serve: Serve, database_dsn: str, delivery: str, comes: str
) -> None:
    """Whether the worker or the execution comes first to the other server."""
    first, second = await serve(**NEVER), await serve(**SOON)
    async with working(first.channel, "work") as worker:
        execution_id, attempt = await given_to(worker, first, delivery=delivery)
    if comes == "after":
        await changes_hands(database_dsn, execution_id)
    async with back(second, worker, attempt) as again:
        assert not again.registered.unwanted
        if comes == "before":
            await changes_hands(database_dsn, execution_id)
        await again.complete(attempt, "done")
        settled = await again.hear("settled")
        assert settled.is_recorded
    await check_one_attempt(second, execution_id, "done")


async def test_a_result_that_comes_while_nobody_drives_the_execution_waits_for_who_will(
    serve: Serve, database_dsn: str
) -> None:
    first, other = await serve(**NEVER), await serve(**NEVER)
    async with working(first.channel, "work") as worker:
        execution_id, attempt = await given_to(worker, first)
    async with back(other, worker, attempt) as again:
        await end_lease_of_owner(database_dsn, execution_id)
        await again.complete(attempt, "done")
        third = await serve(**SOON)
        assert (await again.hear("settled")).is_recorded
    await check_one_attempt(third, execution_id, "done")


@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_worker_may_hang_on_a_server_that_does_not_drive_the_execution(
    serve: Serve, database_dsn: str, is_lost: bool
) -> None:
    """Whether the server that gave the attempt drives it on, or another one does."""
    first, other = await serve(**NEVER), await serve(**NEVER)
    async with working(first.channel, "work") as worker:
        execution_id, attempt = await given_to(worker, first)
    async with back(other, worker, attempt) as again:
        assert not again.registered.unwanted
        if is_lost:
            await serve(**SOON)
            await changes_hands(database_dsn, execution_id)
        usage = Usage(input_tokens=3)
        progress = pb.AttemptProgress(attempt=attempt, progress_percent=40, message="half", usage=usage)
        await again.say(progress=progress)

        async def is_told() -> bool:
            (step,) = (await first.client.get_execution(execution_id)).steps
            return step.progress_percent == 40

        await eventually(is_told)
        await again.say(completed=pb.AttemptCompleted(attempt=attempt, output=b'"done"', usage=Usage(cost_micros=5)))
        settled = await again.hear("settled")
        assert (settled.is_recorded, settled.attempt) == (True, bare(attempt))
    await check_one_attempt(first, execution_id, "done")
    execution = await first.client.get_execution(execution_id)
    assert execution.usage == Usage(input_tokens=3, cost_micros=5)


async def test_a_failure_is_that_of_the_attempt_wherever_it_is_said(serve: Serve) -> None:
    first, other = await serve(**NEVER), await serve(**NEVER)
    async with working(first.channel, "work") as worker:
        execution_id, attempt = await given_to(worker, first)
    async with back(other, worker, attempt) as again:
        await again.fail(attempt, "NO_STOCK", message="sold out", details=b'{"n": 12345678901234567890123}')
        assert (await again.hear("settled")).is_recorded
    failure = (await ended(first.client, execution_id)).steps[0].failure
    assert (failure.code, failure.message) == ("NO_STOCK", "sold out")


async def test_a_server_that_lost_an_execution_passes_on_what_its_worker_says(serve: Serve, database_dsn: str) -> None:
    """It lives, and its worker stays with it."""
    first, second = await serve(**NEVER), await serve(**SOON)
    async with working(first.channel, "work") as worker:
        execution_id, attempt = await given_to(worker, first)
        await changes_hands(database_dsn, execution_id)
        await worker.complete(attempt, "done")
        assert (await worker.hear("settled")).is_recorded
    await check_one_attempt(second, execution_id, "done")


async def test_a_cancel_reaches_a_worker_wherever_it_hangs(serve: Serve) -> None:
    first, other = await serve(**NEVER), await serve(**NEVER)
    async with working(first.channel, "work") as worker:
        execution_id, attempt = await given_to(worker, first)
    async with back(other, worker, attempt) as again:
        cancelling = asyncio.create_task(first.client.cancel(execution_id))
        told = await again.hear("cancelled")
        assert (told.attempt, told.reason) == (bare(attempt), pb.AttemptCancelled.REASON_CANCELLED)
        await again.fail(attempt, "CANCELLED")
        assert not (await again.hear("settled")).is_recorded
        await cancelling
        execution = await ended(first.client, execution_id)
    assert execution.state == State.STATE_CANCELLED


async def test_a_worker_that_does_not_come_back_has_lost_its_attempt(serve: Serve, database_dsn: str) -> None:
    """It is made again, and costs the step nothing; what comes of it later is refused."""
    first = await serve(**NEVER)
    async with working(first.channel, "work") as worker:
        execution_id, attempt = await given_to(worker, first)
    second = await serve(**SOON, worker_heartbeat_timeout=2.0)
    await changes_hands(database_dsn, execution_id)

    async def is_made_again() -> bool:
        (step,) = (await second.client.get_execution(execution_id)).steps
        return len(step.failed_attempts) == 1

    await eventually(is_made_again)
    async with back(second, worker, attempt) as late, living(late):
        assert list(late.registered.unwanted) == [attempt]
        following = (await late.hear("assignment")).attempt
        assert following.attempt == 2
        await late.complete(attempt, "late")
        settled = await late.hear("settled")
        assert not settled.is_recorded and settled.message.startswith("STALE_ATTEMPT")
        await late.complete(following, "right")
        execution = await ended(second.client, execution_id)
    (done,) = execution.steps
    assert flowkeep.from_value(done.output) == "right"
    assert [each.failure.code for each in done.failed_attempts] == ["INTERRUPTED"]


async def test_a_step_that_may_run_once_has_an_unknown_outcome_when_its_worker_does_not_come_back(
    serve: Serve, database_dsn: str
) -> None:
    first = await serve(**NEVER)
    async with working(first.channel, "work") as worker:
        execution_id, _ = await given_to(worker, first, delivery="AT_MOST_ONCE")
    second = await serve(**SOON, worker_heartbeat_timeout=2.0)
    await end_lease_of_owner(database_dsn, execution_id)
    execution = await ended(second.client, execution_id)
    assert execution.steps[0].failure.code == "OUTCOME_UNKNOWN"


async def test_nobody_comes_back_with_what_another_worker_was_given(serve: Serve, database_dsn: str) -> None:
    first, second = await serve(**NEVER), await serve(**SOON)
    async with working(first.channel, "work") as worker:
        execution_id, attempt = await given_to(worker, first)
    await changes_hands(database_dsn, execution_id)
    async with back(second, worker, attempt, worker_id="another") as thief:
        assert list(thief.registered.unwanted) == [attempt]
        await thief.complete(attempt, "stolen")
        assert not (await thief.hear("settled")).is_recorded
    async with back(second, worker, bare(attempt)) as without_token:
        assert list(without_token.registered.unwanted) == [bare(attempt)]
    async with back(second, worker, attempt) as again:
        await again.complete(attempt, "own")
        assert (await again.hear("settled")).is_recorded
    await check_one_attempt(second, execution_id, "own")
