"""Measures a server, and beside it what Postgres and gRPC give on the same machine without one.

    python tests/bench/run.py [--quick] [--output build/bench.json] [--profile FILE]

A wrong result ends it with an error; how fast it was never does.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import uvloop
from google.protobuf.wrappers_pb2 import BytesValue

from persistence.embedded import EmbeddedPostgres
from tests.bench import bare_start
from tests.bench.bare_store import BareStore
from tests.bench.flight import fly
from tests.bench.report import Baseline, Row, table, write
from tests.bench.service import Service
from tests.e2e.process import FLOWKEEP, ServerProcess
from tests.folders import new_folder

HERE = Path(__file__).parent
AT_A_TIME = 64
WATCHERS = 100
SEQUENCE = 40
PROMISED_LATENCY = 500.0
"""Milliseconds; CONTRACT W11."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    executions: int = 2_000
    starts: int = 4_000
    watchers: int = WATCHERS
    repetitions: int = 3


QUICK = Size(executions=300, starts=500)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="Measures throughput and latency.")
    parser.add_argument("--quick", action="store_true", help="a short run, with less certain numbers")
    parser.add_argument("--output", type=Path, default=HERE.parents[1] / "build" / "bench.json", metavar="FILE")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="only profile a server, with cProfile, into FILE")
    given = parser.parse_args()
    size = QUICK if given.quick else Size()
    with new_folder("flowkeep-bench-", on_disk=True) as folder:
        if given.profile is not None:
            uvloop.run(profile(folder, given.profile.resolve(), size))
            return
        with EmbeddedPostgres(folder / "bare") as postgres:
            rows = uvloop.run(measure(folder, postgres.dsn(), size))
    write(rows, given.output)
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}"
    print(f"{table(rows)}\n\n{machine}; medians of {size.repetitions}; written to {given.output}")


async def measure(folder: Path, bare_dsn: str, size: Size) -> list[Row]:
    """Return all rows."""
    async with (
        bare_starter(bare_dsn) as bare_target,
        serving(folder) as target,
        # No process is started from here on: gRPC does not like to be forked.
        grpc.aio.insecure_channel(bare_target) as bare_channel,
        grpc.aio.insecure_channel(target) as channel,
        bare_store(bare_dsn) as bare,
    ):
        service = Service(channel)
        await service.prepare()
        return [
            *await throughput(service, bare, size),
            *await latency(service, bare, size),
            *await fan_out(service, size),
            # The last, as it leaves executions that wait for tomorrow.
            *await starts(service, bare_channel, size),
        ]


async def throughput(service: Service, bare: BareStore, size: Size) -> list[Row]:
    """Three-step executions, many at a time."""
    waited: dict[str, list[float]] = {"three": [], "transforms": []}
    watched, alone = list[float](), list[float]()
    for _ in range(size.repetitions):
        alone.append(size.executions / await bare.run(size.executions, 3, AT_A_TIME))
        for workflow, values in waited.items():
            values.append(size.executions / await service.waited(workflow, size.executions, AT_A_TIME))
        watched.append(size.executions / await service.watched("three", size.executions, AT_A_TIME))
    baseline = Baseline("bare store, 3 steps, 64 at a time", alone)
    steps = Baseline(baseline.name, [3 * value for value in alone])
    return [
        Row("bare store: executions of 3 steps, 64 at a time", "executions/s", alone),
        Row("bare store: their steps", "steps/s", steps.values),
        Row("executions of 3 steps, 64 at a time, awaited by wait", "executions/s", waited["three"], baseline),
        Row("their steps", "steps/s", [3 * value for value in waited["three"]], steps),
        Row("the same with transforms in CEL", "executions/s", waited["transforms"], baseline),
        Row("the same, each awaited by a watch", "executions/s", watched, baseline),
    ]


async def latency(service: Service, bare: BareStore, size: Size) -> list[Row]:
    """One execution of many steps, alone."""
    values, alone = list[float](), list[float]()
    for _ in range(size.repetitions + 2):
        alone.append(1000 * await bare.run(1, SEQUENCE, 1) / SEQUENCE)
        values.append(1000 * await service.waited("forty", 1, 1) / SEQUENCE)
    return [Row("one execution of 40 steps, alone", "ms/step", values, Baseline("bare store, 40 steps, alone", alone))]


async def fan_out(service: Service, size: Size) -> list[Row]:
    """One execution that many watch."""
    middle, late = list[float](), list[float]()
    for _ in range(size.repetitions):
        latencies = await service.fan_out(size.watchers)
        middle.append(1000 * latencies[len(latencies) // 2])
        late.append(1000 * latencies[int(len(latencies) * 0.99)])
    promise = Baseline("promised p99 (CONTRACT W11)", [PROMISED_LATENCY])
    return [
        Row(f"from an event, commit included, to {size.watchers} watchers, p50", "ms", middle),
        Row(f"from an event, commit included, to {size.watchers} watchers, p99", "ms", late, promise),
    ]


async def starts(service: Service, bare_channel: grpc.aio.Channel, size: Size) -> list[Row]:
    """Execute alone, of executions that begin later."""
    values, alone = list[float](), list[float]()
    start = bare_channel.unary_unary(bare_start.METHOD, BytesValue.SerializeToString, BytesValue.FromString)
    for repetition in range(size.repetitions):
        requests = [BytesValue(value=f"{repetition}-{number}".encode()) for number in range(size.starts)]
        began = time.perf_counter()
        answers = await fly((_call(start, request) for request in requests), AT_A_TIME)
        alone.append(size.starts / (time.perf_counter() - began))
        assert len({answer.value for answer in answers}) == size.starts
        values.append(size.starts / await service.starts(size.starts, AT_A_TIME))
    baseline = Baseline("bare gRPC server, one statement", alone)
    return [Row("Execute alone, 64 at a time", "starts/s", values, baseline)]


async def _call(method: Any, request: BytesValue) -> BytesValue:
    answer: BytesValue = await method(request)
    return answer


async def profile(folder: Path, into: Path, size: Size) -> None:
    """Write a profile of a server that runs the three-step executions."""
    command = (sys.executable, "-m", "tests.bench.profiled", str(into))
    async with serving(folder, *command) as target, grpc.aio.insecure_channel(target) as channel:
        service = Service(channel)
        await service.prepare()
        seconds = await service.waited("three", size.executions, AT_A_TIME)
    print(f"{size.executions / seconds:,.0f} executions/s under the profiler; read {into} with pstats")


@asynccontextmanager
async def serving(folder: Path, *command: str) -> AsyncIterator[str]:
    """Run a server inside; gives its address."""
    server = ServerProcess(
        folder, "--handlers", str(HERE / "handlers.py"), listen="127.0.0.1:0", command=command or FLOWKEEP
    )
    await server.start()
    try:
        yield server.target
        code, said = await server.terminate()
        assert (code, said.splitlines()[-1:]) == (0, ["Stopped."]), (code, said)
    finally:
        await server.close()
    assert not server.complaints, server.complaints


@asynccontextmanager
async def bare_store(dsn: str) -> AsyncIterator[BareStore]:
    """Open the bare store inside."""
    store = await BareStore.open(dsn)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def bare_starter(dsn: str) -> AsyncIterator[str]:
    """Run the bare gRPC server inside, in a process of its own as ours is; gives its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", bare_start.__name__, dsn, stdout=subprocess.PIPE, cwd=HERE.parents[1]
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.terminate()
        await process.wait()


if __name__ == "__main__":
    main()
