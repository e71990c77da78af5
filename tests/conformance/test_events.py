"""Events: whole transitions in order, from any position, to the byte."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from persistence.errors import CursorAheadError, PersistenceError
from persistence.model import Event, Execution
from persistence.repository import Repository
from tests.conformance.builders import (
    MOMENT,
    SCOPE,
    Keeper,
    after,
    chain,
    ending,
    events,
    execution,
    new,
    outcome,
    transition,
)
from tests.patience import PATIENCE

KIB = 1024


async def put(keeper: Keeper, *sizes: int) -> tuple[Execution, list[Event]]:
    """An execution with one event, and then transitions with so many events each."""
    row = await keeper.put()
    kept = list(events(0))
    for size in sizes:
        written = transition(row, size)
        await keeper.commit(written)
        kept += written.events
        row = after(row, written)
    return row, kept


async def read_all(repository: Repository, row: Execution, limit: int) -> list[Sequence[Event]]:
    """All pages; each is checked to end where a transition ends."""
    pages: list[Sequence[Event]] = []
    cursor = 0
    while page := await repository.read_events(SCOPE, row.id, cursor, limit):
        assert page[-1].seq == page[-1].transition_seq
        pages.append(page)
        cursor = page[-1].seq
    return pages


async def test_events_come_back_to_the_byte(repository: Repository, keeper: Keeper) -> None:
    odd = tuple(
        Event(seq, 3, kind, events(0)[0].time, body)
        for seq, kind, body in ((1, "created", b""), (2, "ünï", bytes(range(256))), (3, "x", b"\x00" * 70_000))
    )
    row = execution(keeper.workflow, keeper.incarnation, last_seq=3)
    await repository.create(new(row, events=odd))
    assert tuple(await repository.read_events(SCOPE, row.id, 0, 10)) == odd


UNFIT: dict[str, list[dict[str, Any]]] = {
    "of two times": [{}, {"time": MOMENT}],
    "without a kind": [{"kind": ""}, {}],
    "of a kind that is no word": [{}, {"kind": "step completed"}],
    "of a kind that is too long": [{}, {"kind": "k" * 65}],
}


@pytest.mark.parametrize("unfit", UNFIT)
async def test_what_is_written_at_once_is_of_one_time_and_of_kinds_that_are_words(
    repository: Repository, keeper: Keeper, unfit: str
) -> None:
    row = await keeper.put()
    odd = tuple(replace(event, **change) for event, change in zip(events(1, 2), UNFIT[unfit], strict=True))
    assert isinstance(await outcome(repository.submit(transition(row, events=odd))), PersistenceError)
    first = tuple(replace(event, seq=event.seq - 1, transition_seq=2) for event in odd)
    created = repository.create(new(execution(keeper.workflow, last_seq=2), events=first))
    assert isinstance(await outcome(created), PersistenceError)
    assert list(await repository.read_events(SCOPE, row.id, 0, 10)) == list(events(0))


async def test_reading_goes_on_behind_the_position(repository: Repository, keeper: Keeper) -> None:
    row, kept = await put(keeper, 1, 1, 1, 1)
    for after_seq in range(6):
        assert list(await repository.read_events(SCOPE, row.id, after_seq, 100)) == kept[after_seq:]


async def test_a_transition_is_never_torn(repository: Repository, keeper: Keeper) -> None:
    row, kept = await put(keeper, 3, 1, 2, 5)
    expected = {
        1: [[1], [2, 3, 4], [5], [6, 7], [8, 9, 10, 11, 12]],
        2: [[1], [2, 3, 4], [5], [6, 7], [8, 9, 10, 11, 12]],
        3: [[1], [2, 3, 4], [5, 6, 7], [8, 9, 10, 11, 12]],
        4: [[1, 2, 3, 4], [5, 6, 7], [8, 9, 10, 11, 12]],
        5: [[1, 2, 3, 4, 5], [6, 7], [8, 9, 10, 11, 12]],
        7: [[1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11, 12]],
        12: [list(range(1, 13))],
    }
    for limit, seqs in expected.items():
        pages = await read_all(repository, row, limit)
        assert [[event.seq for event in page] for page in pages] == seqs
        assert [event for page in pages for event in page] == kept


async def test_a_position_inside_a_transition_gives_its_rest(repository: Repository, keeper: Keeper) -> None:
    row, kept = await put(keeper, 4, 1)
    assert list(await repository.read_events(SCOPE, row.id, 3, 1)) == kept[3:5]


async def test_a_transition_longer_than_a_page_comes_whole(repository: Repository, keeper: Keeper) -> None:
    row, kept = await put(keeper, 700, 1)
    pages = await read_all(repository, row, 256)
    assert [len(page) for page in pages] == [1, 700, 1]
    assert [event for page in pages for event in page] == kept


@pytest.mark.parametrize(
    ("size", "pages"),
    [
        (100 * KIB, [2, 2, 1]),
        (128 * KIB, [2, 2, 1]),
        (128 * KIB + 1, [1, 1, 1, 1, 1]),
        (300 * KIB, [1, 1, 1, 1, 1]),
    ],
)
async def test_a_page_holds_256_kib_unless_a_transition_alone_is_longer(
    repository: Repository, keeper: Keeper, size: int, pages: list[int]
) -> None:
    row = execution(keeper.workflow, keeper.incarnation)
    await repository.create(new(row, events=events(0, size=size)))
    for _ in range(4):
        written = transition(row, events=events(row.last_seq, size=size))
        await keeper.commit(written)
        row = after(row, written)
    assert [len(page) for page in await read_all(repository, row, 256)] == pages


async def test_a_long_transition_of_big_events_comes_whole(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    await keeper.commit(transition(row, events=events(1, 5, size=100 * KIB)))
    assert [len(page) for page in await read_all(repository, row, 256)] == [1, 5]


async def test_at_the_end_there_is_nothing_yet(repository: Repository, keeper: Keeper) -> None:
    row, _ = await put(keeper, 2)
    assert not await repository.read_events(SCOPE, row.id, 3, 10)
    ended = await keeper.commit(ending(row))
    assert not await repository.read_events(SCOPE, row.id, ended.last_seq, 10)


@pytest.mark.parametrize("ahead", [1, 50, 2**31, 2**63 - 4])
async def test_beyond_the_end_is_an_error(repository: Repository, keeper: Keeper, ahead: int) -> None:
    row, _ = await put(keeper, 2)
    with pytest.raises(CursorAheadError) as caught:
        await repository.read_events(SCOPE, row.id, 3 + ahead, 10)
    assert (caught.value.after_seq, caught.value.last_seq) == (3 + ahead, 3)


async def test_an_execution_without_events_has_none(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put(last_seq=0)
    assert not await repository.read_events(SCOPE, row.id, 0, 10)
    with pytest.raises(CursorAheadError):
        await repository.read_events(SCOPE, row.id, 1, 10)


async def test_a_follower_sees_every_event_once(repository: Repository, keeper: Keeper) -> None:
    """A reader that follows a writer misses nothing and sees nothing twice or torn."""
    row = await keeper.put()
    written = chain(row, 80)
    seen: list[Event] = []

    async def follow() -> None:
        while len(seen) < 81:
            page = await repository.read_events(SCOPE, row.id, len(seen), 7)
            assert [event.seq for event in page] == list(range(len(seen) + 1, len(seen) + 1 + len(page)))
            seen.extend(page)
            await asyncio.sleep(0)

    following = asyncio.create_task(follow())
    for each in written:
        pending = repository.submit(each)
        if each.base_seq % 8 == 0:
            await pending
    async with asyncio.timeout(PATIENCE):
        await following
    assert seen[1:] == [event for each in written for event in each.events]
