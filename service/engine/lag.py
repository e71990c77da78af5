"""Tells operators when something held up the event loop, by which leases and watchers live."""

from __future__ import annotations

import asyncio

import structlog

log = structlog.get_logger(__name__)

LOOK = 0.1
"""Seconds between looks."""

LARGEST = 0.25
"""Seconds of lateness that go without a word; a busy machine makes some by itself."""

REPORT = 10.0
"""Least seconds between reports; each tells of the worst since the last."""


async def watch_lag() -> None:
    """Log from time to time by how much the event loop was late at worst, if it was, until cancelled."""
    clock = asyncio.get_running_loop().time
    worst, reported = 0.0, -REPORT
    while True:
        due = clock() + LOOK
        await asyncio.sleep(LOOK)
        worst = max(worst, clock() - due)
        if worst >= LARGEST and clock() - reported >= REPORT:
            log.warning("the event loop was held up", seconds=round(worst, 3))
            worst, reported = 0.0, clock()
