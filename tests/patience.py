"""How long tests wait for what should happen at once."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from service.engine.finds import Finds

PATIENCE = 60.0
"""Seconds after which it is taken for lost: a machine that is busy with other things loses nothing."""


async def judged(finds: Finds, without: Collection[str] = ()) -> None:
    """Return when of all that looks have found, but for this, it is known whether something has told of it."""
    async with asyncio.timeout(PATIENCE):
        while finds.unjudged().difference(without):  # noqa: ASYNC110 - no signal tells of it
            await asyncio.sleep(0.01)
