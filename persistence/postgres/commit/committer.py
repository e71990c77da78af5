"""Group commit: while one batch is being written the next one gathers, and nobody waits for a clock."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol
from uuid import UUID

from persistence import failpoints
from persistence.errors import PersistenceError, QueueFullError, UnavailableError
from persistence.fair_queue import FairQueue
from persistence.postgres.commit.room import Queued, Room
from persistence.postgres.commit.units import (
    Creation,
    Group,
    Outcome,
    Refusal,
    Submission,
    Unit,
    is_free,
    is_written,
    letters,
)
from persistence.shares import Shares
from persistence.transition import CommitResult, Created, NewExecution, Transition

_log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0

Announce = Callable[..., None]


class BatchWriter(Protocol):
    """What brings batches to the database and to their outcomes: `Writer`, or in the simulation one with faults."""

    @property
    def trouble(self) -> UnavailableError | None:
        """Why nothing could be written at the last try, where that lies with the disk of the database."""
        ...

    async def open(self) -> None:
        """Connect. Raises what the driver raises."""
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...

    def recovered(self) -> None:
        """Say that something can be written again."""
        ...

    async def write(self, units: Sequence[Unit]) -> Mapping[Unit, Outcome]:
        """Write the units and return what became of each. Those without outcome were not written, and come again."""
        ...

    def forget(self, execution_ids: Iterable[UUID]) -> None:
        """Take these as not tried again."""
        ...


class Committer:
    """Writes creations and transitions, up to 1,000 in one transaction: orgs in turn, each in order of submission.

    What something is in the way of, such as a lock that somebody holds, is put aside and tried again, and the others
    go on. After `unknown_timeout` seconds in which others were written it is UNKNOWN.
    """

    def __init__(
        self, writer: BatchWriter, announce: Announce, *, max_queue: int, unknown_timeout: float = 4.0
    ) -> None:
        self._writer = writer
        self._unknown_timeout = unknown_timeout
        # Creations in the order of their deadlines, after which their callers are told that their fate is unknown.
        self._awaited: deque[tuple[float, Creation]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._announce = announce
        self._queue: FairQueue[Queued] = FairQueue()
        # Of the creations in the queue.
        self._shares = Shares(max_queue)
        # What was put aside, by execution, with what came behind it; and since when something is in the way.
        self._aside: dict[UUID, list[Queued]] = {}
        self._obstructed_since: dict[UUID, float] = {}
        self._retry: asyncio.TimerHandle | None = None
        self._in_flight: Sequence[Queued] = ()
        self._was_large = False
        self._last_written = 0.0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def open(self) -> None:
        """Connect and begin. Raises what the driver raises."""
        await self._writer.open()
        self._task = asyncio.create_task(self._run(), name="committer")

    def create(self, new: NewExecution) -> Future[Created]:
        """See Journal."""
        future: Future[Created] = asyncio.get_running_loop().create_future()
        org, owner = new.execution.org, new.execution.owner
        if not self._shares.has_place(org, owner, aside=len(self._queue) - self._shares.held):
            raise QueueFullError(f"{len(self._queue)} writes wait already")
        try:
            creation = Creation(new, future)
        except PersistenceError as error:
            future.set_exception(error)
        else:
            self._shares.take(org, owner)
            self._put(creation)
            self._await(creation)
        return future

    def submit(self, transition: Transition) -> Future[CommitResult]:
        """See Journal."""
        future: Future[CommitResult] = asyncio.get_running_loop().create_future()
        try:
            self._put(Submission(transition, future))
        except PersistenceError as error:
            self._put(Refusal(transition, future, error))  # in its turn, for what waits behind it
        return future

    @property
    def trouble(self) -> UnavailableError | None:
        """Why nothing could be written at the last try, where that lies with the disk of the database."""
        return self._writer.trouble

    def recovered(self) -> None:
        """Say that something can be written again."""
        self._writer.recovered()

    async def close(self, timeout: float = 5.0) -> None:
        """Write what was submitted, then let go of the connection. After `timeout` seconds the rest is unknown."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        task, self._task = self._task, None
        if task is None:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            _log.error("closing with %d writes unknown", sum(not item.future.done() for item in self._unwritten()))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if self._retry is not None:
            self._retry.cancel()
        for item in self._unwritten():
            item.resolve(_lost(item))
        await self._writer.close()

    def _unwritten(self) -> list[Queued]:
        return [*self._in_flight, *(item for items in self._aside.values() for item in items), *self._queue]

    def _put(self, item: Queued) -> None:
        if self._closed:
            item.resolve(UnavailableError("the store is closed"))
            return
        self._queue.append(item.org, item)
        self._idle.clear()
        self._wake.set()

    def _await(self, creation: Creation) -> None:
        while self._awaited and self._awaited[0][1].future.done():
            self._awaited.popleft()
        loop = asyncio.get_running_loop()
        self._awaited.append((loop.time() + self._unknown_timeout, creation))
        if self._timer is None:
            self._timer = loop.call_at(self._awaited[0][0], self._expire)

    def _expire(self) -> None:
        """Tell the callers of creations that took too long; those that no write has begun with are not kept at all."""
        now = asyncio.get_running_loop().time()
        expired: set[Creation] = set()
        while self._awaited and (self._awaited[0][0] <= now or self._awaited[0][1].future.done()):
            creation = self._awaited.popleft()[1]
            if not creation.future.done():
                expired.add(creation)
                creation.resolve(_lost(creation))
        if expired:
            for item in self._queue.take_out(lambda item: item in expired):
                self._give_place_back(item)
        self._timer = None
        if self._awaited and not self._closed:
            self._timer = asyncio.get_running_loop().call_at(self._awaited[0][0], self._expire)

    async def _run(self) -> None:
        while True:
            # It goes on a turn of the loop after the first was submitted: all that one turn submits shares the batch.
            await self._wake.wait()
            self._wake.clear()
            await self._write_next()
            while self._queue:
                await asyncio.sleep(0)  # as above
                await self._write_next()
            if not self._aside:
                self._idle.set()

    async def _write_next(self) -> None:
        """Write the next batch. Whatever goes wrong, each of it gets its answer, and the loop goes on."""
        taken: list[Queued] = []
        self._in_flight = taken
        begun = asyncio.get_running_loop().time()
        try:
            if units := self._cut(taken):
                self._resolve(units, await self._writer.write(units), begun)
                failpoints.hit("flush.after_ack_before_notify")
        except Exception:
            _log.exception("the fate of a batch of %d is unknown", len(taken))
            for item in taken:
                item.resolve(_lost(item))
            groups = [item.transition for item in taken if not isinstance(item, Creation)]
            self._fence({transition.execution_id: transition.epoch for transition in groups})
        self._in_flight = ()

    def _cut(self, taken: list[Queued]) -> list[Unit]:
        """Move the next batch from the queue to `taken`; transitions of one execution become one group."""
        units: list[Unit] = []
        groups: dict[UUID, Group] = {}
        room = Room(large_waits=self._was_large)
        while room.is_left and (item := self._next(room)) is not None:
            taken.append(item)
            room.take(item)
            if isinstance(item, Creation):
                self._give_place_back(item)
                units.append(item)
                continue
            transition = item.transition
            if (before := self._aside.get(transition.execution_id)) is not None:
                before.append(item)
            elif (group := groups.get(transition.execution_id)) is not None:
                if isinstance(item, Refusal) or not group.accepts(item):
                    self._queue.put_back(item.org, taken.pop())
                    break
            elif isinstance(item, Submission):
                groups[transition.execution_id] = Group(item)
            else:
                item.resolve(item.error)
                self._fence({transition.execution_id: transition.epoch})
        units.extend(groups.values())
        self._was_large = any([item.is_large for item in taken])
        return units

    def _next(self, room: Room) -> Queued | None:
        with suppress(StopIteration):
            return self._queue.next(room.passes)
        if self._queue and room.large_waits and room.is_empty:  # nobody has anything small
            room.large_waits = False
            return self._queue.next()
        return None

    def _resolve(self, units: Sequence[Unit], outcomes: Mapping[Unit, Outcome], begun: float) -> None:
        failed: dict[UUID, int] = {}
        self._announce_all(units, outcomes)
        if any(map(is_written, outcomes.values())):
            self._last_written = asyncio.get_running_loop().time()
        for unit in units:
            outcome = outcomes.get(unit)
            if outcome is None and (outcome := self._put_aside(unit, begun)) is None:
                continue
            self._obstructed_since.pop(unit.execution_id, None)
            unit.resolve(outcome)
            if isinstance(unit, Group) and (outcome is not CommitResult.COMMITTED or unit.behind):
                failed[unit.last.execution_id] = unit.last.epoch
        if failed:
            self._fence(failed)
        if self._aside and self._retry is None:
            now = asyncio.get_running_loop().time()
            # As long as it has waited already.
            waited = now - max(self._obstructed_since[each] for each in self._aside)
            self._retry = asyncio.get_running_loop().call_later(
                min(max(waited, _FIRST_PAUSE), _LONGEST_PAUSE), self._try_again
            )

    def _put_aside(self, unit: Unit, begun: float) -> Outcome | None:
        """Keep what could not be written; or return its outcome, when it has been kept for long enough.

        While nothing else can be written either, it is the database that is in trouble, and it is waited for.
        """
        since = self._obstructed_since.setdefault(unit.execution_id, begun)
        if isinstance(unit, Creation):
            self._aside[unit.execution_id] = [unit]  # its own timer tells the caller
            return None
        if self._last_written > since and asyncio.get_running_loop().time() - since >= self._unknown_timeout:
            return CommitResult.UNKNOWN
        self._aside[unit.execution_id] = [*unit.items, *unit.behind]
        return None

    def _try_again(self) -> None:
        """Put what was put aside back to where it was in the queue."""
        self._retry = None
        aside, self._aside = self._aside, {}
        given_up = {key for key, items in aside.items() if isinstance(items[0], Creation) and items[0].future.done()}
        self._writer.forget(given_up)
        for key in given_up:
            del self._obstructed_since[key]
        for item in reversed([item for key in aside.keys() - given_up for item in aside[key]]):
            if isinstance(item, Creation):
                self._shares.take(item.org, item.execution.owner)
            self._queue.put_back(item.org, item)
        self._wake.set()

    def _announce_all(self, units: Sequence[Unit], outcomes: Mapping[Unit, Outcome]) -> None:
        """Tell the other processes what was written, also of a group of which something was not."""
        written = {unit for unit, outcome in outcomes.items() if is_written(outcome)}
        groups = [unit for unit in units if isinstance(unit, Group)]
        early = [item for group in groups for item in group.early]
        if written or early:
            has_work = any(unit.is_free for unit in written) or any(is_free(item.transition) for item in early)
            changed = {unit.execution_id for unit in written} | {item.transition.execution_id for item in early}
            self._announce(changed, has_work=has_work)
        sent = [*letters(early), *(letter for group in groups if group in written for letter in group.letters)]
        if sent:
            self._announce({letter.execution_id for letter in sent}, has_mail=True)

    def _fence(self, failed: Mapping[UUID, int]) -> None:
        """Fence what waits behind these failed transitions, of the same epochs."""

        def is_behind(item: Queued) -> bool:
            return not isinstance(item, Creation) and failed.get(item.transition.execution_id) == item.transition.epoch

        for item in self._queue.take_out(is_behind):
            item.resolve(CommitResult.FENCED)

    def _give_place_back(self, item: Queued) -> None:
        if isinstance(item, Creation):
            self._shares.give_back(item.org, item.execution.owner)


def _lost(item: Unit | Queued) -> Outcome:
    if isinstance(item, Creation):
        return UnavailableError("the store failed; whether the execution was created is unknown")
    return CommitResult.UNKNOWN
