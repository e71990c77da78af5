"""The threads of a worker: a bounded number, none of which holds up the end of its process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeAlias

_Outcome: TypeAlias = tuple[Any, BaseException | None]


class Threads:
    """Runs calls in at most `limit` threads; those beyond wait for one.

    Those of an executor would be waited for when the process ends.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._started = 0
        self._pending = 0

    async def run(self, call: Callable[[], Any]) -> Any:
        """Return what `call` returns, or raise what it raises. One that was cancelled before it began is not made."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Outcome] = loop.create_future()

        def work() -> None:
            # A future can hold neither StopIteration nor what is meant to end the process.
            outcome: _Outcome
            try:
                outcome = None if future.cancelled() else call(), None
            except BaseException as error:
                outcome = None, error
            with suppress(RuntimeError):  # of a loop that has been closed meanwhile
                loop.call_soon_threadsafe(self._ended, future, outcome)

        self._pending += 1
        self._work.put(work)
        if self._pending > self._started and self._started < self._limit:
            self._started += 1
            threading.Thread(target=self._live, name=f"flowkeep-handler_{self._started}", daemon=True).start()
        result, error = await future
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """End the threads that have nothing to do, and the others when they have done it."""
        for _ in range(self._started):
            self._work.put(None)

    def _live(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # or it would be kept until there is more

    def _ended(self, future: asyncio.Future[_Outcome], outcome: _Outcome) -> None:
        self._pending -= 1
        if not future.done():
            future.set_result(outcome)
