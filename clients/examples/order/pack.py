"""The worker in Python, which packs: `python clients/examples/order/pack.py`."""

import asyncio
import os
from dataclasses import dataclass

from flowkeep.handlers import HandlerError, StepContext, handler
from flowkeep.worker import Worker

HEAVIEST = 3_000
"""Grams of a parcel that one person may carry."""


@dataclass
class Line:
    """So many of one item, each of which costs so many cents and weighs so many grams."""

    item: str
    count: int
    price: int
    grams: int


@handler("pack", effect="none")
async def pack(lines: list[Line], context: StepContext) -> list[int]:
    """Pack what was ordered. Gives the grams of each parcel; fails with TOO_HEAVY where an item fits into none."""
    parcels = [0]
    for number, line in enumerate(lines):
        if line.grams > HEAVIEST:
            raise HandlerError("TOO_HEAVY", f"{line.item} weighs {line.grams} g", retryable=False)
        for _ in range(line.count):
            if parcels[-1] + line.grams > HEAVIEST:
                parcels.append(0)
            parcels[-1] += line.grams
        context.report(100 * (number + 1) / len(lines), f"packed {line.count} x {line.item}")
    return parcels


if __name__ == "__main__":
    target = os.environ.get("FLOWKEEP_TARGET", "localhost:50051")
    asyncio.run(Worker(target, handlers=pack, name="packer").run())
