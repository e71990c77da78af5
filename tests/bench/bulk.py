"""Measures what cancelling many executions in bulk takes, and what other callers feel of it meanwhile.

    python -m tests.bench.bulk [--quick]

Server, Postgres and clients share the machine. Others start short executions and wait for their results, without the
operation and with it beside them. A wrong result ends the program with an error.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

import flowkeep
from flowkeep.requests import execute_request
from flowkeep.v1.bulk_pb2 import Bulk
from tests.bench.run import serving
from tests.folders import new_folder

CALLERS = 4
"""Others, each of which waits for one result before it asks for the next."""

PAUSE = 0.02
"""Seconds between the calls of each."""

ALONE = 20.0
"""Seconds in which they are measured without the operation."""

AT_ONCE = 500

WAITS = {"name": "waits", "steps": [{"id": "wait", "handler": "wait", "params": {"duration": "1d"}}]}
SHORT = {"name": "short", "steps": [{"id": "a", "handler": "noop", "params": {"a": 1}}]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measures an operation in bulk.")
    parser.add_argument("--quick", action="store_true", help="1,000 executions instead of 10,000")
    count = 1_000 if parser.parse_args().quick else 10_000
    with new_folder("flowkeep-bench-", on_disk=True) as folder:
        uvloop.run(measure(folder, count))
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}")


async def measure(folder: Path, count: int) -> None:
    """Print how long it takes, and the latencies of others without and with it."""
    async with serving(folder) as server, flowkeep.Client(server.target) as client:
        await client.apply([WAITS, SHORT])
        for start in range(0, count, AT_ONCE):
            requests = [execute_request("waits") for _ in range(min(AT_ONCE, count - start))]
            await client.batch_execute(requests)
        alone = await others(client, asyncio.create_task(asyncio.sleep(ALONE)))
        began = time.perf_counter()
        asked = asyncio.create_task(cancelled(client, count))
        meanwhile = await others(client, asked)
        operation, all_ended = (await asked)[0] - began, (await asked)[1] - began
    print(f"{count:,} executions: asked in {operation:.1f} s, all ended after {all_ended:.1f} s")
    for name, share in (("p50", 0.5), ("p99", 0.99), ("most", 1.0)):
        before, during = quantile(alone, share), quantile(meanwhile, share)
        times = f"{1000 * before:.1f} ms alone, {1000 * during:.1f} ms beside it"
        print(f"others {name}: {times}, {during / before:.2f} times")
    print(f"{len(alone)} and {len(meanwhile)} calls")


async def cancelled(client: flowkeep.Client, count: int) -> tuple[float, float]:
    """Cancel all that wait; return when the operation and when the last execution had ended."""
    bulk = await client.start_bulk("cancel", workflow="waits", states=["RUNNING"])
    async for each in client.watch_bulk(bulk.bulk_id):
        bulk = each
    operation = time.perf_counter()
    assert (bulk.state, bulk.done_count) == (Bulk.STATE_COMPLETED, count), bulk
    where = {"workflow": "waits", "states": ["RUNNING", "CANCELLING"]}
    async for left in client.list_executions(**where):  # type: ignore[arg-type]
        async for _ in client.watch(left.execution_id):
            pass
    return operation, time.perf_counter()


async def others(client: flowkeep.Client, until: asyncio.Task[object]) -> list[float]:
    """Return the seconds that each call took of those who call until something has ended."""
    took: list[float] = []

    async def call() -> None:
        while not until.done():
            began = time.perf_counter()
            execution = await client.execute("short", wait=True)
            took.append(time.perf_counter() - began)
            assert execution.state == flowkeep.Execution.STATE_COMPLETED
            await asyncio.sleep(PAUSE)

    await asyncio.gather(*(call() for _ in range(CALLERS)))
    return took


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of them lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


if __name__ == "__main__":
    main()
