"""An execution that is in trouble again and again is taken up later each time."""

import asyncio
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

from service.engine.running.recovery import CALM, LONGEST_PAUSE, Pauses, Recovery
from tests.work import at_most


def test_each_time_it_is_left_alone_for_longer_up_to_a_limit():
    pauses, execution, now, seen = Pauses(), uuid4(), 100.0, []
    for _ in range(9):
        seen.append(pauses.after(execution, now))
        now += seen[-1]
    assert seen == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, LONGEST_PAUSE, LONGEST_PAUSE]


def test_others_do_not_wait_and_calm_is_rewarded():
    pauses, execution = Pauses(), uuid4()
    assert [pauses.after(execution, 100.0), pauses.after(execution, 100.0)] == [0.0, 0.1]
    assert pauses.after(uuid4(), 100.0) == 0.0
    assert pauses.after(execution, 100.1 + CALM) == 0.0


def test_what_has_been_calm_is_forgotten_when_another_is_in_trouble():
    pauses, executions = Pauses(), [uuid4() for _ in range(3)]
    for execution in executions:
        pauses.after(execution, 100.0)
    kept = [weakref.ref(execution) for execution in executions]
    del execution, executions
    pauses.after(uuid4(), 100.0 + CALM)
    assert [each() for each in kept] == [None] * 3


class Breaking:
    """What drives an execution that breaks again while it is being taken up."""

    is_stopping = False
    breaks = True

    def __init__(self, execution: UUID) -> None:
        self.execution, self.recovery = execution, Recovery(self, self)  # type: ignore[arg-type]
        self.tasks = self.journal = self.ownership = self
        self.look: object = None
        self.spawned: list[asyncio.Task[None]] = []
        self.incarnation, self.generation = uuid4(), 0

    @contextmanager
    def looking(self) -> Iterator[object]:
        self.look = object()
        yield self.look
        self.look = None

    async def condemn(self, *_: object) -> None:
        """Nothing is condemned here."""

    def spawn(self, work: Any, _: str) -> None:
        self.spawned.append(asyncio.create_task(work))

    async def load(self, *_: object) -> object:
        assert self.look is not None
        return object()

    async def adopt(self, _: object, look: object, *_more: object) -> None:
        assert look is self.look
        if len(self.spawned) == 1 and self.breaks:
            self.recovery.look_for(self.execution)


async def test_what_breaks_while_it_is_taken_up_stays_under_way_so_that_no_sweep_takes_it_up_beside():
    driver = Breaking(uuid4())
    driver.recovery.look_for(driver.execution)
    await driver.spawned[0]
    assert driver.recovery.under_way == {driver.execution}
    await driver.spawned[1]
    assert driver.recovery.under_way == set()


async def test_thousands_that_are_in_trouble_at_once_are_no_more_work_each_than_one():
    driver = Breaking(uuid4())
    driver.breaks = False
    with at_most(2.0):
        for _ in range(10_000):
            driver.recovery.look_for(uuid4())
        await asyncio.wait(driver.spawned)
    assert driver.recovery.under_way == set()
