"""Several servers on one database: whichever a caller asks, the answer is the same.

Holds EX2, EX6, CA2, ST4 and I13 of the contract.
"""

import asyncio
import os
import random
from contextlib import asynccontextmanager

import asyncpg
import pytest

import flowkeep
from flowkeep.requests import execute_request
from flowkeep.v1 import execution_service_pb2 as pb
from persistence.errors import UnavailableError
from persistence.transition import CommitResult
from tests.integration.stage import Store, ended, eventually, kinds, log, made, step
from tests.patience import PATIENCE

State = flowkeep.Execution

READS = int(os.environ.get("FLOWKEEP_TEST_READS", "2000"))
"""Reads right after an acknowledgement; CONTRACT wants 10,000, which take longer than every run of the tests should."""


async def test_of_64_equal_calls_one_creates(serve):
    """EX2: one id for all of them, and exactly one `created`."""
    servers = [await serve() for _ in range(3)]
    name = await made(servers[0].client, step("a"))
    for key in range(12):
        request = execute_request(name, {"n": key}, request_id=f"key-{key}")
        answers = await asyncio.gather(*(servers[n % 3].executions.Execute(request) for n in range(64)))
        assert len({answer.execution.execution_id for answer in answers}) == 1
        assert [answer.created for answer in answers].count(True) == 1
    page = await servers[1].client.list_page(page_size=1, count_total=True)
    assert page.total_size == 12


