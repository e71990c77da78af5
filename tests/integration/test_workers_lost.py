"""Workers and servers that go while attempts run: nothing is recorded twice, and nothing is left undone."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

import flowkeep
from flowkeep.errors import from_rpc_error
from flowkeep.v1 import worker_service_pb2 as pb
from flowkeep.v1.worker_service_pb2_grpc import WorkerServiceStub
from service.api import identity, streams
from service.engine.waiting import within
from tests.integration.conftest import Serve
from tests.integration.credentials import PUBLIC_PEM, bearer, token
from tests.integration.raw_worker import RawWorker, refused, register, working
from tests.integration.stage import Served, ended, eventually, made, refusal, step
from tests.patience import PATIENCE

SOON = {"worker_heartbeat_timeout": 0.5}
"""A worker that says nothing is soon lost; those that are not to be lost say something."""


async def given_to(worker: RawWorker, served: Served, **fields: Any) -> tuple[str, pb.Attempt]:
    """An execution of one step, and its attempt, which the worker has."""
    async with living(worker):
        execution = await served.client.execute(await made(served.client, step("a", "work", **fields)))
        return execution.execution_id, (await worker.hear("assignment")).attempt


@asynccontextmanager
async def living(worker: RawWorker) -> AsyncIterator[None]:
    """Say again and again that the worker lives, inside."""

    over = asyncio.Event()

    async def live() -> None:
        while not over.is_set():
            await worker.say(heartbeat=pb.Heartbeat())
            await within(0.05, over.wait())

    beating = asyncio.create_task(live())
    try:
        yield
    finally:
        over.set()  # a write that is cancelled would take the stream with it
        await beating


async def test_the_attempt_of_a_lost_worker_is_made_again_and_costs_no_retry(serve: Serve):
    """ST4: what the lost one gives later changes nothing, and is refused."""
    served = await serve(**SOON)
    async with working(served.channel, "work") as lost:
        execution_id, first = await given_to(lost, served)
        async with working(served.channel, "work") as other, living(other):
            second = (await other.hear("assignment")).attempt
            assert (first.attempt, second.attempt) == (1, 2)
            async with working(served.channel, "work", worker_id=lost.worker_id, attempts=[first]) as again:
                assert list(again.registered.unwanted) == [first]
                await again.complete(first, "late")
                settled = await again.hear("settled")
                assert not settled.is_recorded and settled.message.startswith("STALE_ATTEMPT")
            await other.complete(second, "right")
            execution = await ended(served.client, execution_id)
    (done,) = execution.steps
    assert flowkeep.from_value(done.output) == "right"
    assert [each.failure.code for each in done.failed_attempts] == ["WORKER_LOST"]


async def test_a_step_that_may_run_once_has_an_unknown_outcome_when_its_worker_is_lost(serve: Serve):
    served = await serve(**SOON)
    async with working(served.channel, "work") as lost:
        execution_id, _ = await given_to(lost, served, delivery="AT_MOST_ONCE")
        execution = await ended(served.client, execution_id)
    assert execution.steps[0].failure.code == "OUTCOME_UNKNOWN"


async def test_a_step_that_loses_worker_after_worker_fails(serve: Serve):
    served = await serve(**SOON)
    async with working(served.channel, "work") as first:
        execution_id, attempt = await given_to(first, served)
    for number in range(2, 6):
        async with working(served.channel, "work") as next_one, living(next_one):
            attempt = (await next_one.hear("assignment")).attempt
            assert attempt.attempt == number
    execution = await ended(served.client, execution_id)
    assert execution.steps[0].failure.code == "WORKER_LOST"
    assert execution.steps[0].attempt == 5


async def test_an_attempt_that_is_given_back_is_made_again(served: Served):
    async with working(served.channel, "work") as worker:
        execution_id, first = await given_to(worker, served)
        await worker.fail(first, "CANCELLED")
        heard: dict[Any, pb.WorkResponse] = {}
        while not heard.keys() >= {"settled", "assignment"}:
            said = await worker.call.read()
            heard[said.WhichOneof("message")] = said
        assert heard["settled"].settled.is_recorded
        await worker.complete(heard["assignment"].assignment.attempt, 1)
        execution = await ended(served.client, execution_id)
    assert execution.state == flowkeep.Execution.STATE_COMPLETED


async def test_a_worker_comes_back_and_goes_on(served: Served):
    """The stream breaks: the attempt goes on, its result is taken, and what never arrived is sent again."""
    async with working(served.channel, "work") as worker:
        first_id, first = await given_to(worker, served)
        second_id, second = await given_to(worker, served)
    async with working(served.channel, "work", worker_id=worker.worker_id, attempts=[first]) as again:
        assert not again.registered.unwanted
        assert (await again.hear("assignment")).attempt == second
        await again.complete(first, 1)
        assert (await again.hear("settled")).is_recorded
        await again.complete(second, 2)
        assert (await again.hear("settled")).is_recorded
        ends = [await ended(served.client, each) for each in (first_id, second_id)]
    assert [flowkeep.from_value(end.steps[0].output) for end in ends] == [1, 2]
    assert [end.steps[0].attempt for end in ends] == [1, 1]


async def test_a_result_that_is_given_twice_is_recorded_once_and_settled_each_time(served: Served):
    """The worker did not hear that it was settled: it says it again, and may forget it then."""
    async with working(served.channel, "work") as worker:
        execution_id, attempt = await given_to(worker, served)
        await worker.complete(attempt, 1)
        await worker.hear("settled")
    async with working(served.channel, "work", worker_id=worker.worker_id, attempts=[attempt]) as again:
        assert not again.registered.unwanted
        await again.complete(attempt, 2)
        assert (await again.hear("settled")).is_recorded
        execution = await ended(served.client, execution_id)
    assert flowkeep.from_value(execution.steps[0].output) == 1


async def test_nobody_speaks_for_another_worker(served: Served):
    """What a worker says of attempts that were given to others is refused, and it is told to stop them."""
    async with working(served.channel, "work", capacity=1) as worker:
        execution_id, attempt = await given_to(worker, served)
        async with working(served.channel, "other") as thief:
            await thief.complete(attempt, "stolen")
            assert not (await thief.hear("settled")).is_recorded
            await thief.say(progress=pb.AttemptProgress(attempt=attempt, progress_percent=99))
            assert (await thief.hear("cancelled")).reason == pb.AttemptCancelled.REASON_STALE
        await worker.complete(attempt, "own")
        execution = await ended(served.client, execution_id)
    assert flowkeep.from_value(execution.steps[0].output) == "own"


async def test_a_server_that_stops_says_so_and_another_one_goes_on(serve: Serve):
    first, second = await serve(), await serve()
    async with working(first.channel, "work") as worker:
        execution_id, attempt = await given_to(worker, first)
        stopping = asyncio.ensure_future(first.stop())
        await worker.hear("draining")
        await stopping
    async with working(second.channel, "work", worker_id=worker.worker_id, attempts=[attempt]) as again:
        assert not again.registered.unwanted
        await again.complete(attempt, 1)
        assert (await again.hear("settled")).is_recorded
        execution = await ended(second.client, execution_id)
    assert execution.state == flowkeep.Execution.STATE_COMPLETED
    assert execution.steps[0].attempt == 1


async def test_a_worker_of_one_server_runs_what_another_one_accepted(serve: Serve):
    first, second = await serve(claim_interval=1000.0), await serve(claim_interval=1000.0)
    async with working(second.channel, "work", name="there") as worker:
        await eventually(lambda: is_listed(first, "there"))
        execution_id, attempt = await given_to(worker, first)
        await worker.complete(attempt, 1)
        assert (await worker.hear("settled")).is_recorded
        execution = await ended(first.client, execution_id)
    assert execution.state == flowkeep.Execution.STATE_COMPLETED


async def is_listed(served: Served, name: str) -> bool:
    found = (await WorkerServiceStub(served.channel).ListWorkers(pb.ListWorkersRequest())).workers
    return name in [each.name for each in found]


async def test_a_worker_is_given_nothing_of_another_org(serve: Serve, tmp_path: Path):
    key_file = tmp_path / "key.pem"
    key_file.write_bytes(PUBLIC_PEM)
    served = await serve(jwt_key_file=key_file)
    ours, theirs = bearer(token("acme")), bearer(token("globex"))
    async with (
        working(served.channel, "work", metadata=ours) as own,
        working(served.channel, "work", metadata=theirs) as other,
    ):
        assert (own.registered.org, other.registered.org) == ("acme", "globex")
        async with served.client_with(token("globex")) as client:
            execution = await client.execute(await made(client, step("a", "work")))
            given = await other.hear("assignment")
            await own.complete(given.attempt, "stolen")
            assert not (await own.hear("settled")).is_recorded
            await other.complete(given.attempt, 1)
            await ended(client, execution.execution_id)
        stub = WorkerServiceStub(served.channel)
        (shown,) = (await stub.ListWorkers(pb.ListWorkersRequest(), metadata=ours)).workers
        assert shown.worker_id == own.worker_id


async def test_w13_the_stream_of_a_worker_ends_when_its_token_has_expired(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Also of one that says nothing which the server answers."""
    monkeypatch.setattr(streams, "RECHECK", 0.0)
    key_file = tmp_path / "key.pem"
    key_file.write_bytes(PUBLIC_PEM)
    served = await serve(jwt_key_file=key_file)
    async with working(served.channel, "work", metadata=bearer(token())) as worker:
        async with served.client_with(token()) as client:
            await client.execute(await made(client, step("a", "work")))
        attempt = (await worker.hear("assignment")).attempt
        monkeypatch.setattr(identity, "time", SimpleNamespace(time=lambda: time.time() + 400 * 86_400))
        await worker.say(progress=pb.AttemptProgress(attempt=attempt, message="still there"))
        async with asyncio.timeout(PATIENCE):
            error = await refusal(worker.call.read())
    assert error.reason == "INVALID_TOKEN"


