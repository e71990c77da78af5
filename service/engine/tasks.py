"""The one place where tasks are made, so that none is lost and no exception goes unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

import structlog

log = structlog.get_logger(__name__)

RESTART_PAUSE = 1.0
"""Seconds."""


class TaskRegistry:
    """Holds strong references to tasks until they end and logs every exception that one ends with."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(
        self, coroutine: Coroutine[Any, Any, Any], name: str, context: Context | None = None
    ) -> asyncio.Task[Any]:
        """Start a task in this context, or in a copy of the present one."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def keep(self, loop: Callable[[], Coroutine[Any, Any, Any]], name: str) -> asyncio.Task[Any]:
        """Run a loop that the process cannot do without, and begin it again whenever it fails."""
        return self.spawn(self._kept(loop, name), name)

    async def _kept(self, loop: Callable[[], Coroutine[Any, Any, Any]], name: str) -> None:
        while True:
            try:
                await loop()
            except Exception as error:
                log.error("loop failed, and begins again", loop=name, exc_info=error)
            await asyncio.sleep(RESTART_PAUSE)

    async def cancel_all(self, grace: float = 5.0) -> None:
        """Cancel what runs and return when it has ended, or after `grace` seconds."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=grace)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task failed", task=task.get_name(), exc_info=error)
