"""What carries operations in bulk out, where steps of them fail."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from persistence.bulks import Bulk, BulkAction, BulkOutcome, BulkResult, BulkState
from persistence.errors import QueueFullError, SchemaError, UnreadableError
from persistence.listing import ExecutionFilter
from persistence.memory import MemoryRepository
from persistence.model import ExecutionState, Scope
from service.app import Engine
from service.engine.bulk import carrier
from service.engine.bulk.bulks import Wanted
from service.engine.retries import Retries
from tests.unit.house import PATIENCE, SCOPE, House, begun, opened_house, step

OTHER = Scope("other")

Failing = Callable[[UUID, int], Exception | None]
"""Which error the retry of an execution has, by its id and how often it was asked before."""


class Scene:
    """Three executions that have failed, newest first, and a process that retries them."""

    def __init__(self, house: House, engine: Engine, ids: list[UUID], monkeypatch: pytest.MonkeyPatch) -> None:
        self.house = house
        self.engine = engine
        self.ids = ids
        self.asked: Counter[UUID] = Counter()
        self._monkeypatch = monkeypatch

    async def retried(self, failing: Failing, **limits: Any) -> tuple[Bulk, list[BulkResult]]:
        """Retry them by an operation, and return it at its end, with its results."""
        sound = Retries.retry

        async def retry(retries: Retries, scope: Any, execution_id: UUID, *rest: Any) -> Any:
            error = failing(execution_id, self.asked[execution_id])
            self.asked[execution_id] += 1
            if error is not None:
                raise error
            return await sound(retries, scope, execution_id, *rest)

        self._monkeypatch.setattr(Retries, "retry", retry)
        wanted = Wanted(BulkAction.RETRY, ExecutionFilter(), {}, match_all=True, **limits)
        bulk = await self.engine.bulks.start(SCOPE, "ann", wanted)
        return await self.ended(bulk)

    async def ended(self, bulk: Bulk) -> tuple[Bulk, list[BulkResult]]:
        """An operation at its end, with its results."""
        async with asyncio.timeout(PATIENCE):
            async for each in self.engine.bulks.watch(SCOPE, bulk.id):
                bulk = each
        found = await self.house.repository.list_bulk_results(SCOPE, bulk.id, [], 0, 100)
        return bulk, [each for _, each in found]


@pytest_asyncio.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    """A process that looks for operations all the time."""
    monkeypatch.setattr(carrier, "INTERVAL", 0.01)
    async with opened_house() as house:
        engine = await house.open()
        keeping = asyncio.create_task(engine.carrier.keep())
        created = [await begun(engine, step("a", "break", params={"times": 100})) for _ in range(3)]
        for each in created:
            await house.ended(engine, each)
        yield Scene(house, engine, [each.execution.id for each in created][::-1], monkeypatch)
        keeping.cancel()


def done(ids: list[UUID]) -> list[BulkResult]:
    return [BulkResult(each, BulkOutcome.DONE) for each in ids]


@pytest.mark.parametrize("error", [QueueFullError("full"), SchemaError("of tomorrow")])
async def test_what_fails_for_now_is_asked_again_and_all_have_their_result(scene: Scene, error: Exception) -> None:
    bulk, results = await scene.retried(lambda each, before: error if each == scene.ids[1] and before < 3 else None)
    assert (bulk.state, results) == (BulkState.COMPLETED, done(scene.ids))
    assert scene.asked == {scene.ids[0]: 4, scene.ids[1]: 4, scene.ids[2]: 1}
    for each in scene.ids:
        assert (await scene.house.repository.get_execution(SCOPE, each)).run == 2


async def test_what_has_left_the_states_of_the_filter_since_it_was_found_is_not_retried(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look finds what ended otherwise meanwhile: they have failed, and those that were cancelled are asked for."""
    repository, find = scene.house.repository, scene.house.repository.find_for_bulk

    async def found(bulk: Bulk, limit: int) -> Any:
        return await find(replace(bulk, filter=ExecutionFilter()), limit)

    monkeypatch.setattr(repository, "find_for_bulk", found)
    wanted = Wanted(BulkAction.RETRY, ExecutionFilter(states=(ExecutionState.CANCELLED,)), {}, match_all=True)
    bulk = await scene.engine.bulks.start(SCOPE, "ann", wanted)
    _, results = await scene.ended(bulk)
    assert [each.execution_id for each in results] == scene.ids
    for each in results:
        assert each.outcome is BulkOutcome.REFUSED and "no longer is what the operation asked for" in each.reason
        assert (await repository.get_execution(SCOPE, each.execution_id)).run == 1


