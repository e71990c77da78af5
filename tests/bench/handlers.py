"""What the steps of the measured workflows run: nothing, so that only the service is measured."""

from __future__ import annotations

from flowkeep.handlers import handler


@handler("noop")
async def noop(a: int = 1) -> dict[str, bool]:
    """Do nothing."""
    return {"ok": True}
