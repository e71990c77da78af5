"""Measures what it costs that a worker runs a step, beside steps of the server's own process.

    python -m tests.bench.workers [--quick]

Server, Postgres, worker and client share the machine, and so its clock. A wrong result ends it with an error.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import uvloop

import flowkeep
from tests.bench.flight import fly
from tests.bench.report import Baseline, Row, table
from tests.bench.run import AT_A_TIME, HERE, SEQUENCE, serving
from tests.folders import ROOT, new_folder

HANDLERS = {"own": ("noop", {"a": 1}), "remote": ("moment", {"a": 1})}
CAPACITY = 64
CONNECTED = 60.0
"""Seconds in which the worker has loaded and connected."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measures steps that a worker runs.")
    parser.add_argument("--quick", action="store_true", help="a short run, with less certain numbers")
    count, repetitions = (200, 2) if parser.parse_args().quick else (2_000, 3)
    with new_folder("flowkeep-bench-", on_disk=True) as folder:
        rows = uvloop.run(measure(folder, count, repetitions))
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}"
    print(f"{table(rows)}\n\n{machine}; medians of {repetitions}")


async def measure(folder: Path, count: int, repetitions: int) -> list[Row]:
    """Return all rows."""
    many: dict[str, list[float]] = {who: [] for who in HANDLERS}
    alone: dict[str, list[float]] = {who: [] for who in HANDLERS}
    begun, next_one, ended = list[float](), list[float](), dict[str, flowkeep.Execution]()
    async with serving(folder) as server, working(server.target), flowkeep.Client(server.target) as client:
        for who, (name, params) in HANDLERS.items():
            for length in (3, SEQUENCE):
                steps = [{"id": f"s{n}", "handler": name, "params": params} for n in range(length)]
                await client.apply({"name": f"{who}_{length}", "steps": steps})
        for _ in range(repetitions):
            for who in HANDLERS:
                many[who].append(count / await executed(client, f"{who}_3", count))
            for who in HANDLERS:
                began = time.perf_counter()
                ended[who] = await one(client, f"{who}_{SEQUENCE}")
                alone[who].append(1000 * (time.perf_counter() - began) / SEQUENCE)
            moments = [flowkeep.from_value(step.output) for step in ended["remote"].steps]
            starts = [step.start_time.ToNanoseconds() / 1e9 for step in ended["remote"].steps]
            begun += [1000 * (moment - start) for moment, start in zip(moments, starts, strict=True)]
            next_one += [1000 * (after - before) for before, after in pairwise(moments)]
    by_server = {length: Baseline("by the server", values["own"]) for length, values in ((3, many), (SEQUENCE, alone))}
    return [
        Row("executions of 3 steps by a worker, 64 at a time", "executions/s", many["remote"], by_server[3]),
        Row(f"{SEQUENCE} steps by a worker, one execution alone", "ms/step", alone["remote"], by_server[SEQUENCE]),
        *percentiles("from the start of a step to its worker", begun),
        *percentiles("from an attempt at a worker to the next, commit too", next_one),
    ]


def percentiles(name: str, values: list[float]) -> list[Row]:
    """Return the rows of a latency."""
    ordered = sorted(values)
    return [Row(f"{name}, p{p}", "ms", [ordered[int(len(ordered) * p / 100)]]) for p in (50, 99)]


async def executed(client: flowkeep.Client, workflow: str, count: int) -> float:
    """Return the seconds that so many executions take, each awaited."""
    began = time.perf_counter()
    ended = await fly((client.execute(workflow, wait=True) for _ in range(count)), AT_A_TIME)
    took = time.perf_counter() - began
    assert all(each.state == flowkeep.Execution.STATE_COMPLETED for each in ended)
    return took


async def one(client: flowkeep.Client, workflow: str) -> flowkeep.Execution:
    """Return an execution that has ended, with its steps."""
    ended = await client.execute(workflow, wait=True, view=flowkeep.ExecutionView.EXECUTION_VIEW_FULL)
    assert ended.state == flowkeep.Execution.STATE_COMPLETED
    return ended


@asynccontextmanager
async def working(target: str) -> AsyncIterator[None]:
    """Run the worker inside."""
    handlers, room = str(HERE / "worker_handlers.py"), str(CAPACITY)
    worker: Any = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "flowkeep.worker", handlers, "--server", target, "--capacity", room),
        cwd=ROOT,
        stderr=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(CONNECTED):
            said = (await worker.stderr.readline()).decode()
        assert "connected" in said, said
        yield
    finally:
        worker.terminate()
        assert await worker.wait() == 0


if __name__ == "__main__":
    main()
