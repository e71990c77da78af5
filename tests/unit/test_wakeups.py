"""Reasons to look, what was found without any, and timers of executions."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from service.engine import finds
from service.engine.finds import Finds
from service.engine.running.timer import LONGEST, Timer
from service.engine.running.wakeups import Wakeup
from tests.patience import PATIENCE, judged

NOW = datetime(2026, 1, 1, tzinfo=UTC)


async def after_timers() -> None:
    """Return when all timers that are due now have fired."""
    fired = asyncio.Event()
    asyncio.get_running_loop().call_later(0.001, fired.set)
    await fired.wait()


async def test_a_reason_ends_a_wait_also_one_that_came_before_it() -> None:
    work = Wakeup()
    async with asyncio.timeout(PATIENCE):
        work.poke()
        assert await work.wait(60.0)
        assert not await work.wait(0.0)  # it was for one wait
        work.poke_after(-1.0)
        assert await work.wait(60.0)
        assert work.pokes == 2


async def test_what_was_found_without_a_reason_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finds, "PATIENCE", 0.0)
    found, told, untold = Finds(), Wakeup(), Wakeup()
    told.poke()
    await judged(found)
    found.note("messages", 2, untold.since())
    found.note("executions", 3, told.since())
    told.tell()
    found.note("messages", 5, untold.since())
    await judged(found)
    assert found.counts == {"messages": 7}


async def test_a_process_that_goes_judges_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finds, "PATIENCE", 0.0)
    found = Finds()
    found.note("messages", 1)
    found.close()
    found.note("messages", 1)
    await after_timers()
    assert not found.counts


class Alarm:
    """A timer by a clock that stands still, and what it has done."""

    def __init__(self) -> None:
        self.fired = 0
        self.timer = Timer(lambda: NOW, self._fire)

    def _fire(self) -> None:
        self.fired += 1

    @property
    def left(self) -> float | None:
        """In how many seconds it fires, as the loop has it."""
        handle = self.timer._handle
        return None if handle is None else handle.when() - asyncio.get_running_loop().time()


async def test_a_timer_fires_once_at_the_last_moment_it_was_set_to() -> None:
    alarm = Alarm()
    alarm.timer.set(NOW + timedelta(seconds=60))
    assert 0 < (alarm.left or 0) <= 60
    alarm.timer.set(NOW - timedelta(seconds=5))
    await after_timers()
    assert (alarm.fired, alarm.left) == (1, None)
    alarm.timer.set(NOW - timedelta(seconds=5))  # the same again, which it does not remember
    await after_timers()
    assert alarm.fired == 2
    alarm.timer.set(NOW)
    alarm.timer.set(None)
    await after_timers()
    assert (alarm.fired, alarm.left) == (2, None)


async def test_a_timer_that_is_longer_than_loops_can_count_fires_early() -> None:
    alarm = Alarm()
    alarm.timer.set(NOW + timedelta(days=400_000))
    assert 0 < (alarm.left or 0) <= LONGEST
    alarm.timer.clear()
    assert alarm.left is None
