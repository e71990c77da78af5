"""The event loop of a process that runs handlers: what these raise to end the process ends nothing but themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

log = structlog.get_logger(__name__)

Result = TypeVar("Result")


def run_through(runner: asyncio.Runner, main: Coroutine[Any, Any, Result]) -> Result:
    """Return what `main` returns, or raise what it raises; and KeyboardInterrupt when this process is interrupted.

    asyncio lets SystemExit and KeyboardInterrupt out of the loop from whatever task or callback they are raised in. A
    task of a handler has them, too, and so has who awaits it: the loop goes on.
    """
    task = runner.get_loop().create_task(main)
    joined: list[asyncio.Task[Any]] = []

    async def join() -> Result:
        joined[:] = [each for each in (asyncio.current_task(),) if each]
        return await task

    while True:
        try:
            return runner.run(join())
        except (SystemExit, KeyboardInterrupt) as error:
            if task.done() or any(each.cancelling() for each in joined):
                raise
            log.error("a task or callback of a handler wanted to end the process", error=type(error).__name__)
