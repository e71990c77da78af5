"""Waiting for something, but not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress


async def within(timeout: float, awaited: Awaitable[object]) -> None:
    """Return when it is done, or after `timeout` seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            await awaited


async def flagged(flag: asyncio.Event, timeout: float) -> None:
    """Return when the flag is raised, and lower it, or after `timeout` seconds."""
    await within(timeout, flag.wait())
    flag.clear()
