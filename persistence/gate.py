"""Lets a few in at a time, so that what is large leaves room for what is small."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from persistence.errors import QueueFullError, UnavailableError
from persistence.fair_queue import FairQueue

_Waiter = asyncio.Future[None]


class Gate:
    """So many places; whoever finds none waits for `patience` seconds, and the orgs that wait have their turns.

    `silence` is what it means that nobody has left meanwhile, if it means more than that there is much to do.
    """

    def __init__(self, places: int, patience: float, silence: str = "") -> None:
        self._free = places
        self._patience = patience
        self._silence = silence
        self._waiting: FairQueue[_Waiter] = FairQueue()
        self._left = 0

    @asynccontextmanager
    async def place(self, org: str) -> AsyncIterator[None]:
        """Hold a place inside.

        Raises QueueFullError when none came in time, UnavailableError when that means more.
        """
        if self._free:
            self._free -= 1
        else:
            await self._wait(org)
        try:
            yield
        finally:
            self._left += 1
            self._give_back()

    async def _wait(self, org: str) -> None:
        waiter: _Waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(org, waiter)
        left = self._left
        try:
            await asyncio.wait({waiter}, timeout=self._patience)
        except asyncio.CancelledError:
            if waiter.done():
                self._give_back()
            else:
                self._waiting.take_out(lambda each: each is waiter)
            raise
        if waiter.done():
            return
        self._waiting.take_out(lambda each: each is waiter)
        if self._silence and self._left == left:
            raise UnavailableError(self._silence)
        raise QueueFullError("as much is read as may be at a time")

    def _give_back(self) -> None:
        if self._waiting:
            self._waiting.next().set_result(None)
        else:
            self._free += 1
