"""One read for many callers, as fresh as if each had made its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar

from persistence.errors import UnavailableError

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class SharedReads(Generic[Key, Value]):
    """Lets callers that ask for the same key at the same time share a read.

    A read that is on its way may have looked before the caller came, so it is never joined: who comes while one is on
    its way shares the next. So every answer is from after the question, and a burst of n costs two reads.
    """

    def __init__(self, read: Callable[[Key], Awaitable[Value]]) -> None:
        self._read = read
        self._running: dict[Key, asyncio.Task[Value]] = {}
        self._next: dict[Key, asyncio.Task[Value]] = {}

    async def get(self, key: Key) -> Value:
        """Return what a read of `key` gives that began after this call. Raises what the read raises."""
        task = self._next.get(key)
        if task is None:
            task = self._next[key] = asyncio.get_running_loop().create_task(self._run(key, self._running.get(key)))
            task.add_done_callback(_seen)
        return await asyncio.shield(task)

    async def _run(self, key: Key, before: asyncio.Task[Value] | None) -> Value:
        if before is not None:
            await asyncio.wait([before])
        own = self._next.pop(key)
        if before is not None and _is_unanswered(before):
            return await before  # who came while the store did not answer is not to wait as long again
        self._running[key] = own
        try:
            return await self._read(key)
        finally:
            del self._running[key]


def _is_unanswered(read: asyncio.Task[Any]) -> bool:
    return not read.cancelled() and isinstance(read.exception(), UnavailableError)


def _seen(task: asyncio.Task[Any]) -> None:
    """Take note of how a read ended, as nobody does when all callers have gone."""
    if not task.cancelled():
        task.exception()
