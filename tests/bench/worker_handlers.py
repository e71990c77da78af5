"""What the worker runs whose steps are measured: nothing, and it says when."""

from __future__ import annotations

import time

from flowkeep.handlers import handler


@handler("moment", effect="none")
async def moment(a: int = 1) -> float:
    """Return the time, in seconds since 1970."""
    return time.time()
