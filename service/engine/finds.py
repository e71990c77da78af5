"""What a process found by looking without a reason: each is a lost wake-up that only the look has hidden."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import structlog

log = structlog.get_logger(__name__)

PATIENCE = 0.5
"""Seconds in which the reason for a look may still come: then the look was merely the quicker one."""


@dataclass(frozen=True, slots=True, eq=False)
class _Find:
    what: str
    count: int
    was_told: Callable[[], bool]
    forget: Callable[[], None]


class Finds:
    """Counts them, by what was found; all are 0 in a healthy run, and each is logged.

    Where processes die, listeners are cut off or the database is in trouble, looks are what is promised to find what
    was left.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._unjudged: set[_Find] = set()
        self._is_closed = False

    def note(
        self,
        what: str,
        count: int,
        was_told: Callable[[], bool] = lambda: False,
        forget: Callable[[], None] = lambda: None,
    ) -> None:
        """Count what a look has found, unless it turns out in time that something has told of it; then `forget` it."""
        find = _Find(what, count, was_told, forget)
        if not self._is_closed:
            self._unjudged.add(find)
        asyncio.get_running_loop().call_later(PATIENCE, self._judge, find)

    def unjudged(self) -> set[str]:
        """Return what was found of which nothing has told yet, but still may."""
        self._unjudged = {find for find in self._unjudged if not find.was_told()}
        return {find.what for find in self._unjudged}

    def close(self) -> None:
        """Judge nothing more: a process that goes is told of nothing."""
        self._is_closed = True
        self._unjudged.clear()

    def _judge(self, find: _Find) -> None:
        if find in self._unjudged and not find.was_told():
            self.counts[find.what] += find.count
            log.info("found without being told", what=find.what, count=find.count)
        self._unjudged.discard(find)
        find.forget()
