"""Who takes what from whom, when connections break and rows are locked at the wrong moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from persistence import failpoints
from persistence.errors import PersistenceError, UnavailableError
from persistence.postgres import claims
from persistence.transition import CommitResult
from tests.conformance.builders import ORG, SCOPE, ids, until
from tests.integration.postgres_store import PostgresStore, move

_LOCK = "SELECT FROM executions WHERE id = $1 FOR UPDATE"


@pytest_asyncio.fixture
async def second(database_dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """One more connection that looks behind the store."""
    connection = await asyncpg.connect(database_dsn)
    yield connection
    await connection.close()


async def fail_to_claim(store: PostgresStore) -> None:
    """Give up all and claim it again, but lose the answer."""
    await store.repository.release(store.incarnation)
    failpoints.arm({failpoints.SETTING: "claim.after_commit_before_start=raise@1", failpoints.ENVIRONMENT: "test"})
    try:
        with pytest.raises(UnavailableError):
            await store.repository.claim(store.incarnation, 10)
    finally:
        failpoints.arm({})


async def test_one_locked_row_keeps_no_other_from_being_handed_over(store: PostgresStore):
    rows = await store.put_many(20)
    other = uuid4()
    await store.repository.register(other, "other", 300)
    async with store.admin.transaction():
        await store.admin.execute(_LOCK, rows[3].id)
        assert await store.repository.release(store.incarnation, [row.id for row in rows[:5]]) == 4
        await store.repository.retire(store.incarnation)
        assert await store.repository.renew(store.incarnation, 300) is None
        taken = await store.repository.claim(other, 100)
        assert set(ids(taken)) == {row.id for row in rows} - {rows[3].id}
        assert {detail.execution.deaths for detail in taken} == {0}
    assert ids(await store.repository.claim(other, 100)) == [rows[3].id]


async def test_the_lease_ends_even_if_nothing_can_be_given_up(store: PostgresStore):
    row = await store.put()
    await store.admin.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'no space' USING ERRCODE = '53100'; END $$"
    )
    await store.admin.execute("CREATE TRIGGER fail BEFORE UPDATE ON executions FOR EACH ROW EXECUTE FUNCTION fail()")
    with pytest.raises(UnavailableError):
        await store.repository.retire(store.incarnation)
    assert await store.repository.renew(store.incarnation, 300) is None
    await store.admin.execute("DROP TRIGGER fail ON executions")
    other = uuid4()
    await store.repository.register(other, "other", 300)
    assert ids(await store.repository.claim(other, 10)) == [row.id]


async def test_what_a_failed_claim_left_is_not_taken_from_who_drives_it_by_now(store: PostgresStore):
    row = await store.put()
    await fail_to_claim(store)
    assert await store.repository.undriven(store.incarnation, []) == [row.id]
    detail = await store.repository.load(store.incarnation, row.id)
    assert detail is not None
    assert await store.repository.submit(move(detail.execution, 1)) is CommitResult.COMMITTED
    assert await store.repository.claim_one(store.incarnation, ORG, uuid4()) is None
    assert not await store.repository.claim(store.incarnation, 10)
    assert await store.repository.submit(move(detail.execution, 2)) is CommitResult.COMMITTED
    assert (await store.repository.get_execution(SCOPE, row.id)).incarnation == store.incarnation


@pytest.mark.parametrize("is_answered", [True, False])
async def test_what_was_loaded_while_a_claim_was_on_its_way_stays_with_who_loaded_it(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch, is_answered: bool
):
    row = await store.put()
    await store.repository.release(store.incarnation)
    committed, goes_on = asyncio.Event(), asyncio.Event()

    async def reach(name: str) -> None:
        if name == "claim.after_commit_before_start":
            committed.set()
            await goes_on.wait()
            if not is_answered:
                raise UnavailableError("the answer was lost")

    with monkeypatch.context() as patched:
        patched.setattr(failpoints, "reach", reach)
        claiming = asyncio.create_task(store.repository.claim(store.incarnation, 10))
        await committed.wait()
        detail = await store.repository.load(store.incarnation, row.id)
        assert detail is not None
        goes_on.set()
        if is_answered:
            assert await claiming == []
        else:
            with pytest.raises(UnavailableError):
                await claiming
    assert not await store.repository.claim(store.incarnation, 10)
    assert await store.repository.submit(move(detail.execution, 1)) is CommitResult.COMMITTED


async def test_what_a_failed_claim_left_is_given_up_by_the_next(store: PostgresStore):
    row = await store.put()
    await fail_to_claim(store)
    [detail] = await store.repository.claim(store.incarnation, 10)
    assert (detail.execution.id, detail.execution.epoch, detail.execution.deaths) == (row.id, 3, 0)


async def test_a_locked_row_that_a_failed_claim_left_stops_no_other_claim(store: PostgresStore):
    locked, other = await store.put_many(2)
    await fail_to_claim(store)
    async with store.admin.transaction():
        await store.admin.execute(_LOCK, locked.id)
        assert ids(await store.repository.claim(store.incarnation, 10)) == [other.id]
    assert ids(await store.repository.claim(store.incarnation, 10)) == [locked.id]


async def test_who_renews_while_a_claim_looks_is_not_robbed(store: PostgresStore, second: asyncpg.Connection):
    """The claim sees the lease that was; its successor is not committed yet, or was after the claim began to look."""
    victim, other = uuid4(), uuid4()
    await store.repository.register(victim, "victim", 300)
    await store.repository.register(other, "other", 300)
    row = await store.put()
    await store.admin.execute("UPDATE executions SET incarnation = $1", victim)
    ends = "UPDATE replicas SET lease_until = clock_timestamp() WHERE incarnation = $1"
    await store.admin.execute(ends, victim)
    async with second.transaction():
        await second.execute(
            "UPDATE replicas SET lease_until = clock_timestamp() + interval '300 s' WHERE incarnation = $1", victim
        )
        assert not await store.repository.claim(other, 10)
    assert not await store.repository.claim(other, 10)
    assert (await store.repository.get_execution(SCOPE, row.id)).incarnation == victim
    await store.admin.execute(ends, victim)
    [detail] = await store.repository.claim(other, 10)
    assert (detail.execution.id, detail.execution.deaths) == (row.id, 1)


async def test_who_renewed_after_a_claim_began_is_not_robbed(
    patient: PostgresStore, second: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
):
    """A gate in the statement, after its snapshot, holds the claim until the renewal is committed."""
    victim, other = uuid4(), uuid4()
    await patient.repository.register(victim, "victim", 300)
    await patient.repository.register(other, "other", 300)
    row = await patient.put()
    await patient.admin.execute("UPDATE executions SET incarnation = $1", victim)
    await patient.admin.execute("UPDATE replicas SET lease_until = clock_timestamp() WHERE incarnation = $1", victim)
    gate = "gate AS MATERIALIZED (SELECT pg_advisory_xact_lock(7)),\nended AS MATERIALIZED ("
    gated = claims._CLAIM.replace("ended AS MATERIALIZED (", gate, 1).replace(
        "FROM owners o JOIN replicas", "FROM gate, owners o JOIN replicas", 1
    )
    assert gated.count("gate") == 2
    monkeypatch.setattr(claims, "_CLAIM", gated)
    async with second.transaction():
        await second.execute("SELECT pg_advisory_xact_lock(7)")
        claiming = asyncio.create_task(patient.repository.claim(other, 10))
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        await until(lambda: patient.admin.fetchval(waits))
        await patient.admin.execute(
            "UPDATE replicas SET lease_until = clock_timestamp() + interval '300 s' WHERE incarnation = $1", victim
        )
    assert not await claiming
    assert (await patient.repository.get_execution(SCOPE, row.id)).deaths == 0


async def test_a_claim_that_takes_too_many_takes_none(store: PostgresStore, monkeypatch: pytest.MonkeyPatch):
    rows = await store.put_many(5)
    await store.repository.release(store.incarnation)
    monkeypatch.setattr(claims, "_CLAIM", claims._CLAIM.replace("LIMIT $2)\n    UNION", "LIMIT 2 * $2)\n    UNION"))
    monkeypatch.setattr(claims, "_CLAIM", claims._CLAIM.replace("t.id LIMIT $2 FOR", "t.id LIMIT 2 * $2 FOR"))
    with pytest.raises(PersistenceError, match="rolled back"):
        await store.repository.claim(store.incarnation, 2)
    monkeypatch.undo()
    assert set(ids(await store.repository.claim(store.incarnation, 10))) == {row.id for row in rows}


@pytest.mark.parametrize(("ttl", "limit"), [(1.0, "250ms"), (2.0, "500ms"), (60.0, "2s"), (0.1, "100ms")])
async def test_the_server_gives_a_renewal_no_more_than_its_share_of_the_lease(
    store: PostgresStore, ttl: float, limit: str
):
    async def limits() -> list[str] | None:
        try:
            await store.repository.renew(store.incarnation, ttl)
            reserved = store.repository._database._reserved
            assert reserved is not None
            return [await reserved.fetchval(f"SHOW {name}") for name in ("statement_timeout", "lock_timeout")]
        except (PersistenceError, asyncpg.PostgresError):
            return None  # a busy machine needs longer than that for it

    assert await until(limits) == [limit] * 2


async def test_a_call_that_is_cancelled_ends_as_cancelled(patient: PostgresStore):
    async with patient.admin.transaction():
        await patient.admin.execute("LOCK TABLE executions")
        reading = asyncio.create_task(patient.repository.undriven(patient.incarnation, []))
        await until(lambda: patient.admin.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        reading.cancel()
        await asyncio.wait([reading])
    assert reading.cancelled()
    assert not await patient.repository.undriven(patient.incarnation, [])


async def test_a_connection_that_breaks_is_the_store_that_cannot_be_reached(patient: PostgresStore):
    async with patient.admin.transaction():
        await patient.admin.execute("LOCK TABLE executions")
        reading = asyncio.create_task(patient.repository.undriven(patient.incarnation, []))
        waiting = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE NOT granted"
        await until(lambda: patient.admin.fetchval(waiting))
        with pytest.raises(UnavailableError):
            await reading
    assert not await patient.repository.undriven(patient.incarnation, [])
