"""An async handler that blocks the event loop: it is named while it does, and costs nobody but its own execution.

Holds the pause and ST6, ST7 of CONTRACT for one handler instead of a whole server.
"""

import asyncio
import re
import time
from collections import Counter
from uuid import UUID

import asyncpg
import pytest

import flowkeep
from flowkeep.handlers import StepContext, handler
from service.engine.running import leases
from tests.integration.stage import eventually, log, made, step
from tests.patience import PATIENCE

State = flowkeep.Execution
TTL = 5.0
"""Seconds; longer than what a busy machine makes of a loop, and of the thread that keeps the lease, by itself."""
BLOCKED = "the event loop is blocked"
RELEASED = "execution released, because its step blocks the server"
ABANDONED = "the event loop does not come back; others take over"
PACE = {"lease_ttl": TTL, "claim_interval": 0.1, "probation": 0.2}


@pytest.fixture(autouse=True)
def cut_off(mistakes):
    """A claim that is on its way when the loop stands still for longer than it may take is cut off: no mistake."""
    yield
    told = ("cannot be reached", "IdleInTransaction")
    mistakes[:] = [each for each in mistakes if not any(text in str(each.get("error")) for text in told)]


class Blocking:
    """Async handlers that do what they must not, so many times for each execution, each until this is said again."""

    def __init__(self, said=lambda event: [], until="", reports=1, times=1):
        self._said = lambda: len(said(until))
        self.reports = reports
        self.times = times
        self.calls: Counter[UUID] = Counter()
        self.returned: list[int] = []

    def handlers(self):
        @handler("blocks")
        async def blocks(context: StepContext, through: str = "") -> int:
            self.calls[context.execution_id] += 1
            if self.calls[context.execution_id] <= self.times:
                await self._through(through)
            self.returned.append(context.attempt)
            return context.attempt

        return [blocks]

    async def _through(self, what):
        if what == "task":
            await asyncio.gather(asyncio.sleep(0), self._block())
        elif what == "regex":  # it lets no other thread run
            self._hold(lambda: re.match("(a+)+$", "a" * 24 + "b"))
        elif what == "timeout":
            await asyncio.wait_for(self._block(), PATIENCE)
        else:
            await self._block()

    async def _block(self):
        self._hold(lambda: time.sleep(0.01))  # what must not be done

    def _hold(self, act):
        before, give_up = self._said(), time.monotonic() + PATIENCE
        while self._said() < before + self.reports and time.monotonic() < give_up:
            act()


async def ended(client, execution_id):
    """The execution when it has ended, however often the loop is blocked until then."""
    async with asyncio.timeout(PATIENCE):
        async for _ in client.watch(execution_id):
            pass
    return await client.get_execution(execution_id)


async def incarnations(dsn):
    connection = await asyncpg.connect(dsn)
    found = await connection.fetch("SELECT incarnation FROM replicas")
    await connection.close()
    return [row["incarnation"] for row in found]


@pytest.fixture
def of_steps(said):
    """What the server logs of steps, by event: a busy machine holds loops as well."""
    return lambda event: [entry for entry in said(event) if "step" in entry]


@pytest.mark.parametrize("through", ["", "task", "timeout"])
async def test_what_blocks_the_loop_is_named_while_it_does(serve, said, of_steps, through):
    served = await serve(Blocking(of_steps, BLOCKED, reports=2).handlers())
    execution = await served.client.execute(await made(served.client, step("b", "blocks", through=through)))
    found = await ended(served.client, execution.execution_id)
    assert (found.state, found.steps[0].attempt) == (State.STATE_COMPLETED, 1)
    reports = of_steps(BLOCKED)
    assert [entry["seconds"] >= least for entry, least in zip(reports, (1, 2), strict=True)] == [True] * 2
    for entry in reports:
        assert (entry["step"], entry["handler"], entry["attempt"]) == ("b", "blocks", 1)
        assert entry["execution_id"] == execution.execution_id
        assert "in _block" in entry["stack"]

    async def is_told():
        return any(entry.get("step") == "b" and entry["seconds"] > 2 for entry in said("the event loop was held up"))

    await eventually(is_told)


