"""Bugs of FAULTS that only a real Postgres shows: each check is green for the product and red for its bug."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from functools import partial
from types import ModuleType
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from persistence.errors import CursorExpiredError
from persistence.postgres import PostgresRepository, claims, replicas
from persistence.postgres.commit import statements
from persistence.postgres.commit.statements import INSERT_HISTORY, Statement, single
from service.engine.ids import uuid7
from tests.conformance.builders import ORG, SCOPE, Keeper, document, transition, until
from tests.patience import PATIENCE


@pytest_asyncio.fixture
async def keeper(database_dsn: str) -> AsyncIterator[Keeper]:
    """Executions of a process whose lease outlives the test."""
    repository = await PostgresRepository.open(database_dsn, command_timeout=PATIENCE)
    workflow = await repository.create_workflow(ORG, uuid7(), document(), "ann")
    incarnation = uuid4()
    await repository.register(incarnation, "replica", 300)
    yield Keeper(repository, workflow, incarnation)
    await repository.close()


def restate(patch: pytest.MonkeyPatch, module: ModuleType, name: str, old: str, new: str) -> None:
    """Change the text of a statement, in which `old` must stand."""
    before = getattr(module, name)
    assert old in before
    patch.setattr(module, name, before.replace(old, new))


@pytest.fixture
def m3(monkeypatch: pytest.MonkeyPatch) -> None:
    """M3: `now()`, when the transaction began, instead of the time itself in leases and claims."""
    for module, names in ((claims, ("_CLAIM", "_CLAIM_ONE")), (replicas, ("_LEASE", "_REGISTER", "_RENEW"))):
        for name in names:
            restate(monkeypatch, module, name, "clock_timestamp()", "now()")


@pytest.fixture
def m7(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """M7: events are numbered by one sequence for all executions."""
    told = INSERT_HISTORY.template
    changed, count = re.subn(r"\(r->>\d+\)::int8 AS seq", "nextval('everything') AS seq", told)
    assert count == 1
    monkeypatch.setattr(statements, "INSERT_HISTORY", Statement(changed))
    single.cache_clear()
    assert changed in single(creates=True, shares=True).template
    yield
    single.cache_clear()


async def claims_without_lease(
    keeper: Keeper, admin: asyncpg.Connection[asyncpg.Record], patch: pytest.MonkeyPatch
) -> list[str]:
    """I9: a claim comes to its point when the lease of its process is over, and must take nothing then."""
    dying, store, free = uuid4(), keeper.repository, await keeper.put_free()
    await store.register(dying, "dying", 300)
    # As on a slow way to Postgres, the transaction stands still between its beginning and the claim itself.
    patch.setattr(claims, "_NESTED", "SELECT pg_advisory_xact_lock(1)")
    async with admin.transaction():
        await admin.execute("SELECT pg_advisory_xact_lock(1)")
        claiming = asyncio.create_task(store.claim(dying, 10))
        await until(partial(_is_waiting, admin))
        await admin.execute("UPDATE replicas SET lease_until = clock_timestamp() WHERE incarnation = $1", dying)
    return [
        f"I9: {each.execution.id} was taken without a lease" for each in await claiming if each.execution.id == free.id
    ]


async def _is_waiting(admin: asyncpg.Connection[asyncpg.Record]) -> bool:
    waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"
    return bool(await admin.fetchval(waiting))


async def test_nobody_takes_an_execution_without_a_lease(
    keeper: Keeper, admin: asyncpg.Connection[asyncpg.Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not await claims_without_lease(keeper, admin, monkeypatch)


@pytest.mark.usefixtures("m3")
async def test_m3_turns_its_oracle_red(
    keeper: Keeper, admin: asyncpg.Connection[asyncpg.Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await claims_without_lease(keeper, admin, monkeypatch)


async def gaps(keeper: Keeper) -> list[str]:
    """I3, W3: however executions take turns, the events of each are 1 to n."""
    rows = [await keeper.put(), await keeper.put()]
    for _ in range(3):
        rows = [await keeper.commit(transition(row, 2)) for row in rows]
    found = []
    for row in rows:
        try:
            seqs = [event.seq for event in await keeper.repository.read_events(SCOPE, row.id, 0, 100)]
        except CursorExpiredError as error:
            found.append(f"W3: the first event of {row.id} is said to be {error.oldest_seq}")
        else:
            found += [f"I3: the events of {row.id} are {seqs}"] * (seqs != list(range(1, row.last_seq + 1)))
    return found


async def test_every_execution_has_numbers_of_its_own(keeper: Keeper) -> None:
    assert not await gaps(keeper)


@pytest.mark.usefixtures("m7")
async def test_m7_turns_its_oracle_red(keeper: Keeper, admin: asyncpg.Connection[asyncpg.Record]) -> None:
    await admin.execute("CREATE SEQUENCE everything INCREMENT 2")  # as many events as a row has
    assert len(await gaps(keeper)) == 2
