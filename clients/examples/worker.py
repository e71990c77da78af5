"""A worker: `python clients/examples/worker.py` serves these two functions to the server at localhost:50051."""

import asyncio
import sys

from flowkeep.handlers import HandlerError, StepContext, handler
from flowkeep.worker import Worker

STOCK = {"lamp": 3, "chair": 0}


@handler("reserve", effect="external")
async def reserve(item: str, amount: int = 1) -> dict[str, int]:
    """Take items out of stock. Fails with SOLD_OUT when there are too few."""
    left = STOCK.get(item, 0) - amount
    if left < 0:
        raise HandlerError("SOLD_OUT", f"only {STOCK.get(item, 0)} of {item} are left", retryable=False)
    STOCK[item] = left
    return {"left": left}


@handler("pack")
def pack(item: str, amount: int, context: StepContext) -> str:
    """Pack items, one by one, in a thread of the worker."""
    for number in range(amount):
        context.report(100 * number / amount, f"{item} {number + 1} of {amount}")
    return f"{amount} x {item}"


if __name__ == "__main__":
    target = sys.argv[1] if len(sys.argv) > 1 else "localhost:50051"
    asyncio.run(Worker(target, handlers=[reserve, pack], capacity=5).run())
