"""Group commit: while one batch is being written the next one gathers, and nobody waits for a clock."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeAlias
from uuid import UUID

from persistence import failpoints
from persistence.errors import PersistenceError, QueueFullError, UnavailableError
from persistence.model import CommitResult, Created, NewExecution, Transition
from persistence.postgres.batch import Creation, Group, Outcome, Refusal, Submission, Unit
from persistence.postgres.connection import Database
from persistence.postgres.writer import Writer

_log = logging.getLogger(__name__)

_BATCH = 1_000
_BATCH_BYTES = 4 << 20

Announce = Callable[..., None]

_Queued: TypeAlias = "Creation | Submission | Refusal"


class Committer:
    """Writes creations and transitions in the order of their submission, up to 1,000 in one transaction."""

    def __init__(self, database: Database, announce: Announce, *, max_queue: int, unknown_timeout: float = 4.0) -> None:
        self._writer = Writer(database, unknown_timeout)
        self._unknown_timeout = unknown_timeout
        # Creations in the order of their deadlines, after which their callers are told that their fate is unknown.
        self._awaited: deque[tuple[float, Creation]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._announce = announce
        self._max_queue = max_queue
        self._queue: deque[_Queued] = deque()
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
        if len(self._queue) >= self._max_queue:
            raise QueueFullError(f"{len(self._queue)} writes wait already")
        try:
            creation = Creation(new, future)
        except PersistenceError as error:
            future.set_exception(error)
        else:
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

    async def close(self, timeout: float = 10.0) -> None:
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
            _log.error("closing with %d writes unknown", len(self._queue))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for item in self._queue:
            item.resolve(_lost(item))
        await self._writer.close()

    def _put(self, item: _Queued) -> None:
        if self._closed:
            item.resolve(UnavailableError("the store is closed"))
            return
        self._queue.append(item)
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
            self._queue = deque(item for item in self._queue if item not in expired)
        self._timer = None
        if self._awaited and not self._closed:
            self._timer = asyncio.get_running_loop().call_at(self._awaited[0][0], self._expire)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await asyncio.sleep(0)  # all that this turn of the loop submits shares the batch
                await self._write(self._cut())
            self._idle.set()

    def _cut(self) -> list[Unit]:
        """Take the next batch from the queue; transitions of one execution become one group."""
        units: list[Unit] = []
        groups: dict[UUID, Group] = {}
        room = _BATCH_BYTES
        for _ in range(_BATCH):
            if not self._queue or room <= 0:
                break
            item = self._queue[0]
            room -= item.size
            if isinstance(item, Creation):
                units.append(item)
            elif (group := groups.get(item.transition.execution_id)) is not None:
                if isinstance(item, Refusal) or not group.accepts(item):
                    break
            elif isinstance(item, Submission):
                groups[item.transition.execution_id] = Group(item)
            self._queue.popleft()
            if isinstance(item, Refusal):
                item.resolve(item.error)
                self._fence({item.transition.execution_id: item.transition.epoch})
        units.extend(groups.values())
        return units

    async def _write(self, units: list[Unit]) -> None:
        if not units:
            return
        outcomes: Mapping[Unit, Outcome] = {}
        try:
            outcomes = await self._writer.write(units)
        except Exception:
            _log.exception("flush of %d items failed", len(units))
        finally:
            self._resolve(units, outcomes)
        failpoints.hit("flush.after_ack_before_notify")

    def _resolve(self, units: list[Unit], outcomes: Mapping[Unit, Outcome]) -> None:
        failed: dict[UUID, int] = {}
        self._announce_all(outcomes)
        for unit in units:
            outcome = outcomes.get(unit)
            unit.resolve(_lost(unit) if outcome is None else outcome)
            if isinstance(unit, Group) and (outcome is not CommitResult.COMMITTED or unit.behind):
                failed[unit.last.execution_id] = unit.last.epoch
        if failed:
            self._fence(failed)

    def _announce_all(self, outcomes: Mapping[Unit, Outcome]) -> None:
        """Tell the other processes what was written."""
        written = {unit for unit, outcome in outcomes.items() if _is_written(outcome)}
        if written:
            self._announce([unit.execution_id for unit in written], has_work=any(unit.is_free for unit in written))

    def _fence(self, failed: Mapping[UUID, int]) -> None:
        """Fence what waits behind these failed transitions, of the same epochs."""
        kept: deque[_Queued] = deque()
        for item in self._queue:
            if not isinstance(item, Creation) and failed.get(item.transition.execution_id) == item.transition.epoch:
                item.resolve(CommitResult.FENCED)
            else:
                kept.append(item)
        self._queue = kept


def _is_written(outcome: Outcome) -> bool:
    return outcome is CommitResult.COMMITTED or (isinstance(outcome, Created) and outcome.created)


def _lost(item: Unit | _Queued) -> Outcome:
    if isinstance(item, Creation):
        return UnavailableError("the store failed; whether the execution was created is unknown")
    return CommitResult.UNKNOWN
