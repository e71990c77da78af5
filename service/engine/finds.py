"""What a process found by looking without a reason: each is a lost wake-up that only the look has hidden."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

PATIENCE = 0.5
"""Seconds in which the reason for a look may still come: then the look was merely the quicker one."""


class Finds:
    """Counts them, by what was found; all are 0 in a healthy run, and each is logged.

    Where processes die, listeners are cut off or the database is in trouble, looks are what is promised to find what
    was left.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._unjudged = 0
        self._judged = asyncio.Event()
        self._judged.set()

    def note(self, what: str, count: int, was_told: Callable[[], bool] = lambda: False) -> None:
        """Count what a look has found, unless it turns out in time that something has told of it."""
        self._unjudged += 1
        self._judged.clear()
        asyncio.get_running_loop().call_later(PATIENCE, lambda: self._judge(what, count, was_told()))

    async def judged(self) -> None:
        """Return when of all that was found it is known whether something has told of it."""
        await self._judged.wait()

    def _judge(self, what: str, count: int, was_told: bool) -> None:
        self._unjudged -= 1
        if not self._unjudged:
            self._judged.set()
        if not was_told:
            self.counts[what] += count
            log.info("found without being told", what=what, count=count)
