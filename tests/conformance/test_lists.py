"""Lists of executions: every order, page by page, without a duplicate or an omission."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import pytest

from persistence.listing import ExecutionFilter, ExecutionOrder, PageKey
from persistence.model import Execution, ExecutionState, Scope
from persistence.repository import Repository
from tests.conformance.builders import MOMENT, ORG, OWNER, SCOPE, Keeper, ending, ids

EVERY = ExecutionFilter()
SECOND = timedelta(seconds=1)


def page_key(row: Execution, order: ExecutionOrder) -> PageKey:
    """The position of a row, from what a caller can see of it."""
    if order is ExecutionOrder.NEWEST:
        return PageKey(None, row.id)
    assert row.end_time is not None
    if order is ExecutionOrder.LAST_ENDED:
        return PageKey(row.end_time, row.id)
    return PageKey((row.end_time - (row.start_time or row.create_time)).total_seconds(), row.id)


async def walk(
    repository: Repository, order: ExecutionOrder, size: int, where: ExecutionFilter = EVERY, scope: Scope = SCOPE
) -> list[UUID]:
    """All pages, one after the other."""
    seen: list[UUID] = []
    after = None
    while True:
        page = await repository.list_executions(scope, where, order, after, size)
        assert len(page) <= size
        seen += ids(page)
        if len(page) < size:
            return seen
        after = page_key(page[-1], order)


async def put_ended(keeper: Keeper, *spans: tuple[float, float], state: ExecutionState) -> list[UUID]:
    """Executions that started and ended so many seconds after MOMENT."""
    rows = [
        await keeper.put_ended(state, start_time=MOMENT + start * SECOND, end_time=MOMENT + end * SECOND)
        for start, end in spans
    ]
    return ids(rows)


async def test_an_empty_store_lists_nothing(repository: Repository) -> None:
    for order in ExecutionOrder:
        assert not await repository.list_executions(SCOPE, EVERY, order, None, 10)
        assert await repository.count_executions(SCOPE, EVERY, order, 10) == 0


async def test_newest_first(repository: Repository, keeper: Keeper) -> None:
    made = ids([await keeper.put(), await keeper.put_free(), await keeper.put_ended(), await keeper.put()])
    for size in (1, 2, 3, 4, 5):
        assert await walk(repository, ExecutionOrder.NEWEST, size) == made[::-1]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
async def test_longest_first_and_equal_ones_newest_first(repository: Repository, keeper: Keeper, size: int) -> None:
    await keeper.put()
    await keeper.put_free()
    spans = [(0, 5), (1, 6), (0, 7.000_001), (0, 7), (2, 7), (3, 3), (0, 0.1), (10, 10.1)]
    made = await put_ended(keeper, *spans, state=ExecutionState.FAILED)
    order = [2, 3, 4, 1, 0, 7, 6, 5]
    assert await walk(repository, ExecutionOrder.LONGEST, size) == [made[index] for index in order]


async def test_one_that_never_started_is_as_long_as_it_was_there(repository: Repository, keeper: Keeper) -> None:
    never = await keeper.put_ended(ExecutionState.CANCELLED, create_time=MOMENT, end_time=MOMENT + 3 * SECOND)
    two, four = await put_ended(keeper, (0, 2), (0, 4), state=ExecutionState.COMPLETED)
    assert await walk(repository, ExecutionOrder.LONGEST, 1) == [four, never.id, two]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
async def test_last_ended_first_and_equal_ones_newest_first(repository: Repository, keeper: Keeper, size: int) -> None:
    await keeper.put()
    spans = [(0, 5), (1, 5), (2, 4), (3, 5), (0, 5.000_001)]
    made = await put_ended(keeper, *spans, state=ExecutionState.TIMED_OUT)
    assert await walk(repository, ExecutionOrder.LAST_ENDED, size) == [made[index] for index in (4, 3, 1, 0, 2)]


async def test_awkward_durations_have_positions_of_their_own(repository: Repository, keeper: Keeper) -> None:
    """A duration that went through a float finds its place again, to the microsecond."""
    spans = [(0, 0.000_001 * number) for number in (1, 2, 3, 299_999, 300_000, 300_001, 86_400_000_000, 86_400_000_001)]
    made = await put_ended(keeper, *spans, state=ExecutionState.COMPLETED)
    assert await walk(repository, ExecutionOrder.LONGEST, 1) == made[::-1]


@pytest.mark.parametrize("order", ExecutionOrder)
async def test_a_walk_under_writes_omits_and_repeats_nothing(
    repository: Repository, keeper: Keeper, order: ExecutionOrder
) -> None:
    running = [await keeper.put() for _ in range(12)]
    spans = [(number % 4, number % 7 + 4) for number in range(40)]
    ended = await put_ended(keeper, *spans, state=ExecutionState.COMPLETED)
    walking = asyncio.create_task(walk(repository, order, 3))
    for row in running:
        await repository.submit(ending(row))
        await keeper.put()
        await keeper.put_ended(start_time=MOMENT, end_time=MOMENT + 5 * SECOND)
    seen = await walking
    assert len(seen) == len(set(seen))
    there_all_along = set(ended) | (set(ids(running)) if order is ExecutionOrder.NEWEST else set())
    assert there_all_along <= set(seen)


async def test_a_list_reads_what_was_just_written(repository: Repository, keeper: Keeper) -> None:
    for _ in range(20):
        row = await keeper.put()
        assert ids(await repository.list_executions(SCOPE, EVERY, ExecutionOrder.NEWEST, None, 1)) == [row.id]


@pytest.mark.parametrize("order", ExecutionOrder)
async def test_a_count_goes_no_further_than_asked(
    repository: Repository, keeper: Keeper, order: ExecutionOrder
) -> None:
    for _ in range(5):
        await keeper.put_ended()
    await keeper.put()
    full = 6 if order is ExecutionOrder.NEWEST else 5
    for limit in (1, 4, 5, 6, 7, 10_000):
        assert await repository.count_executions(SCOPE, EVERY, order, limit) == min(limit, full)


async def test_a_page_key_is_no_way_into_another_scope(repository: Repository, keeper: Keeper) -> None:
    bobs = [await keeper.put(owner="bob") for _ in range(3)]
    mine = await keeper.put()
    keys = [PageKey(None, row.id) for row in bobs]
    for key in keys:
        own: Sequence[Execution] = await repository.list_executions(
            Scope(ORG, OWNER), EVERY, ExecutionOrder.NEWEST, key, 10
        )
        assert not own
        assert not await repository.list_executions(Scope("globex"), EVERY, ExecutionOrder.NEWEST, key, 10)
    assert ids(await repository.list_executions(SCOPE, EVERY, ExecutionOrder.NEWEST, PageKey(None, mine.id), 10)) == [
        row.id for row in reversed(bobs)
    ]
