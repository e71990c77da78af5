"""What a process found by looking without a reason: each is a lost wake-up that only the look has hidden."""

from __future__ import annotations

import asyncio
from collections import Counter

import structlog

from service.engine.running.wakeups import Wakeup

log = structlog.get_logger(__name__)

PATIENCE = 0.5
"""Seconds in which the reason for a look may still come: then the look was merely the quicker one."""


class Finds:
    """Counts them, by what was found; all are 0 in a healthy run.

    Where processes die, listeners are cut off or timers come late, looks are what is promised to find what was left.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def note(self, what: str, count: int, reason: Wakeup) -> None:
        """Count what a look has found, unless the reason for it comes in time."""
        before = reason.pokes
        asyncio.get_running_loop().call_later(PATIENCE, lambda: self._judge(what, count, reason.pokes > before))

    def _judge(self, what: str, count: int, was_told: bool) -> None:
        if not was_told:
            self.counts[what] += count
            log.info("found without being told", what=what, count=count)
