"""The right of this process to drive executions. Whether it may is asked here, each time anew.

Two keep parts of it for themselves, and mean to: a Run the incarnation under which it was begun, so that what it writes
after a change is refused; and the LeaseKeeper, which may be in another thread, incarnation and fence of the lease that
it holds or asks for: the process goes on under a new incarnation only when the store has given that a lease.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID


class Look(NamedTuple):
    """The moment at which the store was asked for executions: the generation of the ownership, and how many runs had
    been let go while it was being asked.
    """

    generation: int
    let_go: int


class Ownership:
    """Under which incarnation this process drives executions, and whether it may at this moment.

    Another thread may ask, move the fence and forbid, which takes effect at once; all else happens in the loop.
    """

    def __init__(self, incarnation: UUID, monotonic: Callable[[], float]) -> None:
        self.incarnation = incarnation
        self.generation = 0
        """How often the lease had run out and was taken up again: what was owned before may be others' since."""
        self.held_until = math.inf
        """The monotonic time of the fence: from then on others may drive what this process owns."""
        self.is_fenced = False
        self.is_stopping = False
        self._monotonic = monotonic
        self._told = asyncio.Event()

    @property
    def may_begin(self) -> bool:
        """Whether the lease lets this process begin an attempt at this moment."""
        return not self.is_fenced and self._monotonic() < self.held_until

    @property
    def may_take(self) -> bool:
        """Whether this process may begin to drive an execution at this moment."""
        return self.may_begin and not self.is_stopping

    async def permission(self, is_withheld: Callable[[], bool]) -> None:
        """Return as soon as an attempt may begin (CONTRACT ST11) whose execution is not withheld from the process."""
        while is_withheld() or not self.may_begin:
            await self._told.wait()

    def hold_until(self, moment: float) -> None:
        """Let nothing begin after this monotonic time, unless it is moved."""
        self.held_until = moment

    def forbid(self) -> None:
        """Let nothing begin until the process goes on under another incarnation."""
        self.is_fenced = True

    def tell(self) -> None:
        """Let what waits for permission look again."""
        self._told.set()
        self._told = asyncio.Event()

    def resume(self, incarnation: UUID) -> None:
        """Go on under another incarnation, which has a lease."""
        self.incarnation = incarnation
        self.is_fenced = False
        self.tell()
