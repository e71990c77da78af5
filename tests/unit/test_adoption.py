"""What is taken up while it is no longer what it was: the process takes it anew, or its lease runs out."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace

from persistence.model import Execution
from persistence.transition import CommitResult
from service.engine.running import driver as driving
from service.engine.running.ownership import Look
from tests.unit.planner_definitions import sequence, step
from tests.unit.planner_programs import Driver


class Runs(set[Any]):
    """Runs that are told nothing before they begin."""

    known: Any = None
    """The run of each execution, if there is one."""
    let_go = 0
    """The epoch of the run that has been let go since the store was asked."""

    def get(self, execution_id: UUID) -> Any:
        """Return the run of an execution."""
        return self.known

    def add(self, run: Any) -> None:
        """Note none."""

    def announce(self, executions: Any) -> None:
        """Note none."""

    def arrived(self, execution_id: UUID) -> None:
        """Note none."""

    def was_let_go(self, execution: Execution, _: Look) -> bool:
        """Return whether what has been let go since is as new."""
        return execution.epoch <= self.let_go

    def told(self, execution_id: UUID) -> int:
        """Return that it was told nothing."""
        return 0


class Adopting:
    """A process that takes up executions, and notes the epochs at which it begins to drive them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.is_known = list[int](), asyncio.Event()
        self._program, self._incarnation = Driver(sequence(step("a"))), uuid4()
        self.ownership = SimpleNamespace(incarnation=self._incarnation, may_take=True, generation=0)
        monkeypatch.setattr(driving, "Run", lambda _1, _2, execution, *_: self.begun.append(execution.epoch))
        monkeypatch.setattr(driving.Driver, "_set_off", lambda *_: None)
        turns = SimpleNamespace(share=lambda _: SimpleNamespace(take=self._take))
        context: Any = SimpleNamespace(ownership=self.ownership, turns=turns, name="")
        self.runs, self.lost = Runs(), list[Any]()
        monkeypatch.setattr(driving.Driver, "lost", lambda _, run, result: self.lost.append((run, result)))
        self._driver = driving.Driver(context, self.runs, SimpleNamespace(), self)  # type: ignore[arg-type]
        self.looked_for = list[UUID]()
        monkeypatch.setattr(self._driver.recovery, "look_for", lambda found, **_: self.looked_for.append(found))

    @property
    def execution_id(self) -> UUID:
        """The execution that it takes up."""
        return self._program.execution.id

    async def take_up(self, epoch: int, generation: int = 0) -> None:
        """Take up what was read at an epoch."""
        execution = replace(self._program.execution, incarnation=self._incarnation, epoch=epoch, wake_time=None)
        await self._driver.adopt(replace(self._program.stored, execution=execution), Look(generation, 0))

    async def of(self, execution: Execution) -> Any:
        """Return the definition; at the second epoch as late as the test wants."""
        if execution.epoch == 2:
            await self.is_known.wait()
        return self._program.definition

    async def _take(self, act: Any) -> Any:
        return act()


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Adopting:
    """A process that has not begun anything."""
    return Adopting(monkeypatch)


async def test_what_was_read_before_the_process_took_it_anew_is_not_driven(process: Adopting) -> None:
    earlier = asyncio.create_task(process.take_up(2))
    await asyncio.sleep(0)
    await process.take_up(3)
    process.is_known.set()
    await earlier
    assert process.begun == [3]
    await process.take_up(4)
    assert process.begun == [3, 4]


async def test_what_was_read_before_the_lease_ran_out_is_not_driven(process: Adopting) -> None:
    """ST10: another process may have taken it since; what is still ours is looked for at once."""
    earlier = asyncio.create_task(process.take_up(2))
    await asyncio.sleep(0)
    process.ownership.generation += 1  # the process was cut off, and has its lease again
    process.is_known.set()
    await earlier
    assert process.begun == []
    assert process.looked_for == [process.execution_id]
    await process.take_up(2, generation=1)
    assert process.begun == [2]


async def test_what_was_read_before_the_process_let_it_go_is_not_driven(process: Adopting) -> None:
    """ST10: it may have been parked since, and others may have taken it."""
    process.runs.let_go = 3
    await process.take_up(3)
    await process.take_up(4)
    assert process.begun == [4]


async def test_what_the_process_has_anew_and_still_runs_is_looked_for(process: Adopting) -> None:
    """The store takes what has not started from its owner, which claims it before it knows of that."""
    process.runs.known = SimpleNamespace(execution=SimpleNamespace(epoch=2))
    await process.take_up(epoch=2)
    assert process.lost == []
    await process.take_up(epoch=3)
    assert process.lost == [(process.runs.known, CommitResult.FENCED)]
    assert process.begun == []
