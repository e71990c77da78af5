"""What processes tell each other: nobody has to look for what he was told of."""

import asyncio
from typing import Any

import pytest

import flowkeep
from flowkeep.v1 import execution_service_pb2 as pb
from persistence.postgres import notifications
from persistence.postgres.connection import Database
from persistence.postgres.notifications import Notifications
from persistence.processes import News
from service.engine.ids import uuid7
from tests.integration.postgres_store import PostgresStore
from tests.integration.stage import ended, eventually, log, made, step, wait_step
from tests.patience import PATIENCE

State = flowkeep.Execution
# Looking by itself comes too late for any test here.
BLIND = {"watch_poll": 1000.0, "watch_bookmark": 1000.0, "claim_interval": 1000.0}


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """A listener that has told all asks soon whether its connection lives: by that `two` knows that it waits."""
    monkeypatch.setattr(notifications, "_PULSE", 0.1)


async def two(serve, admin, **settings):
    """Two servers that have heard of each other."""
    servers = []
    for count in (1, 2):
        servers.append(await serve(**BLIND, **settings))

        async def all_listen(count=count):
            # The last thing that a listener does before it waits.
            return count == await admin.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'flowkeep listener'"
                " AND query = 'SELECT 1' AND state = 'idle' AND datname = current_database()"
            )

        await eventually(all_listen)
    return servers


async def test_a_watcher_elsewhere_sees_events_as_they_come(serve, stage, admin):
    first, second = await two(serve, admin)
    execution = await first.client.execute(await made(first.client, step("a", "gate"), step("b")))
    await stage.called("a")
    call = second.executions.WatchExecution(pb.WatchExecutionRequest(execution_id=execution.execution_id))
    seen = [(await anext(aiter(call)))]
    stage.open("gate")
    async with asyncio.timeout(PATIENCE):
        seen += [response async for response in call]
    assert [event for response in seen for event in response.events.events] == await log(
        first.client, execution.execution_id
    )


async def test_a_cancel_elsewhere_reaches_the_owner(serve, stage, admin):
    """CA3: no new attempt later than 1 s after the acknowledgement; CA4: the running one is told."""
    first, second = await two(serve, admin)
    execution = await first.client.execute(await made(first.client, step("a", "gate"), step("b")))
    await stage.called("a")
    answer = await second.client.cancel(execution.execution_id)
    assert answer.execution.state in (State.STATE_CANCELLING, State.STATE_CANCELLED)
    async with asyncio.timeout(PATIENCE):
        found = await ended(second.client, execution.execution_id)
    assert found.state == State.STATE_CANCELLED
    assert (stage.stopped, stage.attempts("b")) == ([("a", 1)], [])


async def test_what_one_has_no_room_for_another_takes(serve, stage, admin):
    first, _ = await two(serve, admin, max_running=1)
    name = await made(first.client, step("a", "gate"))
    await first.client.execute(name)
    await stage.called("a")
    await first.client.execute(name)
    await stage.called("a", 2)
    stage.open("gate")


async def test_what_a_leaving_process_gives_up_is_taken_at_once(serve, stage, admin):
    first, second = await two(serve, admin)
    execution = await first.client.execute(await made(first.client, step("a", "gate"), wait_step(seconds=0.01)))
    await stage.called("a")
    await first.stop()
    await stage.called("a", 2)
    stage.open("gate")
    async with asyncio.timeout(PATIENCE):
        found = await ended(second.client, execution.execution_id)
    assert found.state == flowkeep.Execution.STATE_COMPLETED


async def test_one_who_lost_the_connection_looks_at_everything(database_dsn, admin):
    """FAULTS P11: what was said meanwhile is lost, so whoever listens again takes it that anything happened."""
    listener, teller = Notifications(Database(database_dsn)), Notifications(Database(database_dsn))
    teller.learn(has_others=True, heard=0)
    heard: asyncio.Queue[News] = asyncio.Queue()
    is_there = asyncio.Event()
    telling = asyncio.create_task(teller.listen(lambda _: is_there.set()))
    async with asyncio.timeout(PATIENCE):
        await is_there.wait()
        listening = asyncio.create_task(listener.listen(heard.put_nowait))
        assert (await heard.get()).executions is None
        assert await heard.get() == News(frozenset(), has_work=True)  # so it knows that it is not alone
        assert listener.is_needed
        ids = frozenset(uuid7() for _ in range(3))
        teller.announce(ids, has_mail=True)
        assert await heard.get() == News(ids, has_mail=True)
        teller.announce([uuid7() for _ in range(500)], has_work=True)
        assert await heard.get() == News(None, has_work=True)
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'flowkeep listener' AND datname = current_database()"
        )
        ends = await asyncio.gather(telling, listening, return_exceptions=True)
    assert [type(end).__name__ for end in ends] == ["UnavailableError"] * 2


async def test_of_others_one_hears_before_a_slow_answer_says_that_there_are_none(
    store: PostgresStore, open_repository: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease was renewed before the other process came, and the answer is read after its first message."""
    reserved, was_asked, may_answer = Database.reserved, asyncio.Event(), asyncio.Event()

    async def slow(*arguments: Any, **options: Any) -> Any:
        row = await reserved(*arguments, **options)
        was_asked.set()
        await may_answer.wait()
        return row

    monkeypatch.setattr(Database, "reserved", slow)
    is_there, news = asyncio.Event(), asyncio.Queue[News]()
    async with open_repository() as other, asyncio.timeout(PATIENCE):
        telling = asyncio.create_task(store.repository.listen(lambda _: is_there.set()))
        await is_there.wait()
        renewing = asyncio.create_task(store.repository.renew(store.incarnation, 300))
        await was_asked.wait()
        await other.register(uuid7(), "other", 300)
        listening = asyncio.create_task(other.listen(news.put_nowait))
        await news.get()  # that it listens
        assert (await news.get()).has_work  # what it is told when it has been heard
        may_answer.set()
        lease = await renewing
        assert lease is not None
        assert not lease.has_others
        row = await store.put()
        while (await news.get()).executions != frozenset({row.id}):
            pass
        for task in (telling, listening):
            task.cancel()
