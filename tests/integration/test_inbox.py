"""The inbox on Postgres: which locks are taken in which order, and what becomes of what nobody reads."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from persistence.errors import ExecutionFinishedError, PersistenceError
from persistence.journal import MAIL_AT_ONCE
from persistence.model import ExecutionState, MessageKind
from persistence.postgres import messages
from persistence.postgres.inspection import inspect
from persistence.requests import Method, Request
from persistence.transition import CommitResult, Letter
from service.cli import checkup
from service.config import Config
from service.engine.ids import uuid7
from tests.conformance.builders import ORG, SCOPE, document, ending, in_seconds, outcome, until
from tests.conformance.journal.test_mail import send, told
from tests.integration.postgres_store import PostgresStore, move, settled

_WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"
_KEEP = """
INSERT INTO requests (org_id, request_id, method, content_hash, create_time)
VALUES ($1, $2, 'CANCEL', '', clock_timestamp())"""


async def test_a_flush_locks_executions_after_its_request_ids(patient: PostgresStore) -> None:
    """As whoever cancels does: else the two would wait for each other."""
    row = await patient.put()
    canceller = patient.admin.transaction()
    await canceller.start()
    await patient.admin.execute(_KEEP, ORG, "r")
    created = patient.repository.create(patient.new(request_id="r"))
    moved = patient.repository.submit(move(row, 1))
    await until(lambda: patient.admin.fetchval(_WAITING))
    await patient.admin.execute("SELECT FROM executions WHERE id = $1 FOR UPDATE NOWAIT", row.id)
    await canceller.rollback()
    made, result = await settled(created, moved)
    assert (made.created, result) == (True, CommitResult.COMMITTED)


async def test_a_cancel_waits_for_the_owner_and_judges_what_that_leaves(patient: PostgresStore) -> None:
    """Its statement began before the end was committed, and does not go by what it saw then."""
    row = await patient.put()
    async with patient.admin.transaction():
        await patient.admin.execute(
            "UPDATE executions SET state = 'CANCELLING', ending = '{\"state\": \"CANCELLED\"}' WHERE id = $1", row.id
        )
        asking = asyncio.create_task(patient.repository.request_cancel(SCOPE, row.id, "ann", ""))
        await until(lambda: patient.admin.fetchval(_WAITING))
    posted = await asking
    assert (posted.message, posted.execution.mail) == (None, 0)
    assert await patient.admin.fetchval("SELECT count(*) FROM messages") == 0


async def test_what_was_sent_to_what_had_ended_is_removed_batch_by_batch(store: PostgresStore) -> None:
    row, ended, other = await store.put(), await store.put_ended(), await store.put()
    letters = [Letter(ended.id, told()) for _ in range(5)]
    await store.commit(move(row, 1, letters=[*letters, Letter(other.id, told())]))
    await store.repository.reap(3)
    assert await store.admin.fetchval("SELECT count(*) FROM messages") == 3
    await store.repository.reap(3)
    assert await store.admin.fetchval("SELECT array_agg(execution_id) FROM messages") == [other.id]


async def test_of_very_many_messages_some_are_delivered_first(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = await store.put()
    letters = [Letter(row.id, told()) for _ in range(7)]
    await store.commit(move(await store.put(), 1, letters=letters))
    _deliver_at_once(4, monkeypatch)
    [mail] = await store.repository.deliver(store.incarnation)
    assert len(mail.messages) == 4
    await store.commit(move(row, 1, consumed=[message.id for message in mail.messages]))
    [mail] = await store.repository.deliver(store.incarnation)
    assert len(mail.messages) == 3


async def test_those_that_sleep_keep_no_mail_from_who_runs(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asleep = [await store.put(incarnation=None, wake_time=in_seconds(3600)) for _ in range(5)]
    row = await store.put()
    letters = [Letter(each.id, told()) for each in (*asleep, row)]
    await store.commit(move(await store.put(), 1, letters=letters))
    _deliver_at_once(2, monkeypatch)
    found = [mail.execution_id for mail in await store.repository.deliver(store.incarnation)]
    assert found == [*(each.id for each in asleep), row.id]
    assert not await store.admin.fetchval("SELECT count(*) FROM executions WHERE wake_time > now()")


async def test_who_is_woken_is_locked_in_the_order_of_ids(patient: PostgresStore) -> None:
    """Whatever the orgs: else two who wake the same would wait for each other."""
    theirs = replace(patient, workflow=await patient.repository.create_workflow("zeta", uuid7(), document(), "eve"))
    first = await theirs.put_free(wake_time=in_seconds(3600))
    second = await patient.put_free(wake_time=in_seconds(3600))
    assert first.id < second.id and first.org > second.org
    await send(theirs, first, told())
    await send(patient, second, told())
    lock = "SELECT FROM executions WHERE id = $1 FOR UPDATE NOWAIT"
    async with patient.admin.transaction():
        await patient.admin.execute(lock, first.id)
        delivering = asyncio.create_task(patient.repository.deliver(patient.incarnation))
        await until(lambda: patient.admin.fetchval(_WAITING))
        await patient.admin.execute(lock, second.id)
    await delivering
    assert not await patient.admin.fetchval("SELECT count(*) FROM executions WHERE wake_time > clock_timestamp()")


@pytest.mark.parametrize("state", [ExecutionState.COMPLETED, ExecutionState.CANCELLED])
async def test_a_cancel_tells_how_what_nobody_can_read_has_ended(
    store: PostgresStore, state: ExecutionState, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = await store.put_ended(state)
    monkeypatch.setattr(store.repository, "_cancel_at_once", _fail_to_read)
    for request in (None, Request("r", Method.CANCEL, b"same")):
        found = await outcome(store.repository.request_cancel(SCOPE, row.id, "ann", "", request))
        if state is ExecutionState.CANCELLED:
            assert found.message is None
        else:
            assert isinstance(found, ExecutionFinishedError)
            assert (found.execution_id, found.state) == (row.id, state)
    kept = await store.admin.fetchval("SELECT count(*) FROM requests WHERE request_id = 'r'")
    assert kept == (state is ExecutionState.CANCELLED)


async def test_what_is_asked_every_second_starts_no_workers(store: PostgresStore) -> None:
    async with store.repository._database.session() as session:
        for cost in ("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size"):
            await session.execute(f"SET {cost} = 0")
        plan = await session.fetch(f"EXPLAIN {messages._DELIVER}", store.incarnation, [], [])
    assert plan and not [row[0] for row in plan if "Gather" in row[0]]


async def _fail_to_read(*_: object) -> None:
    raise PersistenceError("the database refused") from OverflowError("date value out of range")


def _deliver_at_once(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "_DELIVER", messages._DELIVER.replace(f"LIMIT {MAIL_AT_ONCE}", f"LIMIT {most}"))
    monkeypatch.setattr(messages, "MAIL_AT_ONCE", most)


async def test_messages_that_were_spoilt_are_delivered_all_the_same(store: PostgresStore) -> None:
    row = await store.put()
    await store.repository.request_cancel(SCOPE, row.id, "ann", "enough")
    await store.admin.execute("UPDATE messages SET create_time = 'infinity', body = '[1]'")
    [mail] = await store.repository.deliver(store.incarnation)
    assert [(message.kind, message.body) for message in mail.messages] == [(MessageKind.CANCEL, {})]
    loaded = await store.repository.load(store.incarnation, row.id)
    assert loaded is not None and loaded.messages == mail.messages and not loaded.unreadable


async def test_a_number_that_cannot_rise_any_more_still_binds(store: PostgresStore) -> None:
    row = await store.put()
    await store.admin.execute("UPDATE executions SET mail = 9223372036854775807")
    await store.repository.request_cancel(SCOPE, row.id, "ann", "")
    assert await store.repository.submit(ending(row)) is CommitResult.FENCED


async def test_what_waits_in_inboxes_is_a_fact_of_the_database(store: PostgresStore, database_dsn: str) -> None:
    """As `flowkeep doctor` shows it."""
    assert (await inspect(database_dsn)).messages == 0
    first, second = await store.put(), await store.put()
    await send(store, first, told())
    await send(store, second, told())
    earlier = "UPDATE messages SET create_time = now() - interval '1 hour' WHERE execution_id = $1"
    await store.admin.execute(earlier, first.id)
    facts = await inspect(database_dsn)
    assert (facts.messages, round(facts.oldest_message / 60)) == (2, 60)
    assert {(each.subject, each.verdict.value) for each in checkup._fitness(facts, Config())} >= {("inboxes", "warn")}
