"""What the store says of a crash, and that nothing is acknowledged which one could take."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from persistence.errors import UnavailableError
from persistence.model import Execution
from persistence.transition import CommitResult
from tests.conformance.builders import ORG, SCOPE, until
from tests.integration.postgres_store import PostgresStore, move, opened

_WAITING = (
    "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity"
    " WHERE wait_event = 'SyncRep' AND datname = current_database() AND application_name = $1"
)


@pytest_asyncio.fixture
async def row(store: PostgresStore) -> Execution:
    """An execution of the time before."""
    return await store.put()


async def wait_until_commits_wait(admin: asyncpg.Connection, dsn: str) -> None:
    """Return when a commit waits for the standby: the checkpointer tells all, after each has read the setting."""
    probe = await asyncpg.connect(dsn, server_settings={"application_name": "probe"})
    heard: list[object] = []
    probe.add_log_listener(lambda _, message: heard.append(message))

    async def is_seen() -> bool:
        return bool(await admin.fetchval(_WAITING, "probe")) or committing.done()

    has_waited = False
    while not has_waited:
        before = len(heard)
        committing = asyncio.create_task(probe.execute("SELECT pg_logical_emit_message(true, 'probe', '')"))
        await until(is_seen)
        await committing
        has_waited = len(heard) > before
    await probe.close()


@pytest_asyncio.fixture
async def alone(store: PostgresStore, row: Execution, database_dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A primary whose standby has gone."""
    await store.admin.execute("SET synchronous_commit = local")
    await store.admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'gone'")
    await store.admin.execute("SELECT pg_reload_conf()")
    try:
        await until(lambda: store.admin.fetchval("SELECT current_setting('synchronous_standby_names') = 'gone'"))
        await wait_until_commits_wait(store.admin, database_dsn)
        yield store.admin
    finally:
        await store.admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await store.admin.execute("SELECT pg_reload_conf()")


async def test_a_wish_that_no_standby_has_is_not_acknowledged(
    store: PostgresStore, row: Execution, alone: asyncpg.Connection
):
    asking = asyncio.create_task(store.repository.request_cancel(SCOPE, row.id, "ann", "enough"))
    await until(lambda: alone.fetchval(_WAITING, "flowkeep"))
    with pytest.raises(UnavailableError, match="standby"):
        await asking
    assert (await store.repository.get_execution(SCOPE, row.id)).mail == 1


async def test_a_transition_that_no_standby_has_is_unknown(
    store: PostgresStore, row: Execution, alone: asyncpg.Connection
):
    moving = store.repository.submit(move(row, 1))
    await until(lambda: alone.fetchval(_WAITING, "flowkeep committer"))
    assert await moving is CommitResult.UNKNOWN
    await store.check(row, 2)


async def test_what_is_found_after_a_lost_answer_is_confirmed_too(store: PostgresStore, alone: asyncpg.Connection):
    """The commit waits for the standby when its connection is lost; Postgres has it all the same."""
    new = store.new()
    creating = store.repository.create(new)
    await until(lambda: alone.fetchval(_WAITING.replace("cancel", "terminate"), "flowkeep committer"))
    await until(lambda: alone.fetchval(_WAITING, "flowkeep committer"))
    with pytest.raises(UnavailableError):
        await creating
    assert (await store.repository.get_execution(SCOPE, new.execution.id)).last_seq == 1


async def test_who_asks_again_is_not_told_of_what_no_standby_has(
    store: PostgresStore, row: Execution, alone: asyncpg.Connection
):
    new = store.new(request_id="again")
    creating = store.repository.create(new)
    await until(lambda: alone.fetchval(_WAITING, "flowkeep committer"))
    with pytest.raises(UnavailableError):
        await creating
    for ask in (
        lambda: store.repository.request_cancel(SCOPE, row.id, "ann", "enough"),
        lambda: store.repository.request_cancel(SCOPE, row.id, "ann", "enough"),
        lambda: store.repository.find_request(ORG, "again", [new.content_hash]),
    ):
        asking = asyncio.create_task(ask())
        await until(lambda: alone.fetchval(_WAITING, "flowkeep"))
        with pytest.raises(UnavailableError, match="standby"):
            await asking


async def test_it_is_told_whether_a_crash_loses_anything(
    database_dsn: str, admin: asyncpg.Connection, caplog: pytest.LogCaptureFixture
):
    """The server of the tests does without."""
    with caplog.at_level(logging.INFO):
        async with opened(database_dsn, admin):
            pass
    [record] = [record for record in caplog.records if "fsync" in record.getMessage()]
    assert record.levelno == logging.WARNING
    assert "fsync = off, full_page_writes = off, synchronous_commit = on" in record.getMessage()
