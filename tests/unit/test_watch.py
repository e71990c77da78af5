"""What watchers are given from memory, and how much of it is kept for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from sys import getsizeof
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest

from persistence import failpoints
from persistence.errors import UnavailableError
from persistence.model import Event, ExecutionState, Scope
from service.engine import finds
from service.engine.running.output import MAX_OUTPUT
from service.engine.watch import (
    FINISHED,
    OUTPUT_BYTES,
    OUTPUTS,
    PAGE,
    PAGE_BYTES,
    RING,
    RING_BYTES,
    Bookmark,
    Output,
    Pace,
    ShuttingDownError,
    Subscription,
    WatchHub,
    follow,
)
from tests.patience import PATIENCE, judged


class Pages:
    """A history that is read page by page."""

    def __init__(self, *pages: list[Event], state: ExecutionState = ExecutionState.RUNNING) -> None:
        self._pages = list(pages)
        self.execution = SimpleNamespace(state=state, last_seq=1)

    async def get_execution(self, scope: Scope, execution_id: UUID) -> SimpleNamespace:
        assert scope == Scope("org")
        return self.execution

    async def read_events(self, *_: object) -> list[Event]:
        return self._pages.pop(0)

    def add(self, page: list[Event]) -> None:
        """Have one page more."""
        self._pages.append(page)

    @property
    def left(self) -> int:
        """How many pages have not been read."""
        return len(self._pages)


def page(seq: int, kind: str) -> list[Event]:
    return [Event(seq, seq, kind, datetime(2026, 1, 1, tzinfo=UTC), b"x")]


async def reads() -> None:
    """Let a follower read what there is, and wait."""
    for _ in range(5):
        await asyncio.sleep(0)


OFTEN, RARE = Pace(bookmark=0.0), Pace(poll=60.0, bookmark=60.0)


def followed(
    pages: Pages, hub: WatchHub, execution_id: UUID, looked_at: list[Event] | None = None, pace: Pace = OFTEN
) -> AsyncIterator[object]:
    """What is given of an execution; adds to `looked_at` what could be spoilt."""

    def mended(event: Event) -> Event:
        if looked_at is not None:
            looked_at.append(event)
        return event

    return follow(pages, hub, Scope("org"), execution_id, 0, pace, mended)  # type: ignore[arg-type]


def transitions(first: int, last: int, size: int = 1) -> list[Event]:
    """Events of these numbers, two in each transition."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return [Event(seq, seq + seq % 2, "happened", now, b"x" * size) for seq in range(first, last + 1)]


def at_hand(watching: Subscription, last: int) -> list[int]:
    """The numbers of the events that need not be read, up to this one."""
    first = next(seq for seq in range(last + 1) if watching.after(seq))
    found = list[int]()
    while page := watching.after(found[-1] if found else first):
        assert page[-1].seq == page[-1].transition_seq
        found += [event.seq for event in page]
    return found