async def test_what_lets_not_even_other_threads_run_is_named_after_it(serve, of_steps):
    served = await serve(Blocking(of_steps, BLOCKED).handlers())
    # The caller is held as well, and longer than callers wait where a machine is slow.
    async with flowkeep.Client(served.target, timeout=2 * PATIENCE) as client:
        execution = await client.execute(await made(client, step("b", "blocks", through="regex")))
        await ended(client, execution.execution_id)
    reports = of_steps(BLOCKED)
    assert {(entry["step"], entry["execution_id"]) for entry in reports} == {("b", execution.execution_id)}
    assert "re.match" in reports[0]["stack"]


@pytest.mark.parametrize("delivery", ["AT_LEAST_ONCE", "AT_MOST_ONCE"])
async def test_only_the_execution_that_blocks_is_lost(serve, stage, said, database_dsn, delivery):
    blocking = Blocking(said, RELEASED)
    served = await serve([*stage.handlers(), *blocking.handlers()], **PACE)
    client = served.client
    bystander = await client.execute(await made(client, step("by", "gate", delivery="AT_MOST_ONCE")))
    await stage.called("by")
    before = await incarnations(database_dsn)
    execution = await client.execute(await made(client, step("b", "blocks", delivery=delivery)))
    found = await ended(client, execution.execution_id)

    if delivery == "AT_MOST_ONCE":
        assert (found.state, found.steps[0].failure.code) == (State.STATE_FAILED, "OUTCOME_UNKNOWN")
    else:
        assert (found.state, flowkeep.from_value(found.steps[0].output)) == (State.STATE_COMPLETED, 2)
    (kept,) = found.steps[0].failed_attempts
    assert (kept.attempt, kept.worker) == (1, found.steps[0].worker)
    assert [entry["execution_id"] for entry in said(RELEASED)] == [execution.execution_id]
    # Its result came, and was nobody's.
    assert blocking.returned[0] == 1
    results = [event.step_completed.attempt for event in await log(client, execution.execution_id)]
    assert 1 not in results

    assert await incarnations(database_dsn) == before
    stage.open("gate")
    kept_on = await ended(client, bystander.execution_id)
    assert (kept_on.state, kept_on.steps[0].attempt) == (State.STATE_COMPLETED, 1)


async def test_nothing_begins_of_what_was_released(serve, said, database_dsn):
    """Both of its steps are about to begin; by the time that the first lets the second go on, others may drive it."""
    blocking = Blocking(said, RELEASED)
    served = await serve(blocking.handlers(), **PACE)
    both = [step(name, "blocks", delivery="AT_MOST_ONCE", depends_on=[]) for name in ("a", "b")]
    execution = await served.client.execute(await made(served.client, *both, ordering="GRAPH"))
    await ended(served.client, execution.execution_id)
    assert said(RELEASED)
    assert blocking.calls.total() == 1


async def test_what_blocks_again_and_again_is_given_up(serve, said, mistakes):
    blocking = Blocking(said, RELEASED, times=100)
    served = await serve(blocking.handlers(), **{**PACE, "lease_ttl": 1.5, "probation": 30.0})
    execution = await served.client.execute(await made(served.client, step("b", "blocks")))
    found = await ended(served.client, execution.execution_id)
    assert (found.state, found.failure.code) == (State.STATE_FAILED, "POISONED")
    assert blocking.calls.total() >= 5  # more where the machine stood still, of which no execution dies
    mistakes.clear()


async def test_a_loop_that_does_not_come_back_loses_the_lease(serve, said, mistakes, stage, database_dsn, monkeypatch):
    """Others go on with all of it while it is blocked; here the same server, when it is not any more."""
    monkeypatch.setattr(leases, "LOST", 2)
    served = await serve([*stage.handlers(), *Blocking(said, ABANDONED).handlers()], **PACE)
    client = served.client
    bystander = await client.execute(await made(client, step("by", "gate")))
    await stage.called("by")
    before = await incarnations(database_dsn)
    await client.execute(await made(client, step("b", "blocks")))
    await stage.called("by", 2)
    assert [entry["seconds"] >= 2 * TTL for entry in said(ABANDONED)] == [True]
    after = await incarnations(database_dsn)
    assert len(after) == len(before) + 1
    stage.open("gate")
    found = await ended(client, bystander.execution_id)
    assert (found.state, found.steps[0].attempt) == (State.STATE_COMPLETED, 2)
    assert [kept.failure.code for kept in found.steps[0].failed_attempts] == ["INTERRUPTED"]