async def test_what_one_acknowledged_every_other_shows_at_once(serve):
    """EX6: also while the executions move on."""
    servers = [await serve() for _ in range(3)]
    name = await made(servers[0].client, step("a"))

    async def accept_and_read(n):
        by = servers[n % 3]
        accepted = (await by.executions.Execute(pb.ExecuteRequest(workflow=name))).execution
        request = pb.GetExecutionRequest(execution_id=accepted.execution_id)
        found = await asyncio.gather(*(each.executions.GetExecution(request) for each in servers if each is not by))
        assert {answer.execution.execution_id for answer in found} == {accepted.execution_id}
        assert all(answer.execution.last_seq >= accepted.last_seq for answer in found)

    for start in range(0, READS // 2, 20):
        await asyncio.gather(*(accept_and_read(n) for n in range(start, start + 20)))


@pytest.mark.parametrize("canceller", [0, 1], ids=["the owner", "another"])
async def test_of_a_cancel_and_a_completion_one_wins(serve, stage, canceller):
    """CA2: exactly one end, and when the cancel was acknowledged it is CANCELLED."""
    owner = await serve()
    name = await made(owner.client, step("a", "gate", name="${string(input.n)}"))
    executions = [await owner.client.execute(name, {"n": n}) for n in range(200)]
    await stage.called("a", 200)
    client = owner.client if canceller == 0 else (await serve()).client
    acknowledged = {}
    lead = 0.0  # of the cancels, as many seconds as it takes that each wins some races, however slow the machine

    async def race(n):
        async def complete():
            await asyncio.sleep(random.uniform(0, 0.004) + max(0.0, lead))
            stage.open(str(n))

        completion = asyncio.create_task(complete())
        try:
            await asyncio.sleep(random.uniform(0, 0.004) + max(0.0, -lead))
            await client.cancel(executions[n].execution_id)
            acknowledged[n] = True
        except flowkeep.FailedPreconditionError as error:
            assert error.reason == "EXECUTION_FINISHED"
            acknowledged[n] = False
        await completion

    for start in range(0, 200, 8):
        await asyncio.gather(*(race(n) for n in range(start, start + 8)))
        lead += 0.001 * (4 - sum(acknowledged[n] for n in range(start, start + 8)))
    for n, execution in enumerate(executions):
        events = await log(client, execution.execution_id)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert kinds(events).count("finished") == 1
        found = await client.get_execution(execution.execution_id)
        assert found.state == (State.STATE_CANCELLED if acknowledged[n] else State.STATE_COMPLETED)
        assert events[-1].finished.state == found.state
    assert set(acknowledged.values()) == {True, False}


async def test_what_a_superseded_attempt_gives_changes_nothing(serve, stage, database_dsn):
    """ST4: the owner loses its lease while its result is on the way, as in a pause between sending and arriving."""
    on_its_way, let_go = asyncio.Event(), asyncio.Event()
    late = []

    def held_up(repository):
        async def later(transition):
            await let_go.wait()
            return await repository.submit(transition)

        def submit(transition):
            if not stage.opened["gate"].is_set():
                return repository.submit(transition)
            late.append(asyncio.ensure_future(later(transition)))
            on_its_way.set()
            return asyncio.shield(late[-1])

        return Store(repository, submit=submit)

    first, second = await serve(wrap=held_up), await serve(claim_interval=0.1)
    name = await made(first.client, step("a", "gate"), step("b"))
    execution = await first.client.execute(name)
    await stage.called("a")
    stage.open("gate")
    async with asyncio.timeout(PATIENCE):
        await on_its_way.wait()
    await end_lease_of_owner(database_dsn, execution.execution_id)
    events = await log(second.client, execution.execution_id)
    found = await second.client.get_execution(execution.execution_id)
    assert (found.state, stage.attempts("a")) == (State.STATE_COMPLETED, [1, 2])
    assert flowkeep.from_value(found.steps[0].output) == {"name": "gate", "attempt": 2}

    before = await everything(database_dsn)
    let_go.set()
    assert await asyncio.gather(*late) == [CommitResult.FENCED] * len(late)
    assert await everything(database_dsn) == before
    assert await log(second.client, execution.execution_id) == events


@pytest.mark.parametrize("method", ["submit", "create"])
async def test_an_answer_from_before_a_takeover_starts_nothing(serve, stage, method):
    """I13: the owner is cut off while what it asked for was done; others go on; then the answer arrives."""
    cut_off, done, arrives = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def held_up(repository):
        async def answer(asked):
            answer = await asked
            if answer and cut_off.is_set():
                done.set()
                await arrives.wait()
            return answer

        @asynccontextmanager
        async def leases_apart():
            async with repository.leases_apart() as leases:

                async def renew(*arguments, **named):
                    if cut_off.is_set():
                        raise UnavailableError("cut off")
                    return await leases.renew(*arguments, **named)

                yield Store(leases, renew=renew)

        ask = getattr(repository, method)
        later = {method: lambda *arguments, **named: asyncio.ensure_future(answer(ask(*arguments, **named)))}
        return Store(repository, leases_apart=leases_apart, **later)

    first = await serve(wrap=held_up, lease_ttl=2.0)
    name = await made(first.client, step("a", "gate"), step("b"))
    if method == "submit":
        await first.client.execute(name)
        await stage.called("a")
    cut_off.set()
    stage.open("gate")
    calling = asyncio.create_task(first.client.execute(name))
    async with asyncio.timeout(PATIENCE):
        await done.wait()
    second = await serve(claim_interval=0.1)
    for execution in (await second.client.list_page()).executions:
        assert (await ended(second.client, execution.execution_id)).state == State.STATE_COMPLETED
    await second.stop()
    called = list(stage.calls)
    cut_off.clear()
    other = await made(first.client, step("c"), name="other")

    async def may_begin():
        return (await first.client.execute(other)).state == State.STATE_RUNNING

    await eventually(may_begin)
    arrives.set()
    await first.client.run(other)
    await calling
    assert [call for call in stage.calls if call[0] != "c"] == called


async def test_a_creation_that_is_answered_late_is_driven_once(serve, stage):
    """ST3: the sweeps that find it meanwhile leave it to the answer."""
    kept, arrives, swept = asyncio.Event(), asyncio.Event(), asyncio.Semaphore(0)

    def held_up(repository):
        async def answer(asked):
            answer = await asked
            kept.set()
            await arrives.wait()
            return answer

        async def undriven(*arguments):
            found = await repository.undriven(*arguments)
            if kept.is_set():
                swept.release()
            return found

        def create(new):
            return asyncio.ensure_future(answer(repository.create(new)))

        return Store(repository, create=create, undriven=undriven)

    served = await serve(wrap=held_up, claim_interval=0.1)
    calling = asyncio.create_task(served.client.run(await made(served.client, step("a"))))
    async with asyncio.timeout(PATIENCE):
        for _ in range(5):
            await swept.acquire()
    arrives.set()
    await calling
    assert stage.attempts("a") == [1]


async def end_lease_of_owner(dsn, execution_id):
    """End the lease of whoever drives an execution, as if it had been silent for too long."""
    connection = await asyncpg.connect(dsn)
    done = await connection.execute(
        """UPDATE replicas SET lease_until = clock_timestamp()
           WHERE incarnation = (SELECT incarnation FROM executions WHERE id = $1)""",
        execution_id,
    )
    await connection.close()
    assert done == "UPDATE 1"


async def everything(dsn):
    """All rows that tell of executions."""
    connection = await asyncpg.connect(dsn)
    tables = ("executions", "steps", "events", "messages")
    rows = {table: await connection.fetch(f"SELECT t::text FROM {table} t ORDER BY 1") for table in tables}  # noqa: S608 - our own
    await connection.close()
    return rows
