"""The timer of one execution, by the store's clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

LONGEST = 86_400.0
"""Seconds; event loops do not take any length, so a longer timer fires early, and is set again."""


class Timer:
    """Calls `fire` at the moment that it is set to."""

    def __init__(self, now: Callable[[], datetime], fire: Callable[[], None]) -> None:
        self._now = now
        self._fire = fire
        self._handle: asyncio.TimerHandle | None = None
        self._moment: datetime | None = None

    def set(self, moment: datetime | None) -> None:
        """Fire at this moment and at no other; None: at none."""
        if moment == self._moment:
            return
        self.clear()
        if moment is not None:
            self._moment = moment
            delay = min(max(0.0, (moment - self._now()).total_seconds()), LONGEST)
            self._handle = asyncio.get_running_loop().call_later(delay, self._ring)

    def clear(self) -> None:
        """Do not fire."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._moment = None

    def _ring(self) -> None:
        self._handle = self._moment = None
        self._fire()