async def test_a_worker_takes_a_permission_of_its_own(serve: Serve, tmp_path: Path):
    key_file = tmp_path / "key.pem"
    key_file.write_bytes(PUBLIC_PEM)
    served = await serve(jwt_key_file=key_file)
    call = WorkerServiceStub(served.channel).Work(metadata=bearer(token(permissions=["workers.read"])))
    # Nothing is written: the call is refused before the server reads, and a write to a call that has ended fails.
    error = await refusal(call.read())
    assert error.metadata == {"permission": "workers.work"}


async def test_a_worker_with_two_streams_keeps_the_newer_one(served: Served):
    one = str(uuid4())
    async with (
        working(served.channel, "work", worker_id=one) as older,
        working(served.channel, "work", worker_id=one) as newer,
    ):
        async with asyncio.timeout(PATIENCE):
            error = await refusal(older.call.read())
        assert error.code.name == "ABORTED"
        execution_id, attempt = await given_to(newer, served)
        await newer.complete(attempt)
        await ended(served.client, execution_id)


async def test_bytes_that_are_no_request_end_the_stream(served: Served):
    said = pb.WorkRequest(register=register("work"))
    nothing = from_rpc_error(await refused(served.channel, said, pb.WorkRequest()))
    assert nothing.code.name == "INVALID_ARGUMENT"


async def test_a_secret_reaches_the_worker_and_comes_back_hidden(serve: Serve, tmp_path: Path):
    (tmp_path / "development").mkdir()
    (tmp_path / "development" / "key").write_text("hush-hush-hush")
    served = await serve(secrets_dir=tmp_path)
    async with working(served.channel, "work") as worker:
        name = await made(served.client, step("a", "work", key="${ secret('key') }"))
        execution = await served.client.execute(name)
        given = await worker.hear("assignment")
        key = json.loads(given.params)["key"]
        await worker.complete(given.attempt, {"said": key})
        found = await ended(served.client, execution.execution_id)
    assert key == "hush-hush-hush"
    assert found.state == flowkeep.Execution.STATE_COMPLETED
    assert key not in str(found)