async def test_a_fault_is_told_without_its_words_and_holds_up_no_others(scene: Scene) -> None:
    errors = {scene.ids[0]: KeyError("secret"), scene.ids[1]: UnreadableError("w", 1, "secret")}
    bulk, (fault, unreadable, last) = await scene.retried(lambda each, _: errors.get(each))
    assert bulk.state is BulkState.COMPLETED and [last] == done(scene.ids[2:])
    assert fault.outcome is BulkOutcome.REFUSED and "under error_id" in fault.reason
    assert unreadable.reason == "revision 1 of workflow 'w' cannot be read"
    assert "secret" not in fault.reason and set(scene.asked.values()) == {1}


async def test_a_step_that_fails_is_not_made_again_at_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only after a pause, in which the operation has no place: another one ends before."""
    monkeypatch.setattr(carrier, "INTERVAL", 1_000.0)
    monkeypatch.setattr(carrier, "CARRIED", 1)
    sound, failed = MemoryRepository.find_for_bulk, asyncio.Event()

    async def find(repository: MemoryRepository, bulk: Bulk, limit: int) -> Any:
        if bulk.reason == "odd":
            assert not failed.is_set()
            failed.set()
            raise KeyError("odd")
        return await sound(repository, bulk, limit)

    monkeypatch.setattr(MemoryRepository, "find_for_bulk", find)
    odd = Wanted(BulkAction.CANCEL, ExecutionFilter(), {}, reason="odd", match_all=True)
    kept = await scene.engine.bulks.start(SCOPE, "ann", odd)
    async with asyncio.timeout(PATIENCE):
        await failed.wait()
    bulk, results = await scene.retried(lambda *_: None)
    assert (bulk.state, results) == (BulkState.COMPLETED, done(scene.ids))
    assert (await scene.house.repository.get_bulk(SCOPE, kept.id)).state is BulkState.RUNNING


async def test_what_was_begun_of_one_that_is_stopped_has_its_result(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process loses what it has begun, as by a crash."""
    repository, sound, recorded = scene.house.repository, MemoryRepository.record_bulk, asyncio.Event()

    async def record(repository: MemoryRepository, *step: Any, **limits: Any) -> Bulk | None:
        after = await sound(repository, *step, **limits)
        recorded.set()
        return after

    monkeypatch.setattr(MemoryRepository, "record_bulk", record)

    def stopping(_: UUID, before: int) -> Exception | None:
        if before:
            return None
        for row in repository._tables.bulks.values():
            row.bulk = replace(row.bulk, state=BulkState.STOPPED, stopped_by="bob", end_time=repository._tables.now())
        return SchemaError("lost")

    bulk, _ = await scene.retried(stopping, limit=1)
    assert bulk.state is BulkState.STOPPED
    async with asyncio.timeout(PATIENCE):
        await recorded.wait()
    _, results = await scene.ended(bulk)
    assert results == done(scene.ids[:1])


async def test_an_org_has_its_turn_however_many_operations_another_one_has(monkeypatch: pytest.MonkeyPatch) -> None:
    sound, turns = MemoryRepository.find_for_bulk, list[str]()

    async def find(repository: MemoryRepository, bulk: Bulk, limit: int) -> Any:
        turns.append(bulk.scope.org)
        return await sound(repository, bulk, limit)

    monkeypatch.setattr(MemoryRepository, "find_for_bulk", find)
    async with opened_house() as house:
        engine = await house.open()
        wanted = Wanted(BulkAction.CANCEL, ExecutionFilter(), {}, match_all=True)
        for _ in range(3):
            await engine.bulks.start(SCOPE, "ann", wanted)
        last = await engine.bulks.start(OTHER, "ann", wanted)
        keeping = asyncio.create_task(engine.carrier.keep())
        async with asyncio.timeout(PATIENCE):
            async for _ in engine.bulks.watch(OTHER, last.id):
                pass
        keeping.cancel()
    assert turns[:3] == [SCOPE.org, SCOPE.org, OTHER.org]
