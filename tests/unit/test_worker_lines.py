"""Who waits for a worker keeps its place for as long as there is one to wait for."""

from __future__ import annotations

from typing import Any

from service.engine.handlers.model import Handler
from service.engine.wishes import Wishes
from service.engine.workers.lines import Seat
from service.engine.workers.model import Command, Declared, Registration
from service.engine.workers.pool import StreamReplacedError, Workers

FAST = Wishes(labels=(("disk", "fast"),))


class Stream:
    """A stream to a worker that nobody reads."""

    def __init__(self) -> None:
        self.ended: Exception | None = None

    def tell(self, command: Command) -> None:
        """See Link."""

    def end(self, error: Exception | None = None) -> None:
        """See Link."""
        self.ended = error


async def _run(params: Any, context: Any) -> None:
    """Nothing: no attempt begins here."""


def attach(workers: Workers, *names: str, worker_id: str = "one", **labels: str) -> Stream:
    """Connect a worker with room for one attempt of these handlers."""
    declared = tuple(map(Declared, names))
    said = Registration("acme", "ann", worker_id, worker_id, "1", 1, declared, labels=labels)
    stream = Stream()
    workers.attach(said, [Handler(name=name, run=_run) for name in names], stream)
    return stream


async def granted(*seats: Seat) -> list[bool]:
    """Which of these seats need not be waited for any more."""
    return [await seat.granted(0.0) for seat in seats]


async def test_a_new_stream_of_a_worker_leaves_those_that_wait_in_their_places() -> None:
    workers = Workers()
    old = attach(workers, "work", "gone", disk="fast")
    busy = workers.queue_up("acme", "work")
    first, chosen, second = (workers.queue_up("acme", "work", wishes) for wishes in (Wishes(), FAST, Wishes()))
    without = workers.queue_up("acme", "gone")
    attach(workers, "work", disk="fast")
    assert isinstance(old.ended, StreamReplacedError)
    assert await granted(first, chosen, second, without) == [False, False, False, True]
    assert without.worker is None  # nobody has it any more
    for held, after, waiting in ((busy, first, chosen), (first, chosen, second)):
        held.close()
        assert await granted(after, waiting) == [True, False]
        assert after.worker is not None


async def test_a_worker_that_comes_back_with_other_labels_leaves_the_lines_that_wish_for_the_old_ones() -> None:
    workers = Workers()
    attach(workers, "work", disk="fast")
    busy, chosen, any_other = (
        workers.queue_up("acme", "work"),
        *(workers.queue_up("acme", "work", wishes) for wishes in (FAST, Wishes())),
    )
    attach(workers, "work", disk="slow")
    assert await granted(busy, chosen, any_other) == [True, True, False]
    assert (chosen.worker, busy.worker is None) == (None, False)


async def test_room_that_was_kept_for_a_handler_which_the_worker_has_no_more_goes_to_others() -> None:
    workers = Workers()
    attach(workers, "gone", "work")
    kept, waiting = workers.queue_up("acme", "gone"), workers.queue_up("acme", "work")
    attach(workers, "work")
    assert await granted(kept, waiting) == [True, False]
    assert kept.take() is None
    assert await granted(waiting) == [True]
