"""What the Python workers of a run of workers serve: a step that takes a while, and is witnessed.

Workers in other languages serve the same under names of their own: `clients/typescript/test/serve.ts` and
`clients/go/worker_test.go`.
"""

from __future__ import annotations

import asyncio
import json
import os
import time

from flowkeep.handlers import StepContext, handler

JOURNAL = "FLOWKEEP_JOURNAL"
"""Names the file to which each attempt adds a line when it begins: what happened, whatever is recorded of it."""


@handler("stint_python")
async def stint(seconds: float, context: StepContext) -> dict[str, float]:
    """Work for so long; gives the number of the attempt, and when it began in seconds since 1970."""
    began = time.time()
    line = {
        "execution_id": str(context.execution_id),
        "path": context.step_path,
        "attempt": context.attempt,
        "time": began,
    }
    with open(os.environ[JOURNAL], "a") as journal:  # noqa: ASYNC230 - one short line, which is whole or not there
        journal.write(json.dumps(line) + "\n")
    await asyncio.sleep(seconds)
    return {"attempt": context.attempt, "began": began}
