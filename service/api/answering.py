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
    task = asyncio.get_running_loop().create_task(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=LONGEST)
    except asyncio.CancelledError:
        task.cancel()
        _let_go(task)
        raise
    if done:
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