@pytest.mark.parametrize(("size", "most"), [(1, RING), (RING_BYTES // 128, 128)])
def test_so_many_events_are_at_hand_and_of_whole_transitions(size: int, most: int) -> None:
    hub, execution_id = WatchHub(), uuid4()
    with hub.subscribe(execution_id) as watching:
        hub.publish(execution_id, transitions(1, most, size))
        assert at_hand(watching, most) == list(range(1, most + 1))
        hub.publish(execution_id, transitions(most + 1, most + 2, size))
        kept = at_hand(watching, most + 2)
        assert kept == list(range(kept[0], most + 3))
        assert kept[0] % 2 == 1 and most // 2 <= len(kept) <= most // 2 + 2
        # What was let go counts no more.
        hub.publish(execution_id, transitions(most + 3, most + 2 + most // 4, size))
        assert at_hand(watching, most + 2)[0] == kept[0]


def test_after_a_gap_what_was_before_is_at_hand_no_more() -> None:
    hub, execution_id = WatchHub(), uuid4()
    with hub.subscribe(execution_id) as watching:
        hub.publish(execution_id, transitions(1, 4))
        hub.publish(execution_id, transitions(7, 8))
        assert [len(watching.after(seq)) for seq in range(9)] == [0, 0, 0, 0, 0, 0, 2, 1, 0]
    assert not hub.is_watched(execution_id)


@pytest.mark.parametrize(("size", "most"), [(1, PAGE), (PAGE_BYTES // 8, 8)])
def test_a_page_ends_with_a_transition_when_it_is_full(size: int, most: int) -> None:
    hub, execution_id = WatchHub(), uuid4()
    with hub.subscribe(execution_id) as watching:
        hub.publish(execution_id, transitions(1, 2 * most, size))
        assert [event.seq for event in watching.after(0)] == list(range(1, most + 1))


async def test_bookmarks_come_between_events_too() -> None:
    """W6: at least every 10 s, here 0 s, however much there is to tell."""
    pages = Pages(page(1, "created"), page(2, FINISHED))
    told = [each async for each in followed(pages, WatchHub(), uuid4())]
    assert told == [page(1, "created"), Bookmark(1), page(2, FINISHED), Bookmark(2)]


async def test_what_this_process_committed_is_given_as_it_is() -> None:
    """To look into each event for each watcher takes longer than to send it."""
    hub, execution_id, looked_at = WatchHub(), uuid4(), list[Event]()
    given = followed(Pages(page(1, "created")), hub, execution_id, looked_at)
    assert await anext(given) == page(1, "created")
    hub.publish(execution_id, page(2, FINISHED))
    assert [each async for each in given if each != Bookmark(1)] == [page(2, FINISHED), Bookmark(2)]
    assert looked_at == page(1, "created")


async def test_the_table_is_read_no_more_than_it_has_to_be_and_when_something_is_not_at_hand() -> None:
    hub, execution_id = WatchHub(), uuid4()
    pages = Pages(page(1, "created"), [], transitions(2, 5))
    async with asyncio.timeout(PATIENCE):
        given = followed(pages, hub, execution_id, pace=RARE)
        assert await anext(given) == page(1, "created")
        coming = asyncio.ensure_future(anext(given))
        await reads()
        assert pages.left == 1
        hub.publish(execution_id, transitions(5, 6))
        assert await coming == transitions(2, 5)
        assert await anext(given) == transitions(6, 6)
        hub.publish(execution_id, page(7, FINISHED))
        assert [each async for each in given] == [page(7, FINISHED), Bookmark(7)]


async def test_events_are_counted_that_a_watcher_found_without_having_been_told() -> None:
    hub, execution_id = WatchHub(), uuid4()
    async with asyncio.timeout(PATIENCE):
        polling = followed(
            Pages(page(1, "created"), [], page(2, FINISHED)), hub, execution_id, pace=Pace(poll=0.0, bookmark=60.0)
        )
        assert [each async for each in polling] == [page(1, "created"), page(2, FINISHED), Bookmark(2)]
        await judged(hub.finds)
        assert hub.finds.counts == {"events": 1}
        told = followed(Pages(page(1, "created"), [], page(2, FINISHED)), hub, execution_id, pace=RARE)
        assert await anext(told) == page(1, "created")
        coming = asyncio.ensure_future(anext(told))
        await reads()
        hub.wake([execution_id])
        assert await coming == page(2, FINISHED)
        await judged(hub.finds)
        assert hub.finds.counts == {"events": 1}


async def test_what_was_found_is_counted_each_time_and_kept_no_longer_than_until_it_is_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(finds, "PATIENCE", 0.0)
    hub, executions = WatchHub(), [uuid4() for _ in range(5)]
    for execution_id in (*executions, *executions[:2]):
        hub.found(execution_id)
    hub.wake(executions[1:2])
    async with asyncio.timeout(PATIENCE):
        await judged(hub.finds)
    assert hub.finds.counts == {"events": 5}
    assert not hub._untold


async def test_an_event_that_is_told_of_just_after_it_was_found_is_not_counted() -> None:
    hub, execution_id = WatchHub(), uuid4()
    async with asyncio.timeout(PATIENCE):
        given = followed(
            Pages(page(1, "created"), [], page(2, FINISHED)), hub, execution_id, pace=Pace(poll=0.0, bookmark=60.0)
        )
        assert [each async for each in given] == [page(1, "created"), page(2, FINISHED), Bookmark(2)]
        hub.wake([execution_id])
        await judged(hub.finds)
    assert not hub.finds.counts


async def test_what_is_told_in_the_turn_in_which_a_wait_runs_out_has_been_told() -> None:
    execution_id, hub = uuid4(), WatchHub()
    with hub.subscribe(execution_id) as subscription:
        waiting = asyncio.create_task(subscription.wait(0, 0.0))
        for _ in range(3):  # it begins, its time is over, and it has not gone on
            await asyncio.sleep(0)
        assert not waiting.done()
        hub.wake([execution_id])
        assert await waiting
        assert not subscription.is_untold


@pytest.mark.parametrize(
    ("place", "before"),
    [
        ("after_listen_before_read", []),
        ("after_read_before_write", []),
        ("between_pages", [page(1, "created")]),
    ],
)
async def test_a_watch_can_be_broken_at_each_of_its_places(place: str, before: list[object]) -> None:
    failpoints.arm({failpoints.SETTING: f"watch.{place}=raise", failpoints.ENVIRONMENT: "test"})
    given = []
    try:
        with pytest.raises(UnavailableError):
            async for each in followed(Pages(page(1, "created")), WatchHub(), uuid4(), pace=RARE):
                given.append(each)
    finally:
        failpoints.arm({})
    assert given == before


async def test_a_sign_of_life_comes_before_the_next_look_at_the_table() -> None:
    given = followed(Pages(page(1, "created"), [], []), WatchHub(), uuid4(), pace=Pace(60.0, 0.01))
    async with asyncio.timeout(PATIENCE):
        assert await anext(given) == page(1, "created")
        assert await anext(given) == Bookmark(1)


async def test_there_is_an_end_where_an_execution_has_ended_and_all_of_it_was_told() -> None:
    ended = Pages(page(1, "created"), [], state=ExecutionState.COMPLETED)
    told = [each async for each in followed(ended, WatchHub(), uuid4())]
    assert told == [page(1, "created"), Bookmark(1), Bookmark(1)]
    # One that goes on, or ended later than what was told, says nothing of an end.
    hub, execution_id = WatchHub(), uuid4()
    for pages in (Pages([]), Pages([], state=ExecutionState.COMPLETED)):
        async with asyncio.timeout(PATIENCE):
            coming = asyncio.ensure_future(anext(followed(pages, hub, execution_id, pace=RARE)))
            await reads()
            assert hub.is_watched(execution_id)
            hub.publish(execution_id, page(1, FINISHED))
            assert await coming == page(1, FINISHED)


async def test_at_the_end_of_the_process_all_are_told_at_once() -> None:
    hub = WatchHub()
    pages = Pages(page(1, "created"), [])
    given = followed(pages, hub, uuid4(), pace=RARE)
    async with asyncio.timeout(PATIENCE):
        assert await anext(given) == page(1, "created")
        coming = asyncio.ensure_future(anext(given))
        await reads()
        pages.add([])
        hub.close()
        with pytest.raises(ShuttingDownError):
            await coming


async def test_a_wait_takes_its_own_time_whatever_the_last_one_was_to_take() -> None:
    hub, execution_id, clock = WatchHub(), uuid4(), asyncio.get_running_loop().time
    with hub.subscribe(execution_id) as watching:
        for longest in (0.02, 60.0):  # both are woken, so that their timers are left
            waiting = asyncio.ensure_future(watching.wait(0, longest))
            await asyncio.sleep(0)
            hub.wake([execution_id])
            assert await waiting
            begun = clock()
            async with asyncio.timeout(PATIENCE):
                assert await watching.wait(0, 0.05)
            assert 0.04 < clock() - begun < PATIENCE / 2


@pytest.mark.parametrize("character", ["a", "\N{GRINNING FACE}"])
def test_outputs_that_nobody_reads_take_little_room(character: str) -> None:
    hub, execution_id = WatchHub(), uuid4()
    with hub.subscribe(execution_id) as stuck:
        for number in range(2 * OUTPUTS):
            hub.show(execution_id, Output("s", number, character * MAX_OUTPUT, 1))
        left = stuck.outputs(0)
        assert sum(getsizeof(each.text) for each in left) <= OUTPUT_BYTES
        assert [each.attempt for each in left] == list(range(2 * OUTPUTS - len(left), 2 * OUTPUTS))
        assert left
        for number in range(2 * OUTPUTS):
            hub.show(execution_id, Output("s", number, "a", 1))
        assert len(stuck.outputs(0)) == OUTPUTS
