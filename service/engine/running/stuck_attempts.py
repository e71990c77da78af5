"""Attempts of async handlers that go on although they were told to stop: told of, and counted as long as they do."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from typing import Any

import structlog

from service.engine.handlers import threads
from service.engine.handlers.attempt import Attempt

log = structlog.get_logger(__name__)


class StuckAttempts:
    """Watches attempts that were told to stop, until they end. Calls `freed` when one does that had been stuck."""

    def __init__(self, freed: Callable[[], None]) -> None:
        self._freed = freed
        self._stuck: set[Attempt] = set()

    def __len__(self) -> int:
        """Return how many are stuck. Each takes the place of an execution: what it holds is not free."""
        return len(self._stuck)

    def watch(self, attempt: Attempt, task: asyncio.Task[None]) -> None:
        """Name an attempt in the log, again and again with growing pauses, as long as its task goes on."""
        watched = _Watched(attempt, task, self._stuck)
        task.add_done_callback(lambda _: self._end(watched))

    def _end(self, watched: _Watched) -> None:
        watched.timer.cancel()
        if watched.attempt in self._stuck:
            self._stuck.discard(watched.attempt)
            log.warning("stuck handler ended", **watched.attempt.facts, late=round(watched.attempt.late, 1))
            self._freed()


class _Watched:
    def __init__(self, attempt: Attempt, task: asyncio.Task[None], stuck: set[Attempt]) -> None:
        self.attempt = attempt
        self._task = task
        self._stuck = stuck
        self._reports = 0
        self.timer = asyncio.get_running_loop().call_later(threads.STUCK, self._look)

    def _look(self) -> None:
        if not self.attempt.is_in_thread:  # else it is told of with its thread
            self._reports += 1
            self._stuck.add(self.attempt)
            late = round(self.attempt.late, 1)
            log.error("handler is stuck", **self.attempt.facts, late=late, stack=_stack(self._task))
        self.timer = asyncio.get_running_loop().call_later(threads.pause_after(self._reports), self._look)


def _stack(task: asyncio.Task[None]) -> str:
    """Return where a task waits: the innermost of the coroutines that await each other, the innermost last."""
    found: list[str] = []
    each: Any = task.get_coro()
    while (frame := getattr(each, "cr_frame", None)) is not None:
        found += traceback.format_list(traceback.extract_stack(frame, limit=1))
        each = each.cr_await
    return "".join(found[-threads.DEEPEST :])
