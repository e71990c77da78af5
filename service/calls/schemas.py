"""What is known of services: fetched by one call for all that wait for it, and kept for a while."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Hashable

from service.calls.descriptors import Schema
from service.engine.handlers.model import HandlerError
from service.engine.kept import Kept

LIFETIME = 300.0
"""Seconds after which a server is asked again."""

MOST_BYTES = 64 << 20
"""Of memory, about: what is made of a file takes up to some forty times as much as the file."""

_TIMES, _LEAST = 40, 64 << 10

Read = Callable[[], Awaitable[Schema]]


class Schemas:
    """Schemas by a key, of which the org is a part: what one org is told, no other meets with."""

    def __init__(self, lifetime: float = LIFETIME) -> None:
        self._lifetime = lifetime
        self._kept: Kept[Hashable, tuple[Schema, float]] = Kept(MOST_BYTES)
        self._reads: dict[Hashable, asyncio.Task[Schema]] = {}

    async def get(self, key: Hashable, read: Read) -> Schema:
        """Return what is kept, or what a read gives, one at a time for a key. Raises what the read raises.

        A read that failed for good is not shared: another caller may be let in where the first was not.
        """
        while True:
            if (known := self._known(key)) is not None:
                return known
            if (running := self._reads.get(key)) is None:
                return await asyncio.shield(self._begin(key, read))
            try:
                return await asyncio.shield(running)
            except HandlerError as error:
                if error.retryable:
                    raise
            except asyncio.CancelledError:
                if not running.cancelled():
                    raise

    def forget(self, key: Hashable) -> None:
        """Have the next caller ask again."""
        if (found := self._kept.get(key)) is not None:
            self._kept.put(key, found, MOST_BYTES + 1)  # which is not kept

    async def close(self) -> None:
        """End the reads that are under way."""
        reads = list(self._reads.values())
        for each in reads:
            each.cancel()
        await asyncio.gather(*reads, return_exceptions=True)

    def _known(self, key: Hashable) -> Schema | None:
        found = self._kept.get(key)
        return found[0] if found is not None and found[1] > time.monotonic() else None

    def _begin(self, key: Hashable, read: Read) -> asyncio.Task[Schema]:
        async def reading() -> Schema:
            try:
                schema = await read()
                self._kept.put(key, (schema, time.monotonic() + self._lifetime), _LEAST + _TIMES * schema.size)
                return schema
            finally:
                del self._reads[key]

        task = self._reads[key] = asyncio.get_running_loop().create_task(reading())
        task.add_done_callback(_seen)
        return task


def key_of_set(org: str, data: bytes) -> Hashable:
    """Return the key of a descriptor set."""
    return org, hashlib.sha256(data).digest()


def _seen(task: asyncio.Task[Schema]) -> None:
    """Take note of how a read ended, as nobody does when all callers have gone."""
    if not task.cancelled():
        task.exception()
