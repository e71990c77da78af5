"""What watchers are given from memory, and how much of it is kept for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from sys import getsizeof
from uuid import UUID, uuid4

import pytest

from persistence.model import Event, Scope
from service.engine.running.output import MAX_OUTPUT
from service.engine.watch import FINISHED, OUTPUT_BYTES, OUTPUTS, Bookmark, Output, Pace, WatchHub, follow


class Pages:
    """A history that is read page by page."""

    def __init__(self, *pages: list[Event]) -> None:
        self._pages = list(pages)

    async def read_events(self, *_: object) -> list[Event]:
        return self._pages.pop(0)


def page(seq: int, kind: str) -> list[Event]:
    return [Event(seq, seq, kind, datetime(2026, 1, 1, tzinfo=UTC), b"x")]


def followed(
    pages: Pages, hub: WatchHub, execution_id: UUID, looked_at: list[Event] | None = None
) -> AsyncIterator[object]:
    """What is given of an execution; adds to `looked_at` what could be spoilt."""

    def mended(event: Event) -> Event:
        if looked_at is not None:
            looked_at.append(event)
        return event

    return follow(pages, hub, Scope("org"), execution_id, 0, Pace(bookmark=0.0), mended)  # type: ignore[arg-type]


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


@pytest.mark.parametrize("character", ["a", "\N{GRINNING FACE}"])
def test_outputs_that_nobody_reads_take_little_room(character: str) -> None:
    hub, execution_id = WatchHub(), uuid4()
    with hub.subscribe(execution_id) as stuck:
        for number in range(2 * OUTPUTS):
            hub.show(execution_id, Output("s", number, character * MAX_OUTPUT))
        left = stuck.outputs(0)
        assert sum(getsizeof(each.text) for each in left) <= OUTPUT_BYTES
        assert [each.attempt for each in left] == list(range(2 * OUTPUTS - len(left), 2 * OUTPUTS))
        assert left
        for number in range(2 * OUTPUTS):
            hub.show(execution_id, Output("s", number, "a"))
        assert len(stuck.outputs(0)) == OUTPUTS
