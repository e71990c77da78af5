"""How long a caller waits for an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from persistence.errors import UnavailableError

Answer = TypeVar("Answer")

LONGEST = 4.5
"""Seconds that a call may take; with the way back its caller has an answer within 5 s (CONTRACT 2.5)."""

_late: set[asyncio.Task[Any]] = set()
"""Work that nobody waits for any more, kept from being collected."""


async def in_time(work: Coroutine[Any, Any, Answer]) -> Answer:
    """Return what the work gives, or raise UnavailableError after `LONGEST` seconds; the work then goes on.

    It is not cut off because a commit may be on its way, and because a driver that is cut off in a transaction first
    waits for a rollback, which takes as long again. What it does for itself is bounded by the store's own limits.
    """
    loop = asyncio.get_running_loop()
    task, over = loop.create_task(work), loop.create_future()

    def end(_: object = None) -> None:
        if not over.done():
            over.set_result(None)

    task.add_done_callback(end)
    timer = loop.call_later(LONGEST, end)
    try:
        await over
    except asyncio.CancelledError:
        task.cancel()
        _let_go(task)
        raise
    finally:
        timer.cancel()
    if task.done():
        return task.result()
    _let_go(task)
    told = f"the call took more than {LONGEST:g} s, and what it did is unknown"
    raise UnavailableError(told, told)


def _let_go(task: asyncio.Task[Any]) -> None:
    _late.add(task)
    task.add_done_callback(_forget)


def _forget(task: asyncio.Task[Any]) -> None:
    _late.discard(task)
    if not task.cancelled():
        task.exception()  # its caller was told that the outcome is unknown
