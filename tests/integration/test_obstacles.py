"""One execution that cannot be written is its own trouble: everything else goes on, whatever is in its way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence

import asyncpg
import pytest
import pytest_asyncio

from persistence.errors import UnavailableError
from persistence.model import Execution
from persistence.postgres import PostgresRepository
from persistence.postgres.commit import flush, session
from persistence.postgres.commit.units import Unit
from persistence.transition import CommitResult, Created
from tests.conformance.builders import step
from tests.integration.postgres_store import PostgresStore, move, settled
from tests.patience import PATIENCE

COMMITTED, UNKNOWN = CommitResult.COMMITTED, CommitResult.UNKNOWN
_LOCK = "SELECT FROM executions WHERE id = $1 FOR UPDATE"
_FAIL = "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS"


@pytest_asyncio.fixture
async def endless(database_dsn: str, store: PostgresStore) -> AsyncIterator[PostgresRepository]:
    """A store that never gives a write up as unknown."""
    repository = await PostgresRepository.open(database_dsn, pool_size=2, unknown_timeout=PATIENCE)
    yield repository
    await repository.close()


async def poison(store: PostgresStore, row: Execution, state: str) -> None:
    """Let every change of the execution fail with this error."""
    await store.admin.execute(
        f"{_FAIL} $$ BEGIN"
        f" IF NEW.id = '{row.id}' THEN RAISE EXCEPTION 'it fails' USING ERRCODE = '{state}'; END IF;"
        f" RETURN NEW; END $$"
    )
    await store.admin.execute("CREATE TRIGGER fail BEFORE UPDATE ON executions FOR EACH ROW EXECUTE FUNCTION fail()")


async def let_through(store: PostgresStore) -> None:
    """Let no change fail any more; dropping the trigger could end in a deadlock with what is written meanwhile."""
    await store.admin.execute(f"{_FAIL} $$ BEGIN RETURN NEW; END $$")


async def drive(repository: PostgresRepository, row: Execution, times: int) -> None:
    for seq in range(1, times + 1):
        assert await repository.submit(move(row, seq)) is COMMITTED


async def test_while_rows_are_locked_everything_else_is_written(store: PostgresStore, endless: PostgresRepository):
    """The locks are let go only after all the others have settled, so none of them can have waited for one."""
    rows = await store.put_many(40)
    locked, others = rows[5:8], rows[:5] + rows[8:]
    async with asyncio.timeout(PATIENCE), store.admin.transaction():
        for row in locked:
            await store.admin.execute(_LOCK, row.id)
        held = [endless.submit(move(row, seq)) for row in locked for seq in (1, 2, 3)]
        async with asyncio.TaskGroup() as group:
            for row in others:
                group.create_task(drive(endless, row, 8))
            created = [group.create_task(_create(endless, store)) for _ in range(5)]
        assert all(task.result().created for task in created)
        assert not any(future.done() for future in held)
    assert await settled(*held) == [COMMITTED] * 9
    for row in locked:
        await store.check(row, 4)
    for row in others:
        await store.check(row, 9)


async def _create(repository: PostgresRepository, store: PostgresStore) -> Created:
    return await repository.create(store.new())


async def test_a_locked_row_is_unknown_when_others_could_be_written(database_dsn: str, store: PostgresStore):
    rows = await store.put_many(5)
    locked = rows[2]
    repository = await PostgresRepository.open(database_dsn, pool_size=2, unknown_timeout=0.3)
    async with store.admin.transaction():
        await store.admin.execute(_LOCK, locked.id)
        futures = [*(repository.submit(move(row, 1)) for row in rows), repository.submit(move(locked, 2))]
        assert await settled(*futures) == [COMMITTED, COMMITTED, UNKNOWN, COMMITTED, COMMITTED, UNKNOWN]
    assert await repository.submit(move(locked, 1)) is COMMITTED
    await store.check(locked, 2)
    await repository.close()


async def test_creations_of_a_workflow_that_somebody_locks_hold_up_no_other(
    store: PostgresStore, endless: PostgresRepository
):
    row = await store.put()
    async with asyncio.timeout(PATIENCE), store.admin.transaction():
        await store.admin.execute("SELECT FROM workflows WHERE id = $1 FOR UPDATE", store.workflow.id)
        waiting = endless.create(store.new())
        await drive(endless, row, 8)
        assert not waiting.done()
    assert (await waiting).created


@pytest.mark.parametrize("state", ["XX001", "53200", "58030", "40P01", "55P03"])
async def test_an_execution_that_always_fails_blocks_no_other(database_dsn: str, store: PostgresStore, state: str):
    rows = await store.put_many(20)
    await poison(store, rows[3], state)
    repository = await PostgresRepository.open(database_dsn, pool_size=2, unknown_timeout=1.0)
    async with asyncio.timeout(PATIENCE):
        stuck, behind = repository.submit(move(rows[3], 1)), repository.submit(move(rows[3], 2))
        async with asyncio.TaskGroup() as group:
            for row in rows:
                if row is not rows[3]:
                    group.create_task(drive(repository, row, 5))
        assert await stuck is UNKNOWN
        assert await behind is UNKNOWN
    await store.check(rows[3], 1)
    await let_through(store)
    assert await repository.submit(move(rows[3], 1)) is COMMITTED
    await repository.close()


async def test_what_nothing_can_be_written_beside_is_waited_for(database_dsn: str, store: PostgresStore):
    """A full disk is no reason to give up what was done."""
    rows = await store.put_many(20)
    repository = await PostgresRepository.open(database_dsn, pool_size=2, unknown_timeout=0.2)
    full = "RAISE EXCEPTION 'no space' USING ERRCODE = '53100';"
    await store.admin.execute(f"{_FAIL} $$ BEGIN IF TG_OP = 'UPDATE' THEN {full} END IF; RETURN NEW; END $$")
    await store.admin.execute(
        "CREATE TRIGGER fail BEFORE UPDATE OR INSERT ON executions FOR EACH ROW EXECUTE FUNCTION fail()"
    )
    moved = [repository.submit(move(row, 1)) for row in rows]
    with pytest.raises(UnavailableError):  # what an answer was promised for gets one
        while True:
            await repository.create(store.new())
            await store.admin.execute(f"{_FAIL} $$ BEGIN {full} END $$")
    assert not any(each.done() for each in moved)
    await let_through(store)
    assert await settled(*moved) == [COMMITTED] * 20
    await repository.close()


async def test_an_unforeseen_error_ends_no_loop(store: PostgresStore, monkeypatch: pytest.MonkeyPatch):
    rows = await store.put_many(2)
    committer = store.repository._committer
    whole = committer._resolve

    def broken(*_: object) -> None:
        monkeypatch.setattr(committer, "_resolve", whole)
        raise ZeroDivisionError

    monkeypatch.setattr(committer, "_resolve", broken)
    futures = [store.repository.submit(move(row, 1)) for row in rows]
    assert await settled(*futures) == [UNKNOWN, UNKNOWN]
    assert await settled(*(store.repository.submit(move(row, 2)) for row in rows)) == [COMMITTED, COMMITTED]
    for row in rows:
        await store.check(row, 3)


async def test_a_transport_that_is_closed_is_a_lost_connection(store: PostgresStore, monkeypatch: pytest.MonkeyPatch):
    row = await store.put()
    whole = flush.flush

    async def broken(connection: asyncpg.Connection, units: Sequence[Unit]) -> Mapping[Unit, object]:
        monkeypatch.setattr(session, "flush", whole)
        await whole(connection, units)
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    monkeypatch.setattr(session, "flush", broken)
    assert await store.repository.submit(move(row, 1)) is COMMITTED
    await store.check(row, 2)


async def test_what_was_read_back_is_not_written_again_beside_poison(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
):
    kept, refused = await store.put_many(2)
    whole = flush.flush

    async def lost(connection: asyncpg.Connection, units: Sequence[Unit]) -> Mapping[Unit, object]:
        monkeypatch.setattr(session, "flush", whole)
        await whole(connection, [unit for unit in units if unit.execution_id == kept.id])
        raise ConnectionResetError

    monkeypatch.setattr(session, "flush", lost)
    await store.admin.execute("ALTER TABLE steps ADD CHECK (path <> 'bad') NOT VALID")
    bad = move(refused, 1, steps=[step("bad")])
    futures = [store.repository.submit(move(kept, 1)), store.repository.submit(bad)]
    answers = await settled(*futures)
    assert answers[0] is COMMITTED
    assert "refused" in str(answers[1])
    await store.check(kept, 2)


async def test_closing_counts_all_that_is_unknown(
    database_dsn: str, store: PostgresStore, caplog: pytest.LogCaptureFixture
):
    rows = await store.put_many(3)
    repository = await PostgresRepository.open(database_dsn, pool_size=2)
    async with store.admin.transaction():
        for row in rows:
            await store.admin.execute(_LOCK, row.id)
        futures = [repository.submit(move(row, 1)) for row in rows]
        with caplog.at_level(logging.ERROR):
            await repository._committer.close(timeout=0.1)
        assert await settled(*futures) == [UNKNOWN] * 3
    assert "closing with 3 writes unknown" in caplog.text
    await repository.close()
