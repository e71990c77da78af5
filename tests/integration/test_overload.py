"""More work than the server may hold: what it refuses was not begun, says when to come back, and is let in later.

Holds EX8 of the contract.
"""

import asyncio
from functools import partial

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import flowkeep
from flowkeep import connection, retry, watch
from flowkeep.requests import execute_request
from flowkeep.v1 import execution_service_pb2 as pb
from persistence.errors import UnavailableError
from tests.integration.stage import Store, log, made, refusal, serving, step
from tests.patience import PATIENCE

Code = grpc.StatusCode
State = flowkeep.Execution

QUEUE = 5


async def filled(served, stage, most):
    """Let as many calls be served as may be: each waits for the end of an execution that stands at its gate."""
    name = await made(served.client, step("a", "gate"))
    calls = [served.executions.Execute(pb.ExecuteRequest(workflow=name, wait=True)) for _ in range(most)]
    await stage.called("a", most)
    return name, calls


async def test_more_calls_than_may_be_are_refused_with_a_reason(serve, stage):
    served = await serve(max_concurrent_rpcs=2)
    name, calls = await filled(served, stage, 2)

    refused = served.executions.Execute(execute_request(name, request_id="refused"))
    watching = served.executions.WatchExecution(pb.WatchExecutionRequest(execution_id="0" * 36))
    for call in (refused, watching.read()):
        error = await refusal(call)
        assert (error.code, error.reason) == (Code.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert (error.retry_after, error.metadata) == (1.0, {"limit": "2"})
    health = await health_pb2_grpc.HealthStub(served.channel).Check(health_pb2.HealthCheckRequest())
    assert health.status == health_pb2.HealthCheckResponse.SERVING

    stage.open("gate")
    assert {(await call).execution.state for call in calls} == {State.STATE_COMPLETED}
    assert (await served.client.list_page(count_total=True)).total_size == 2  # nothing was begun
    assert (await served.executions.Execute(execute_request(name, request_id="refused"))).created


async def test_what_a_claim_may_still_bring_has_its_place(serve, stage, admin):
    """`max_running` holds also for what is created while a claim is on its way."""
    on_its_way, goes_on, back = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def slow(repository):
        async def claim(*arguments, **named):
            on_its_way.set()
            await goes_on.wait()
            try:
                return await repository.claim(*arguments, **named)
            finally:
                back.set()

        return Store(repository, claim=claim)

    served = await serve(wrap=slow, max_running=1)
    async with asyncio.timeout(PATIENCE):
        await on_its_way.wait()
        name = await made(served.client, step("a", "gate"))
        for _ in range(2):
            await served.client.execute(name)
        goes_on.set()
        await back.wait()
    assert await admin.fetchval("SELECT count(*) FROM executions WHERE incarnation IS NOT NULL") == 1
    await stage.called("a")
    stage.open("gate")
    await stage.called("a", 2)


async def test_less_is_claimed_when_so_much_at_a_time_cannot_be(serve, stage, mistakes):
    """Otherwise executions that are too large together would be asked for together for ever."""
    asked = []

    def weak(repository):
        async def claim(incarnation, limit, **named):
            asked.append(limit)
            if limit > 3:
                raise UnavailableError("it took too long")
            return await repository.claim(incarnation, limit, **named)

        return Store(repository, claim=claim)

    served = await serve(wrap=weak, claim_interval=0.05)
    name = await made(served.client, step("a"))
    executions = [await served.client.execute(name, start_delay=0.01) for _ in range(10)]
    for execution in executions:
        await served.client.result(execution.execution_id)
    assert asked[:6] == [100, 50, 25, 12, 6, 3]
    mistakes.clear()


class Pauses(retry.Backoff):
    """Pauses of the client that are short, and tell after which errors they are made."""

    after_errors: list[tuple[grpc.StatusCode, str, float | None]]
    made: asyncio.Event

    def __init__(self):
        super().__init__(0.01, 0.05)

    def after(self, error):
        self.after_errors.append((error.code, error.reason, error.retry_after))
        self.made.set()
        return self.next()


@pytest.fixture
def pauses(monkeypatch):
    """What all clients of the test are told of their pauses."""
    monkeypatch.setattr(Pauses, "after_errors", [], raising=False)
    monkeypatch.setattr(Pauses, "made", asyncio.Event(), raising=False)
    for module in (watch, connection):
        monkeypatch.setattr(module, "Backoff", Pauses)
    return Pauses


@pytest.mark.parametrize("is_ours", [True, False], ids=["ours", "that of gRPC"])
async def test_our_client_comes_again_until_there_is_room(serve, stage, pauses, monkeypatch, is_ours):
    """Also a call that must not be made twice: what was refused was not begun."""
    if not is_ours:  # as other servers have it, and older ones of ours
        monkeypatch.setattr(grpc.aio, "server", partial(grpc.aio.server, maximum_concurrent_rpcs=3))
    served = await serve(max_concurrent_rpcs=3)
    execution = await served.client.execute(await made(served.client, step("b", "gate", name="other")))
    name, calls = await filled(served, stage, 3)

    async def follow():
        return await log(served.client, execution.execution_id)

    attempts = [
        follow(),
        served.client.execute(name),
        served.client.get_execution(execution.execution_id),
        served.client.create_workflow({"name": "new", "steps": [step("c")]}),
    ]
    tasks = [asyncio.ensure_future(attempt) for attempt in attempts]
    async with asyncio.timeout(PATIENCE):
        while len(pauses.after_errors) < 5 * len(tasks):
            pauses.made.clear()
            await pauses.made.wait()
    assert not any(task.done() for task in tasks)
    expected = (Code.RESOURCE_EXHAUSTED, "QUEUE_FULL", 1.0) if is_ours else (Code.RESOURCE_EXHAUSTED, "", None)
    assert set(pauses.after_errors) == {expected}

    stage.open("gate", "other")
    await asyncio.gather(*calls)
    async with asyncio.timeout(PATIENCE):
        events, started, found, created = await asyncio.gather(*tasks)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events[-1].HasField("finished")
    assert (found.execution_id, created.name, bool(started.execution_id)) == (execution.execution_id, "new", True)
    assert (await served.client.list_page(count_total=True)).total_size == 5


async def test_a_full_queue_refuses_before_anything_is_written(open_repository, stage, monkeypatch):
    """EX8: a batch is on its way, so that the others queue up."""
    async with (
        open_repository(max_queue=QUEUE) as repository,
        serving(repository, stage.handlers()) as target,
        flowkeep.Client(target) as client,
        grpc.aio.insecure_channel(target) as channel,
    ):
        execute = flowkeep.v1.execution_service_pb2_grpc.ExecutionServiceStub(channel).Execute
        name = await made(client, step("a"))
        writer = repository._committer._writer
        on_its_way, goes_on = asyncio.Event(), asyncio.Event()

        async def write_later(units, write=writer.write):
            on_its_way.set()
            await goes_on.wait()
            return await write(units)

        monkeypatch.setattr(writer, "write", write_later)
        first = asyncio.ensure_future(execute(execute_request(name, request_id="first")))
        async with asyncio.timeout(PATIENCE):
            await on_its_way.wait()
        calls = {f"r{n}": asyncio.ensure_future(execute(execute_request(name, request_id=f"r{n}"))) for n in range(30)}
        waiting = set(calls.values())
        while len(waiting) > QUEUE:
            done, waiting = await asyncio.wait(waiting, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
            assert done
            for call in done:
                error = await refusal(call)
                assert (error.code, error.reason) == (Code.RESOURCE_EXHAUSTED, "QUEUE_FULL")
                assert error.retry_after == 1.0
        assert len(waiting) == QUEUE
        again = asyncio.ensure_future(client.execute(name, request_id="again"))  # ours comes again by itself
        goes_on.set()

        accepted = {request_id for request_id, call in calls.items() if call in waiting}
        async with asyncio.timeout(PATIENCE):
            answers = await asyncio.gather(first, *waiting)
            await again
        assert all(answer.created for answer in answers)
        kept = {execution.request_id async for execution in client.list_executions()}
    assert kept == {"first", "again", *accepted}
