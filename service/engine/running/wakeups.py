"""Reasons to look for work, raised by whatever makes some: a loop that waits for them sleeps until there is one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from service.engine.waiting import within


class Wakeup:
    """Wakes one loop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.pokes = 0
        """How often there was a reason."""

    def poke(self) -> None:
        """Let the loop look now."""
        self.tell()
        self._event.set()

    def tell(self) -> None:
        """Count a reason for a look that is not needed: a regular one may have been the quicker one."""
        self.pokes += 1

    def since(self) -> Callable[[], bool]:
        """Return what says whether there has been a reason since this moment."""
        before = self.pokes
        return lambda: self.pokes > before

    def poke_after(self, seconds: float) -> None:
        """Let the loop look after so many seconds."""
        asyncio.get_running_loop().call_later(max(0.0, seconds), self.poke)

    async def wait(self, timeout: float) -> bool:
        """Return when the loop is poked, or after `timeout` seconds; whether it was poked."""
        await within(timeout, self._event.wait())
        was_poked = self._event.is_set()
        self._event.clear()
        return was_poked
