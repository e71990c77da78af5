"""Wake-ups for watchers. The table is the truth; what is kept here only saves reading it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from sys import getsizeof
from uuid import UUID

from persistence import failpoints
from persistence.model import Event, Scope
from persistence.repository import ExecutionRepository
from service.engine.finds import Finds
from service.engine.people.audience import Audience

PAGE = 256
PAGE_BYTES = 256 << 10
RING = 1024
RING_BYTES = 2 << 20
OUTPUTS = 256
OUTPUT_BYTES = 1 << 20
"""With what gRPC holds for a reader, both stay well below the 8 MiB of CONTRACT W12."""
FINISHED = "finished"


class ShuttingDownError(Exception):
    """This process is going; another one answers."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a running attempt shows and nobody keeps."""

    path: str
    attempt: int
    text: str
    iteration: int


class _Topic:
    """The newest events and outputs of one execution that is being watched, and who waits for more."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.last_seq = 0
        # Each with the events that were committed before it.
        self.outputs: deque[tuple[int, Output]] = deque()
        self.output_count = 0
        # In the order in which they came, so that all that follows has an order.
        self.subscriptions: dict[Subscription, None] = {}
        self._size = self._outputs_size = 0

    def publish(self, events: Sequence[Event]) -> None:
        if self.events and events[0].seq != self.events[-1].seq + 1:
            self.events, self._size = [], 0
        self.events.extend(events)
        self.last_seq = events[-1].seq
        self._size += _size(events)
        if len(self.events) > RING or self._size > RING_BYTES:
            # Cut at the end of a transition, so that none is ever torn.
            half = len(self.events) // 2
            cut = next(i for i, e in enumerate(self.events) if i >= half and e.seq == e.transition_seq) + 1
            self._size -= _size(self.events[:cut])
            del self.events[:cut]
        for subscription in self.subscriptions:
            subscription.wake()

    def show(self, output: Output) -> None:
        self.outputs.append((self.last_seq, output))
        self.output_count += 1
        self._outputs_size += getsizeof(output.text)
        while len(self.outputs) > OUTPUTS or self._outputs_size > OUTPUT_BYTES:
            self._outputs_size -= getsizeof(self.outputs.popleft()[1].text)
        for subscription in self.subscriptions:
            subscription.wake()

    def after(self, seq: int) -> Sequence[Event]:
        """Return the next events after `seq` if they are at hand, a page of whole transitions at most; else none."""
        if not self.events or not self.events[0].seq <= seq + 1 <= self.events[-1].seq:
            return ()
        start, size = seq + 1 - self.events[0].seq, 0
        for end, event in enumerate(self.events[start:], start + 1):
            size += len(event.body)
            if event.seq == event.transition_seq and (end - start >= PAGE or size >= PAGE_BYTES):
                return self.events[start:end]
        return self.events[start:]


def _size(events: Sequence[Event]) -> int:
    return sum(len(event.body) for event in events)


class Subscription:
    """A cursor's wake-up: it holds no events of its own."""

    def __init__(self, topic: _Topic) -> None:
        self._topic = topic
        self._heard = topic.output_count
        self._is_woken = self._must_read = False
        self.is_untold = False
        """Whether the last wait ended without a reason, and none has come since."""
        # While it waits: what ends the wait. The timer outlives waits that are woken, as many are for one that is not.
        self._end: asyncio.Future[None] | None = None
        self._until = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def after(self, seq: int) -> Sequence[Event]:
        """Return the next events after `seq` if they are at hand, else none: then read the table."""
        return self._topic.after(seq)

    def outputs(self, seq: int) -> Sequence[Output]:
        """Return what was shown since the last call, up to what came after an event beyond `seq`."""
        topic = self._topic
        if topic.output_count == self._heard:
            return ()
        unheard = min(topic.output_count - self._heard, len(topic.outputs))
        due = [
            each for after_seq, each in islice(topic.outputs, len(topic.outputs) - unheard, None) if after_seq <= seq
        ]
        self._heard = topic.output_count - unheard + len(due)
        return due

    async def wait(self, seq: int, timeout: float) -> bool:
        """Return after the next commit or output of the execution by this process, or after `timeout` seconds.

        True when the table must be read to know what comes after `seq`.
        """
        if not self._is_woken:
            await self._ended(timeout)
        if not self._is_woken:
            self.is_untold = True
            return True
        must_read, self._is_woken, self._must_read = self._must_read, False, False
        return must_read or (self._topic.last_seq > seq and not self._topic.after(seq))

    def wake(self, *, must_read: bool = False) -> None:
        """End the wait. `must_read`: something may have been committed that is not at hand."""
        self._must_read |= must_read
        self._is_woken, self.is_untold = True, False
        if self._end is not None and not self._end.done():
            self._end.set_result(None)

    def close(self) -> None:
        """Wait no more."""
        if self._timer is not None:
            self._timer.cancel()

    async def _ended(self, timeout: float) -> None:
        """Return when it is woken, or after `timeout` seconds."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        loop = self._loop
        self._until = loop.time() + timeout
        if self._timer is not None and self._timer.when() > self._until:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = loop.call_at(self._until, self._ring)
        self._end = loop.create_future()
        try:
            await self._end
        finally:
            self._end = None

    def _ring(self) -> None:
        self._timer = None
        if self._end is None or self._end.done():
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._until:
            self._timer = loop.call_at(self._until, self._ring)
        else:
            self._end.set_result(None)


class WatchHub:
    """Hands committed events of this process to its own watchers."""

    def __init__(self) -> None:
        self._topics: dict[UUID, _Topic] = {}
        self.is_closed = False
        self.people = Audience()
        """Those who watch tasks of people."""
        self.finds = Finds()
        """Counts, among others, how often a watcher found events in the table that nothing had told of."""
        # What watchers have found, by execution, until something tells of it or it is judged.
        self._untold: dict[UUID, set[object]] = {}

    def close(self) -> None:
        """End every watcher: each raises ShuttingDownError, so that its client resumes elsewhere."""
        self.is_closed = True
        self.finds.close()
        self.people.tell()
        self.wake_all()

    def publish(self, execution_id: UUID, events: Sequence[Event]) -> None:
        """Offer events that were just committed; a no-op when nobody watches the execution."""
        self._untold.pop(execution_id, None)
        if events and (topic := self._topics.get(execution_id)) is not None:
            topic.publish(events)

    def is_watched(self, execution_id: UUID) -> bool:
        """Whether anybody here watches the execution."""
        return execution_id in self._topics

    def show(self, execution_id: UUID, output: Output) -> None:
        """Give the watchers of this process an output; those that are far behind may miss it."""
        if (topic := self._topics.get(execution_id)) is not None:
            topic.show(output)

    def wake(self, executions: Iterable[UUID]) -> None:
        """Make the watchers of these executions look at the table: another process may have committed something."""
        for execution_id in executions:
            self._untold.pop(execution_id, None)
            if (topic := self._topics.get(execution_id)) is not None:
                for subscription in topic.subscriptions:
                    subscription.wake(must_read=True)

    def wake_all(self) -> None:
        """Make every watcher look at the table: after anything that may have hidden a commit."""
        self.wake(self._topics)
        self._untold.clear()

    def found(self, execution_id: UUID) -> None:
        """Take note that a watcher has found events which nothing had told of until then."""
        find = object()
        self._untold.setdefault(execution_id, set()).add(find)

        def was_told() -> bool:
            return find not in self._untold.get(execution_id, ())

        self.finds.note("events", 1, was_told, lambda: self._forget(execution_id, find))

    def _forget(self, execution_id: UUID, find: object) -> None:
        finds = self._untold.get(execution_id, set())
        finds.discard(find)
        if not finds:
            self._untold.pop(execution_id, None)

    @contextmanager
    def subscribe(self, *ids: UUID) -> Iterator[Subscription]:
        """Give a subscription to the commits of an execution, or to all that is told under any of several ids."""
        topics = {each: self._topics.setdefault(each, _Topic()) for each in ids}
        subscription = Subscription(topics[ids[0]])
        for topic in topics.values():
            topic.subscriptions[subscription] = None
        try:
            yield subscription
        finally:
            subscription.close()
            for each, topic in topics.items():
                topic.subscriptions.pop(subscription, None)
                if not topic.subscriptions:
                    self._topics.pop(each, None)


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Everything up to and including `seq` was sent."""

    seq: int


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a watcher looks at the table without being woken, and gives a sign of life; in seconds."""

    poll: float = 2.0
    bookmark: float = 10.0


async def follow(
    executions: ExecutionRepository,
    hub: WatchHub,
    scope: Scope,
    execution_id: UUID,
    after_seq: int,
    pace: Pace,
    mended: Callable[[Event], Event],
) -> AsyncIterator[Sequence[Event] | Bookmark | Output]:
    """Give every event after `after_seq` in order, whole transitions at a time, and bookmarks; ends after the last.

    Outputs of running attempts come in between, each after the events that were committed before it. `mended` returns
    what is given for an event of the table, which may be spoilt; those of this process are given as they are.

    Raises ExecutionNotFoundError, CursorAheadError, CursorExpiredError, ShuttingDownError.
    """
    clock = asyncio.get_running_loop().time

    async def read(seq: int) -> Sequence[Event]:
        return [mended(event) for event in await executions.read_events(scope, execution_id, seq, PAGE)]

    # Subscribe first, then read: what is committed in between wakes the subscription.
    with hub.subscribe(execution_id) as subscription:
        await failpoints.reach("watch.after_listen_before_read")
        page = await read(after_seq)
        cursor, spoken, is_stored = after_seq, clock(), True
        if not page and await _ends_at(executions, scope, execution_id, cursor):
            yield Bookmark(cursor)
            return
        while True:
            if page:
                await failpoints.reach("watch.after_read_before_write")
                yield page
                cursor = page[-1].seq
                # Of a history that is read in full pages, it may be the end of a run which another one follows.
                is_last = page[-1].kind == FINISHED and not (is_stored and _is_full(page))
                if is_last or (page[-1].kind == FINISHED and await _ends_at(executions, scope, execution_id, cursor)):
                    yield Bookmark(cursor)
                    return
            if clock() - spoken >= pace.bookmark:
                yield Bookmark(cursor)
                spoken = clock()
                # Its last event may be there and not be known as one.
                if not page and await _ends_at(executions, scope, execution_id, cursor):
                    return
            for output in subscription.outputs(cursor):
                yield output
            if hub.is_closed:
                raise ShuttingDownError
            await failpoints.reach("watch.between_pages")
            # A page from the table may not be the last: what follows it is read at once.
            may_follow, page = bool(page) and is_stored, subscription.after(cursor)
            is_stored = not page
            if is_stored and (
                may_follow or await subscription.wait(cursor, min(pace.poll, spoken + pace.bookmark - clock()))
            ):
                page = await read(cursor)
                if page and subscription.is_untold:
                    hub.found(execution_id)
                subscription.is_untold = False


def _is_full(page: Sequence[Event]) -> bool:
    """Return whether so much was read that a small transition may have had no room behind it."""
    return len(page) >= PAGE - 1 or _size(page) >= PAGE_BYTES // 2


async def _ends_at(executions: ExecutionRepository, scope: Scope, execution_id: UUID, seq: int) -> bool:
    execution = await executions.get_execution(scope, execution_id)
    return execution.state.is_end and execution.last_seq == seq
