"""Handlers that the replicas of a chaos run load."""

from __future__ import annotations

import asyncio
import time
from typing import Any

# Not from flowkeep.handlers, which the release before does not have.
from service.engine.handlers import StepContext, handler


@handler("chaos_toil", description="Takes a while and gives the number back.")
async def toil(seconds: float, number: int) -> dict[str, int]:
    await asyncio.sleep(seconds)
    return {"number": number}


@handler("chaos_thread", description="Takes a while in a thread and gives the number back.")
def thread(seconds: float, number: int) -> dict[str, int]:
    time.sleep(seconds)
    return {"number": number}


@handler("chaos_block", description="Blocks the event loop of its replica, but only at its first attempt.")
async def block(seconds: float, context: StepContext) -> dict[str, int]:
    if context.attempt == 1:
        time.sleep(seconds)  # noqa: ASYNC251 - this is the fault
    return {"attempt": context.attempt}


@handler("chaos_bulk", description="Gives a long text.")
async def bulk(size: int) -> dict[str, Any]:
    return {"text": "x" * size}
