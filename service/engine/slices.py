"""Long work in slices, so that nothing holds up the event loop.

Such work is a generator, which yields what each piece of it costs: about as many microseconds, told by sizes and never
by the clock, so that the same work always has the same slices. What is short is done in one go. What is longer waits
for its turn after each slice, and whatever there is of it shares the turns: eight large definitions at once take eight
times as long, and others no longer than one does. Work that is long from the start waits before its first slice.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from typing import TypeAlias, TypeVar
from weakref import WeakKeyDictionary

Item = TypeVar("Item")
Result = TypeVar("Result")
Work: TypeAlias = Generator[int, None, Result]

SLICE = 3_000
"""Microseconds of work after which others have their turn. A single piece may take more, but well under 50 ms."""

TURN = 0.006
"""Seconds from the beginning of one slice to that of the next: others have the loop for as long as slices have it."""

_PART = 250


def parts(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Give items some hundred at a time, for work that yields after each part of them."""
    return (items[at : at + _PART] for at in range(0, len(items), _PART))


def in_one_go(work: Work[Result]) -> Result:
    """Do work in one go, and return what it gives."""
    try:
        while True:
            next(work)
    except StopIteration as end:
        result: Result = end.value
        return result


async def in_slices(work: Work[Result]) -> Result:
    """Do work slice by slice, and return what it gives."""
    return await Slicing().do(work)


class Slicing:
    """Counts the work of a coroutine, which waits for its turn after each slice."""

    def __init__(self) -> None:
        self._done = 0

    async def do(self, work: Work[Result]) -> Result:
        """Do one of several works, all of which together are cut into slices, and return what it gives."""
        try:
            while True:
                # As `spend` does, without a coroutine for each piece.
                self._done += next(work)
                if self._done >= SLICE:
                    await self._rest()
        except StopIteration as end:
            result: Result = end.value
            return result
        finally:
            work.close()

    async def spend(self, cost: int) -> None:
        """Count about as many microseconds of work that was done."""
        self._done += cost
        if self._done >= SLICE:
            await self._rest()

    async def _rest(self) -> None:
        await _turns().next()
        self._done = 0


class _Turns:
    """Who waits for the next slice, first come, first served."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_set = False
        self._begun = -math.inf

    async def next(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._set()
        await turn

    def _set(self) -> None:
        if not self._is_set and self._waiting:
            self._is_set = True
            loop = asyncio.get_running_loop()
            # Who comes when none waits has just had a slice: the one that began last, or one that was not waited for.
            rest = max(TURN - SLICE / 1e6, self._begun + TURN - loop.time())
            loop.call_later(rest, self._give)

    def _give(self) -> None:
        self._is_set = False
        self._begun = asyncio.get_running_loop().time()
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # else it was cancelled
                turn.set_result(None)
                break
        self._set()


_of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()


def _turns() -> _Turns:
    return _of_loop.setdefault(asyncio.get_running_loop(), _Turns())
