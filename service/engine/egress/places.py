"""Places that orgs share: so many in all, and fewer for one of them, so that none can take them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary


class Places:
    """Gives out places, each until it is given back. An org that has its share waits, and the others do not."""

    def __init__(self, total: int, share: int) -> None:
        self._free = asyncio.Semaphore(total)
        self._share = share
        # An org's is kept by those who hold or await a place of it.
        self._of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def take(self, org: str) -> Callable[[], None]:
        """Return when there is a place, with what gives it back."""
        own = self._of.get(org)
        if own is None:
            own = self._of[org] = asyncio.Semaphore(self._share)
        await own.acquire()
        try:
            await self._free.acquire()
        except BaseException:
            own.release()
            raise

        def give_back() -> None:
            self._free.release()
            own.release()

        return give_back

    @asynccontextmanager
    async def place(self, org: str) -> AsyncIterator[None]:
        """Have a place inside."""
        give_back = await self.take(org)
        try:
            yield
        finally:
            give_back()
