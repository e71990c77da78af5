"""The committer of a simulated process: the contract of `create` and `submit` over a connection that breaks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from persistence.errors import QueueFullError, UnavailableError
from persistence.model import News
from persistence.transition import CommitResult, Created, NewExecution, Transition

if TYPE_CHECKING:
    from tests.simulation.store import Database, Link

BATCH = 8
MAX_QUEUE = 64
CREATION_TIMEOUT = 2.0
"""Seconds after which whoever waits for a creation is told that its fate is unknown; it may be kept later."""


@dataclass(eq=False, slots=True)
class Item:
    """A write that waits, and the future of its result."""

    value: NewExecution | Transition
    decided: float
    future: asyncio.Future[Any]

    @property
    def execution_id(self) -> UUID:
        """Id of the execution."""
        value = self.value
        return value.execution_id if isinstance(value, Transition) else value.execution.id

    def resolve(self, outcome: object) -> None:
        """Give the caller the outcome."""
        if self.future.done():
            return
        if isinstance(outcome, BaseException):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class Committer:
    """Writes in the order of submission, several at once, and finds out what became of each.

    As the real one: trouble before the commit is retried, after it what was written is read back; only what can
    neither be written nor read back in time is unknown. How long that takes is a part of the scenario: the real one
    waits for a store that is away, and gives up sooner only when others are written meanwhile.
    """

    unknown_timeout = 2.0
    """Seconds from the first trouble."""

    def __init__(self, link: Link, database: Database) -> None:
        self._link = link
        self._database = database
        self._queue: deque[Item] = deque()
        self._wake = asyncio.Event()

    def start(self) -> None:
        """Begin; call it in the process."""
        loop = self._database.loop
        loop.spawn(self._link.process, self._run(), "committer")

    def create(self, new: NewExecution) -> asyncio.Future[Created]:
        """See Journal."""
        if len(self._queue) >= MAX_QUEUE:
            raise QueueFullError(f"{len(self._queue)} writes wait already")
        return self._put(new)

    def submit(self, transition: Transition) -> asyncio.Future[CommitResult]:
        """See Journal."""
        return self._put(transition)

    def _put(self, value: NewExecution | Transition) -> asyncio.Future[Any]:
        loop = self._database.loop
        item = Item(value, loop.time(), loop.create_future())
        self._queue.append(item)
        self._wake.set()
        return item.future

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await asyncio.sleep(0)
                batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
                outcomes = await self._settle(batch)
                for item in batch:
                    self._resolve(item, outcomes[item])
                self._announce(item for item in batch if outcomes[item] is CommitResult.COMMITTED)

    def _resolve(self, item: Item, outcome: object) -> None:
        item.resolve(outcome)
        if isinstance(item.value, Transition) and outcome is not CommitResult.COMMITTED:
            behind = [each for each in self._queue if _is_behind(each, item.value)]
            self._queue = deque(each for each in self._queue if each not in behind)
            for each in behind:
                each.resolve(CommitResult.FENCED)

    async def _settle(self, batch: Sequence[Item]) -> dict[Item, object]:
        """Bring each to its outcome within about `unknown_timeout` of the first trouble."""
        loop = self._database.loop
        begun = loop.time()
        deadline = begun + self.unknown_timeout
        settled: dict[Item, object] = {}
        pending, pause, is_suspect = list(batch), 0.02, False
        while True:
            try:
                if is_suspect:
                    settled |= await self._link.call("read back", partial(self._read_back, pending), lost=False)
                    pending = [item for item in pending if item not in settled]
                if pending:
                    settled |= await self._link.call("flush", partial(self._flush, pending))
                return settled
            except UnavailableError as error:
                is_suspect = is_suspect or "no answer" in str(error)
            if loop.time() + pause >= begun + CREATION_TIMEOUT:
                for item in pending:
                    if isinstance(item.value, NewExecution):
                        item.resolve(_unknown(item))
            if loop.time() + pause >= deadline:
                self._database.history.note(loop.time(), self._link.process, "unknown", len(pending))
                return settled | {item: _unknown(item) for item in pending}
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.5)

    def _flush(self, items: Sequence[Item]) -> dict[Item, object]:
        """Carry out a batch at once, each by itself; what is behind a refused one of its execution is fenced."""
        outcomes: dict[Item, object] = {}
        failed: dict[UUID, int] = {}
        for item in items:
            value = item.value
            if isinstance(value, Transition) and failed.get(value.execution_id) == value.epoch:
                outcomes[item] = CommitResult.FENCED
                continue
            try:
                outcomes[item] = self._write(item)
            except Exception as error:
                outcomes[item] = error
            if isinstance(value, Transition) and outcomes[item] is not CommitResult.COMMITTED:
                failed[value.execution_id] = value.epoch
        return outcomes

    def _write(self, item: Item) -> object:
        process, value = self._link.process, item.value
        if isinstance(value, Transition):
            return self._database.submit(process, value, item.decided)
        row = self._database.tables.executions.get(value.execution.id)
        # It came through on another try.
        return Created.anew(value, row.fresh()) if row else self._database.create(process, value, item.decided)

    def _read_back(self, items: Sequence[Item]) -> dict[Item, object]:
        """Return the outcomes that show in the tables; the others are to be written."""
        found: dict[Item, object] = {}
        passed: dict[UUID, CommitResult | None] = {}
        for item in items:
            value = item.value
            if isinstance(value, Transition):
                if passed.get(value.execution_id, CommitResult.COMMITTED) is CommitResult.COMMITTED:
                    passed[value.execution_id] = self._database.fate(value)
                if (fate := passed[value.execution_id]) is not None:
                    found[item] = fate
            elif (row := self._database.tables.executions.get(value.execution.id)) is not None:
                found[item] = Created.anew(value, row.fresh())
        return found

    def _announce(self, committed: Any) -> None:
        items = [item.value for item in committed]
        if ids := frozenset(t.execution_id for t in items if isinstance(t, Transition)):
            self._link.announce(News(ids, has_work=any(t.release for t in items if isinstance(t, Transition))))


def _is_behind(item: Item, failed: Transition) -> bool:
    value = item.value
    return isinstance(value, Transition) and (value.execution_id, value.epoch) == (failed.execution_id, failed.epoch)


def _unknown(item: Item) -> object:
    if isinstance(item.value, Transition):
        return CommitResult.UNKNOWN
    return UnavailableError("whether the execution was created is unknown")
