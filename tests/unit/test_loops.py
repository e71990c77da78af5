"""The loops beside the claims: what other processes say wakes what it concerns, and what was left is removed."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from persistence.errors import UnavailableError
from persistence.processes import News
from service import announcing
from service.engine.running.listener import Listener
from service.engine.running.reaper import BATCH, Reaper
from service.engine.running.wakeups import Wakeup
from service.engine.watch import WatchHub
from service.engine.workers.model import Registration
from service.engine.workers.pool import Workers
from tests.patience import PATIENCE

HERE, ELSEWHERE = UUID(int=1), UUID(int=2)


@pytest.mark.parametrize(
    ("news", "work", "mail", "woken"),
    [
        (News(frozenset({HERE})), 0, 0, [HERE]),
        (News(frozenset({ELSEWHERE}), has_work=True), 1, 0, [ELSEWHERE]),
        (News(frozenset({HERE}), has_mail=True), 0, 1, [HERE]),
        (News(frozenset({ELSEWHERE}), has_mail=True), 0, 0, [ELSEWHERE]),
        (News(None), 0, 0, [HERE, ELSEWHERE]),
        (News(None, has_work=True, has_mail=True), 1, 1, [HERE, ELSEWHERE]),
    ],
)
async def test_news_wake_what_they_concern(news: News, work: int, mail: int, woken: list[UUID]) -> None:
    heard: list[Any] = []

    class Journal:
        async def listen(self, hear: Any) -> None:
            hear(news)
            heard.append(news)
            await asyncio.get_running_loop().create_future()

    hub, claims, sweeps = WatchHub(), Wakeup(), Wakeup()
    context = SimpleNamespace(journal=Journal(), hub=hub, work=claims, mail=sweeps, interval=lambda: 0.0)
    told_of: list[Any] = []
    runs = SimpleNamespace(ids={HERE: None}.keys(), hear=told_of.append)
    with hub.subscribe(HERE) as one, hub.subscribe(ELSEWHERE) as other:
        listening = asyncio.create_task(Listener(cast(Any, context), cast(Any, runs)).keep())
        while not heard:  # noqa: ASYNC110 - it hears in one of the next turns
            await asyncio.sleep(0)
        listening.cancel()
        assert (claims.pokes, sweeps.pokes) == (work, int(news.has_mail))
        assert await sweeps.wait(0.0) is bool(mail)
        assert told_of == ([news.executions] if news.has_mail else [])
        told = [execution for execution, each in ((HERE, one), (ELSEWHERE, other)) if each._is_woken]
        assert told == woken


async def test_workers_are_announced_when_the_database_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    again = asyncio.Event()

    class Repository:
        async def announce_workers(self, incarnation: UUID, workers: Any) -> None:
            told.append([worker.worker_id for worker in workers])
            if len(told) == 1:
                raise UnavailableError("away")
            again.set()

    monkeypatch.setattr(announcing, "AGAIN", 0.0)
    workers = Workers()
    workers.attach(Registration("acme", "ann", "w", "one", "1", 1, ()), [], cast(Any, SimpleNamespace()))
    loop = asyncio.create_task(announcing.announce(workers, cast(Any, Repository()), lambda: HERE))
    async with asyncio.timeout(PATIENCE):
        await asyncio.wait((loop, asyncio.create_task(again.wait())), return_when=asyncio.FIRST_COMPLETED)
    assert not loop.done()
    loop.cancel()
    assert told[:2] == [["w"], ["w"]]


async def test_who_could_not_listen_tries_again() -> None:
    tried: list[None] = []
    again = asyncio.Event()

    class Journal:
        async def listen(self, hear: Any) -> None:
            tried.append(None)
            if len(tried) == 3:
                again.set()
                await asyncio.get_running_loop().create_future()
            if len(tried) == 1:
                raise UnavailableError("away")

    context = SimpleNamespace(journal=Journal(), interval=lambda: 0.0)
    listening = asyncio.create_task(Listener(cast(Any, context), cast(Any, None)).keep())
    async with asyncio.timeout(PATIENCE):
        await again.wait()
    listening.cancel()


class Leftovers:
    """What there is to be removed, batch by batch; an error where there is one."""

    def __init__(self, *batches: tuple[int, int] | Exception) -> None:
        self._batches = list(batches)
        self.asked: list[int] = []
        self.is_done = asyncio.Event()

    async def reap(self, limit: int) -> int:
        self.asked.append(limit)
        if not self._batches:
            self.is_done.set()
            return 0
        if isinstance(batch := self._batches[0], Exception):
            del self._batches[0]
            raise batch
        return batch[0]

    async def forget(self, limit: int) -> int:
        assert limit == self.asked[-1]
        return self._batches.pop(0)[1] if self._batches else 0  # type: ignore[index]


async def test_what_was_left_is_removed_batch_by_batch_without_a_pause() -> None:
    left = Leftovers((BATCH, 0), (BATCH, 7), (3, 1), (BATCH + 1, 0))
    reaping = asyncio.create_task(Reaper(cast(Any, left), 600.0).keep())
    async with asyncio.timeout(PATIENCE):
        await left.is_done.wait()
    reaping.cancel()
    assert left.asked == [BATCH] * 5


@pytest.mark.parametrize("before", [(0, 0), (BATCH - 1, 0), UnavailableError("away")])
async def test_where_little_is_left_or_nothing_can_be_removed_there_is_a_pause_that_a_reason_ends(before: Any) -> None:
    left = Leftovers(before)
    reaper = Reaper(cast(Any, left), 600.0)
    reaping = asyncio.create_task(reaper.keep())
    for _ in range(10):
        await asyncio.sleep(0)
    assert left.asked == [BATCH]
    reaper.leftovers.poke()
    async with asyncio.timeout(PATIENCE):
        await left.is_done.wait()
    reaping.cancel()
