"""DBOS Transact on a Postgres, told on standard input what to run: python -m tests.bench.dbos_program DSN.

Each line is what to run and how often, such as `three 600 64`; it answers with a line of seconds.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Coroutine
from typing import Any

from dbos import DBOS

from tests.bench.flight import fly

DBOS(config={"name": "bench", "system_database_url": sys.argv[1], "log_level": "ERROR"})


@DBOS.step()
async def noop(number: int) -> int:
    """Do nothing."""
    return number


@DBOS.workflow()
async def sequence(steps: int) -> int:
    """Run steps one after the other."""
    for number in range(steps):
        await noop(number)
    return steps


async def _awaited(steps: int) -> None:
    handle = await DBOS.start_workflow_async(sequence, steps)
    assert await handle.get_result() == steps


async def _run(what: str, count: int, width: int) -> float:
    """Return the seconds that it took."""
    if what == "starts":
        began = time.perf_counter()
        handles = await fly((DBOS.start_workflow_async(sequence, 0) for _ in range(count)), width)
        took = time.perf_counter() - began
        for handle in handles:
            await handle.get_result()
        return took
    jobs: list[Coroutine[Any, Any, None]] = [_awaited(int(what)) for _ in range(count)]
    began = time.perf_counter()
    await fly(jobs, width)
    return time.perf_counter() - began


async def _serve() -> None:
    DBOS.launch()
    await _awaited(3)
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        what, count, width = line.split()
        print(await _run(what, int(count), int(width)), flush=True)
    DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(_serve())
