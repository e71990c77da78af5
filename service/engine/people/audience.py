"""Wake-ups for those who watch tasks. The table is the truth; this only saves waiting for the next look at it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from service.engine.waiting import flagged


class Listener:
    """One who watches."""

    def __init__(self) -> None:
        self.flag = asyncio.Event()

    async def wait(self, timeout: float) -> None:
        """Return when a task may have changed, or after `timeout` seconds."""
        await flagged(self.flag, timeout)


class Audience:
    """Those who watch tasks in this process."""

    def __init__(self) -> None:
        self._listeners: dict[Listener, None] = {}

    @contextmanager
    def listening(self) -> Iterator[Listener]:
        """Give a listener, which hears of each change from now on."""
        listener = Listener()
        self._listeners[listener] = None
        try:
            yield listener
        finally:
            del self._listeners[listener]

    def tell(self) -> None:
        """Let all look: a task was made or has changed."""
        for listener in self._listeners:
            listener.flag.set()
