"""Group commit against a Postgres that refuses, breaks and comes back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest

from persistence import failpoints
from persistence.errors import PersistenceError, QueueFullError, UnavailableError
from persistence.model import Execution, ExecutionState, Message, StepState
from persistence.postgres import PostgresRepository
from persistence.postgres.commit import flush, session, statements, stepwise
from persistence.processes import News
from persistence.transition import CommitResult, Created, Letter
from service.engine.ids import uuid7
from tests.conformance.builders import ORG, SCOPE, step
from tests.integration.postgres_store import PostgresStore, move, opened, settled

COMMITTED, FENCED, UNKNOWN = CommitResult.COMMITTED, CommitResult.FENCED, CommitResult.UNKNOWN


async def test_a_poisoned_one_fails_alone(store: PostgresStore):
    """Refused only by the database: nothing before it looks at how long a path is."""
    rows = await store.put_many(9)
    poison = move(rows[4], 1, steps=[step("x" * 2000)])
    futures = [store.repository.submit(poison if row is rows[4] else move(row, 1)) for row in rows]
    follower = store.repository.submit(move(rows[4], 2))
    new, bad = store.new(), store.new(owner="x" * 300)
    creations = [store.repository.create(new), store.repository.create(bad)]
    answers = await settled(*futures)
    assert isinstance(answers[4], PersistenceError)
    assert not isinstance(answers[4], UnavailableError)
    assert answers[:4] + answers[5:] == [COMMITTED] * 8
    assert await follower is FENCED
    created, refused = await settled(*creations)
    assert isinstance(created, Created)
    assert created.created
    assert isinstance(refused, PersistenceError)
    for row in rows:
        await store.check(row, 1 if row is rows[4] else 2)


async def test_what_came_before_the_poison_is_kept(store: PostgresStore):
    row = await store.put()
    chain = [move(row, 1), move(row, 2), move(row, 3, steps=[step("x" * 2000)]), move(row, 4)]
    answers = await settled(*(store.repository.submit(each) for each in chain))
    assert answers[:2] == [COMMITTED, COMMITTED]
    assert isinstance(answers[2], PersistenceError)
    assert answers[3] is FENCED
    await store.check(row, 3)
    assert await store.repository.submit(move(row, 3)) is COMMITTED


async def test_what_came_before_the_poison_is_told_to_others(store: PostgresStore, monkeypatch: pytest.MonkeyPatch):
    row, to = await store.put(), uuid7()
    told: list[News] = []

    def announce(executions: Iterable[UUID], *, has_work: bool = False, has_mail: bool = False) -> None:
        told.append(News(frozenset(executions), has_work, has_mail))

    monkeypatch.setattr(store.repository._committer, "_announce", announce)
    letter = Letter(to, Message(uuid7(), "CHILD_ENDED", datetime.now(UTC), "test", {}))
    chain = [move(row, 1, letters=[letter]), move(row, 2, steps=[step("x" * 2000)])]
    answers = await settled(*(store.repository.submit(each) for each in chain))
    assert answers[0] is COMMITTED
    assert isinstance(answers[1], PersistenceError)
    assert told == [News(frozenset({row.id})), News(frozenset({to}), has_mail=True)]


async def test_a_fence_drops_the_followers(store: PostgresStore):
    rows = await store.put_many(2)
    other = uuid4()
    await store.admin.execute("UPDATE executions SET incarnation = $1, epoch = 2 WHERE id = $2", other, rows[0].id)
    fenced = [store.repository.submit(move(rows[0], seq)) for seq in range(1, 5)]
    eventless = store.repository.submit(move(rows[0], 1, events=(), steps=()))
    fine = [store.repository.submit(move(rows[1], seq)) for seq in range(1, 5)]
    assert await settled(*fenced, eventless) == [FENCED] * 5
    assert await settled(*fine) == [COMMITTED] * 4
    await store.check(rows[0], 1)
    await store.check(rows[1], 5)


async def test_a_refused_end_keeps_what_came_before(store: PostgresStore):
    row = await store.put()
    await store.repository.request_cancel(SCOPE, row.id, "bob", "enough")
    going_on = move(row, 1)
    end = move(row, 2, state=ExecutionState.COMPLETED, end_time=row.create_time, progress=100)
    assert await settled(store.repository.submit(going_on), store.repository.submit(end)) == [COMMITTED, FENCED]
    await store.check(row, 2)


async def test_a_full_queue_refuses_creations_and_takes_transitions(database_dsn: str, admin: asyncpg.Connection):
    async with opened(database_dsn, admin, max_queue=3) as store:
        rows = await store.put_many(3)
        accepted = [store.repository.create(store.new()) for _ in range(3)]
        with pytest.raises(QueueFullError):
            store.repository.create(store.new())
        assert await settled(*(store.repository.submit(move(row, 1)) for row in rows)) == [COMMITTED] * 3
        assert all(isinstance(made, Created) for made in await settled(*accepted))
        assert await admin.fetchval("SELECT count(*) FROM executions") == 6


async def test_a_caller_that_goes_away_harms_nobody(store: PostgresStore):
    rows = await store.put_many(3)
    futures = [store.repository.submit(move(row, 1)) for row in rows]
    futures[1].cancel()
    assert await futures[0] is COMMITTED
    assert await futures[2] is COMMITTED
    await store.check(rows[1], 2)


async def test_backends_killed_all_the_time_lose_and_double_nothing(database_dsn: str, store: PostgresStore):
    """Chains and creations go on while the backend dies again and again."""
    patient = await PostgresRepository.open(database_dsn, pool_size=2, unknown_timeout=60)
    store = replace(store, repository=patient)
    rows, stop = await store.put_many(20), asyncio.Event()

    async def drive(row: Execution) -> int:
        seq = 1
        while not stop.is_set():
            assert await store.repository.submit(move(row, seq)) is COMMITTED
            seq += 1
        return seq

    async def create() -> int:
        made = 0
        while not stop.is_set():
            assert (await store.repository.create(store.new(request_id=str(uuid4())))).created
            made += 1
        return made

    driving, creating = asyncio.gather(*map(drive, rows)), asyncio.create_task(create())
    killed = 0
    while killed < 8 and not driving.done():
        await asyncio.sleep(random.uniform(0.02, 0.3))
        killed += await store.kill()
    stop.set()
    for row, last_seq in zip(rows, await driving, strict=True):
        await store.check(row, last_seq)
    made = await creating
    assert await store.admin.fetchval("SELECT count(*) FROM executions") == 20 + made
    assert await store.admin.fetchval("SELECT count(*) FROM execution_inputs") == 20 + made
    await patient.close()


class Cut:
    """A connection that is lost right before or right after one of its statements has run."""

    def __init__(self, connection: asyncpg.Connection, statement: str, after: bool):
        self.connection, self.statement, self.after = connection, statement, after

    def __getattr__(self, name: str) -> object:
        return getattr(self.connection, name)

    async def execute(self, query: str, *arguments: object) -> str:
        if not query.strip().startswith(self.statement):
            return str(await self.connection.execute(query, *arguments))
        if self.after:
            await self.connection.execute(query, *arguments)
        self.connection.terminate()
        raise asyncpg.ConnectionDoesNotExistError("cut")


def cut(monkeypatch: pytest.MonkeyPatch, statement: str, after: bool) -> None:
    """Cut the next flush."""
    whole = flush.flush

    async def cut_once(connection: asyncpg.Connection, units: object) -> object:
        monkeypatch.setattr(session, "flush", whole)
        return await whole(Cut(connection, statement, after), units)  # type: ignore[arg-type]

    monkeypatch.setattr(session, "flush", cut_once)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_connection_cut_around_the_one_statement(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch, after: bool
):
    """The usual batch, in which nothing is fenced, is one statement."""
    rows = await store.put_many(20)
    cut(monkeypatch, "WITH", after)
    submitted = [store.repository.submit(move(row, 1)) for row in rows]
    created = [store.repository.create(store.new(request_id=name)) for name in ("one", "two", "")]
    assert await settled(*submitted) == [COMMITTED] * 20
    assert all(isinstance(answer, Created) and answer.created for answer in await settled(*created))
    for row in rows:
        await store.check(row, 2)
    assert await store.admin.fetchval("SELECT count(*) FROM executions") == 23


@pytest.mark.parametrize("name", ["before_begin", "mid_batch", "before_commit", "after_commit_before_ack"])
async def test_a_failpoint_of_a_flush_breaks_the_one_statement(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
):
    monkeypatch.setattr(flush, "write_stepwise", _broken)
    rows = await store.put_many(3)
    failpoints.arm({"FLOWKEEP_FAILPOINTS": f"flush.{name}=unknown@1", "FLOWKEEP_ENVIRONMENT": "test"})
    try:
        assert await settled(*(store.repository.submit(move(row, 1)) for row in rows)) == [COMMITTED] * 3
    finally:
        failpoints.arm({})
    assert caplog.text.count(f"failpoint flush.{name}: unknown") == 1
    for row in rows:
        await store.check(row, 2)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("statement", ["BEGIN", "COMMIT"])
async def test_a_connection_cut_around_the_commit(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch, statement: str, after: bool
):
    going, released, ended, fenced, silent = await store.put_many(5)
    await store.admin.execute("UPDATE executions SET epoch = 2 WHERE id = $1", fenced.id)
    end = {"state": ExecutionState.FAILED, "end_time": going.create_time, "result": {"a": 1}}
    cut(monkeypatch, statement, after)
    new, known = store.new(), store.new(request_id="once")
    submitted = [
        store.repository.submit(move(going, 1)),
        store.repository.submit(move(released, 1, release=True)),
        store.repository.submit(move(ended, 1, **end)),
        store.repository.submit(move(fenced, 1)),
        store.repository.submit(move(silent, 1, events=(), release=True)),
    ]
    created = [store.repository.create(new), store.repository.create(known)]
    assert await settled(*submitted) == [COMMITTED, COMMITTED, COMMITTED, FENCED, COMMITTED]
    for answer in await settled(*created):
        assert isinstance(answer, Created)
        assert answer.created
    for row in (going, released, ended):
        await store.check(row, 2)
    await store.check(silent, 1)
    assert (await store.repository.get_execution(SCOPE, silent.id)).incarnation is None
    assert (await store.repository.get_detail(SCOPE, ended.id)).result == {"a": 1}
    assert not (await store.repository.create(known)).created


async def test_taken_over_before_it_could_be_read_back(store: PostgresStore, monkeypatch: pytest.MonkeyPatch):
    """Another replica claimed the released execution and went on: what was written is still known to be ours."""
    row = await store.put()
    whole = flush.flush

    async def taken_over(connection: asyncpg.Connection, units: object) -> object:
        monkeypatch.setattr(session, "flush", whole)
        await whole(connection, units)  # type: ignore[arg-type]
        claimed = await store.repository.claim_one(store.incarnation, ORG, row.id)
        assert claimed is not None
        await store.admin.execute("UPDATE executions SET last_seq = 5 WHERE id = $1", row.id)
        connection.terminate()
        raise TimeoutError

    monkeypatch.setattr(session, "flush", taken_over)
    assert await store.repository.submit(move(row, 1, release=True)) is COMMITTED


async def test_a_database_that_stays_away_keeps_callers_waiting_for_no_longer_than_promised(
    database_dsn: str, monkeypatch: pytest.MonkeyPatch, store: PostgresStore
):
    repository = await PostgresRepository.open(database_dsn, pool_size=2, unknown_timeout=0.3)
    row = await store.put()
    cut(monkeypatch, "WITH", after=False)

    async def refused(*_: object, **__: object) -> asyncpg.Connection:
        raise ConnectionRefusedError

    monkeypatch.setattr(repository._database, "connect", refused)
    moved, first, later = repository.submit(move(row, 1)), store.new(), store.new()
    in_flight = repository.create(first)
    await asyncio.sleep(0)  # the batch is cut at the end of a turn
    await asyncio.sleep(0)
    behind = repository.create(later)
    answers = await settled(in_flight, behind)
    assert [type(answer) for answer in answers] == [UnavailableError] * 2
    assert not moved.done()  # what was done waits until it can be kept
    monkeypatch.undo()
    assert await moved is COMMITTED
    await store.check(row, 2)
    assert not await store.admin.fetchval("SELECT count(*) FROM executions WHERE id = $1", later.execution.id)
    await repository.close()


async def test_what_shares_a_turn_shares_a_transaction(store: PostgresStore):
    rows = await store.put_many(3)
    late = await store.put()
    futures = [store.repository.submit(move(row, 1)) for row in [*rows, late]]
    created = store.repository.create(store.new())
    await settled(*futures, created)
    transactions = await store.admin.fetch(
        "SELECT DISTINCT xmin::text FROM executions WHERE last_seq = 2 UNION"
        " SELECT DISTINCT xmin::text FROM executions WHERE id = $1",
        (await created).execution.id,
    )
    assert len(transactions) == 1


async def test_a_step_begins_ends_and_is_undone_in_one_transaction(store: PostgresStore):
    row = await store.put()
    states = (StepState.RUNNING, StepState.COMPLETED, StepState.COMPENSATED)
    moves = [move(row, seq, steps=[step("s", state)]) for seq, state in enumerate(states, start=1)]
    assert await settled(*map(store.repository.submit, moves)) == [COMMITTED] * 3
    written = "SELECT count(DISTINCT xmin::text) FROM transitions WHERE execution_id = $1 AND seq > 1"
    assert await store.admin.fetchval(written, row.id) == 1
    assert (await store.read(row)).steps[0].state is StepState.COMPENSATED


async def test_close_writes_what_was_submitted(database_dsn: str, store: PostgresStore):
    repository = await PostgresRepository.open(database_dsn, pool_size=2)
    rows = await store.put_many(50)
    futures = [repository.submit(move(row, 1)) for row in rows]
    await repository.close()
    assert await settled(*futures) == [COMMITTED] * 50
    with pytest.raises(UnavailableError):
        await repository.submit(move(rows[0], 2))


async def test_a_completed_step_is_never_overwritten(store: PostgresStore):
    row = await store.put()
    done = step("s", StepState.COMPLETED, output={"n": 1})
    assert await store.repository.submit(move(row, 1, steps=[done])) is COMMITTED
    with pytest.raises(PersistenceError, match="never overwritten"):
        await store.repository.submit(move(row, 2, steps=[step("s", StepState.FAILED)]))
    assert (await store.repository.get_detail(SCOPE, row.id)).steps == (done,)


async def test_rows_are_found_by_primary_key_alone(database_dsn: str):
    """Also in a new month, of which Postgres has no statistics: any other index means reading all of the org."""
    connection = await asyncpg.connect(database_dsn, server_settings=session.SETTINGS)
    await connection.execute(f"PREPARE one (jsonb) AS {statements.UPDATE_EXECUTIONS.text}")
    plan = "\n".join(row[0] for row in await connection.fetch("EXPLAIN EXECUTE one ('[]')"))
    parts = await connection.fetchval("SELECT count(*) FROM pg_inherits WHERE inhparent = 'executions'::regclass")
    await connection.close()
    scans = [line for line in plan.splitlines() if " Scan " in line and "jsonb_array_elements" not in line]
    assert len(scans) == parts
    assert all("Index Scan using" in line and "_pkey on" in line for line in scans), plan


async def test_after_an_error_of_our_own_nothing_is_acknowledged_that_is_not_kept(store: PostgresStore, monkeypatch):
    """Whatever went wrong in a transaction, the next one is not written inside of it."""
    broken, other = await store.put_many(2)
    with monkeypatch.context() as patched:
        patched.setattr(flush, "write_single", _never)
        patched.setattr(stepwise, "_write_steps", _broken)
        assert await store.repository.submit(move(broken, 1)) is UNKNOWN
    assert await store.repository.submit(move(other, 1)) is COMMITTED
    assert await store.admin.fetchval("SELECT last_seq FROM executions WHERE id = $1", other.id) == 2
    await store.check(broken, 1)


async def _never(*_: object) -> None:
    """Leave it to a transaction of several statements."""


async def _broken(*_: object) -> None:
    raise KeyError("a state that nobody knows yet")


async def test_each_statement_as_the_file_shows_it_can_be_explained(database_dsn: str):
    connection = await asyncpg.connect(database_dsn)
    shown = Path(statements.__file__).with_suffix(".sql").read_text().split(";\n\n")
    assert len(shown) == len(statements.named())
    if connection.get_server_version().major >= 16:
        for each in shown:
            assert await connection.execute(f"EXPLAIN (GENERIC_PLAN) {each}") == "EXPLAIN", each
    await connection.close()
