"""A cancel that is answered before an execution goes on here comes before any attempt of it (CONTRACT CA3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from persistence.memory import MemoryRepository
from persistence.model import Execution, ExecutionDetail, ExecutionState
from persistence.transition import Created
from service.app import Engine
from service.engine.workflows import Workflows
from tests.unit.house import PATIENCE, SCOPE, House, begun, opened_house, step


class Batch:
    """Two executions that one claim has brought to a process, in its order; the first of them is being read."""

    def __init__(
        self, house: House, idle: Engine, engine: Engine, created: list[Created], go_on: asyncio.Event
    ) -> None:
        self.house = house
        self.idle = idle
        """A process that drives nothing."""
        self.engine = engine
        self.created = created
        self._go_on = go_on

    async def cancel(self, which: int, by: Engine | None = None) -> None:
        """Cancel one of them, and have the answer."""
        execution_id = self.created[which].execution.id
        await (by or self.engine).executions.cancel(SCOPE, execution_id, "bob", "enough")

    def go_on(self) -> None:
        """Let the first be read, and then the other."""
        self._go_on.set()

    async def check_that_nothing_begins(self, which: int) -> None:
        """See that one which goes on ends by its cancel alone."""
        self.go_on()
        detail = await self.house.ended(self.engine, self.created[which])
        assert (detail.execution.state, list(detail.steps)) == (ExecutionState.CANCELLED, [])
        assert self.created[which].execution.id not in [each.execution_id for each in self.house.contexts]


@pytest_asyncio.fixture
async def batch(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Batch]:
    """A batch of which nothing has begun."""
    go_on, is_held, read = asyncio.Event(), asyncio.Event(), list[UUID]()

    async with opened_house() as house:
        idle = await house.open()
        await idle.runner.hand_over()
        created = {each.execution.id: each for each in [await begun(idle, step("a", "gate")) for _ in range(2)]}
        of = Workflows.of

        async def held(self: Workflows, execution: Execution) -> Any:
            read.append(execution.id)
            is_held.set()
            await go_on.wait()
            return await of(self, execution)

        monkeypatch.setattr(Workflows, "of", held)
        engine = await house.open()
        async with asyncio.timeout(PATIENCE):
            await is_held.wait()
        (first,) = read
        (second,) = created.keys() - {first}
        for each in created:
            assert (await house.repository.get_execution(SCOPE, each)).incarnation == engine.runner.incarnation
        yield Batch(house, idle, engine, [created[first], created[second]], go_on)
        go_on.set()


@pytest.mark.parametrize("which", [0, 1], ids=["being taken up", "behind another one"])
@pytest.mark.parametrize("way", ["here", "news", "sweep"])
async def test_what_a_claim_brought_and_is_cancelled_begins_nothing(batch: Batch, which: int, way: str) -> None:
    runner = batch.engine.runner
    await batch.cancel(which, batch.engine if way == "here" else batch.idle)
    if way == "news":
        runner.runs.hear([batch.created[which].execution.id])
    elif way == "sweep":
        await runner._sweeper.sweep()
    await batch.check_that_nothing_begins(which)


async def test_so_does_what_is_cancelled_while_its_messages_are_read_again(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, reads = MemoryRepository.load, list[int]()

    async def passed(self: MemoryRepository, incarnation: UUID, execution_id: UUID) -> ExecutionDetail | None:
        read = await load(self, incarnation, execution_id)
        reads.append(len(read.messages) if read is not None else -1)
        if len(reads) == 1:
            await batch.cancel(1)
        return read

    monkeypatch.setattr(MemoryRepository, "load", passed)
    batch.engine.runner.runs.hear([batch.created[1].execution.id])
    await batch.check_that_nothing_begins(1)
    assert reads == [0, 1]


async def test_what_was_heard_of_without_a_message_begins_all_the_same(batch: Batch) -> None:
    batch.engine.runner.runs.hear(None)
    batch.house.gates["a"].set()
    batch.go_on()
    for each in batch.created:
        assert (await batch.house.ended(batch.engine, each)).execution.state is ExecutionState.COMPLETED
    assert not batch.engine.runner.runs.coming


async def test_hints_that_never_end_keep_nothing_from_beginning(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    load = MemoryRepository.load

    async def passed(self: MemoryRepository, incarnation: UUID, execution_id: UUID) -> ExecutionDetail | None:
        batch.engine.runner.runs.hear(None)
        return await load(self, incarnation, execution_id)

    monkeypatch.setattr(MemoryRepository, "load", passed)
    batch.engine.runner.runs.hear(None)
    batch.house.gates["a"].set()
    batch.go_on()
    for each in batch.created:
        assert (await batch.house.ended(batch.engine, each)).execution.state is ExecutionState.COMPLETED
