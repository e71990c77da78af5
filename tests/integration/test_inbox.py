"""The inbox on Postgres: which locks are taken in which order, and what becomes of what nobody reads."""

from __future__ import annotations

import asyncio

import pytest

from persistence.model import MessageKind
from persistence.postgres import messages
from persistence.repository import MAIL_AT_ONCE
from persistence.transition import CommitResult, Letter
from tests.conformance.builders import ORG, SCOPE, ending, in_seconds, until
from tests.conformance.journal.test_mail import told
from tests.integration.postgres_store import PostgresStore, move, settled

_WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"
_KEEP = """
INSERT INTO requests (org_id, request_id, method, content_hash, create_time)
VALUES ($1, $2, 'CANCEL', '', clock_timestamp())"""


async def test_a_flush_locks_executions_after_its_request_ids(store: PostgresStore) -> None:
    """As whoever cancels does: else the two would wait for each other."""
    row = await store.put()
    canceller = store.admin.transaction()
    await canceller.start()
    await store.admin.execute(_KEEP, ORG, "r")
    created = store.repository.create(store.new(request_id="r"))
    moved = store.repository.submit(move(row, 1))
    await until(lambda: store.admin.fetchval(_WAITING))
    await store.admin.execute("SELECT FROM executions WHERE id = $1 FOR UPDATE NOWAIT", row.id)
    await canceller.rollback()
    made, result = await settled(created, moved)
    assert (made.created, result) == (True, CommitResult.COMMITTED)


async def test_a_cancel_waits_for_the_owner_and_judges_what_that_leaves(store: PostgresStore) -> None:
    """Its statement began before the end was committed, and does not go by what it saw then."""
    row = await store.put()
    async with store.admin.transaction():
        await store.admin.execute(
            "UPDATE executions SET state = 'CANCELLING', ending = '{\"state\": \"CANCELLED\"}' WHERE id = $1", row.id
        )
        asking = asyncio.create_task(store.repository.request_cancel(SCOPE, row.id, "ann", ""))
        await until(lambda: store.admin.fetchval(_WAITING))
    posted = await asking
    assert (posted.message, posted.execution.mail) == (None, 0)
    assert await store.admin.fetchval("SELECT count(*) FROM messages") == 0


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
    [mail] = await store.repository.deliver(store.incarnation)
    assert mail.execution_id == row.id
    assert not await store.admin.fetchval("SELECT count(*) FROM executions WHERE wake_time > now()")


async def test_what_is_asked_every_second_starts_no_workers(store: PostgresStore) -> None:
    async with store.repository._database.session() as session:
        for cost in ("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size"):
            await session.execute(f"SET {cost} = 0")
        plan = await session.fetch(f"EXPLAIN {messages._DELIVER}", store.incarnation, [], [])
    assert plan and not [row[0] for row in plan if "Gather" in row[0]]


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
