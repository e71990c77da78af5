"""Measures a server, and beside it what Postgres and gRPC give on the same machine without one.

    python -m tests.bench.run [--quick] [--output build/bench.json] [--profile FILE]

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
from collections.abc import AsyncIterator, Sequence
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
from tests.bench.dbos_process import DbosProcess, dbos
from tests.bench.flight import fly
from tests.bench.processor import Cost, Meter
from tests.bench.report import Baseline, Row, table, write
from tests.bench.service import Service
from tests.e2e.process import FLOWKEEP, ServerProcess
from tests.folders import new_folder

HERE = Path(__file__).parent
AT_A_TIME = 64
BATCH, BATCHES_AT_A_TIME = 500, 2
WATCHERS = 100
SEQUENCE = 40
PROMISED_LATENCY = 500.0
"""Milliseconds; CONTRACT W11."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    executions: int = 2_000
    starts: int = 4_000
    dbos_executions: int = 300
    dbos_starts: int = 500
    watchers: int = WATCHERS
    repetitions: int = 3


QUICK = Size(executions=300, starts=500, dbos_executions=100, dbos_starts=200)


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
        serving(folder) as server,
        dbos(bare_dsn) as rival,
        # No process is started from here on: gRPC does not like to be forked.
        grpc.aio.insecure_channel(bare_target) as bare_channel,
        grpc.aio.insecure_channel(server.target) as channel,
        bare_store(bare_dsn) as bare,
    ):
        service, meter = Service(channel), Meter(server)
        await service.prepare()
        return [
            *await throughput(service, meter, bare, rival, size),
            *await latency(service, bare, rival, size),
            *await fan_out(service, size),
            # The last, as it leaves executions that wait for tomorrow.
            *await starts(service, bare_channel, rival, size),
        ]


async def throughput(
    service: Service, meter: Meter, bare: BareStore, rival: DbosProcess | None, size: Size
) -> list[Row]:
    """Three-step executions, many at a time."""
    waited: dict[str, list[float]] = {"three": [], "transforms": []}
    costs: dict[str, list[Cost]] = {name: [] for name in waited}
    watched, alone, rivals, kept = list[float](), list[float](), list[float](), list[float]()
    for _ in range(size.repetitions):
        alone.append(size.executions / await bare.run(size.executions, 3, AT_A_TIME))
        for workflow, values in waited.items():
            before = await meter.bytes_kept()
            took, cost = await meter.of(service.waited(workflow, size.executions, AT_A_TIME))
            values.append(size.executions / took)
            costs[workflow].append(cost)
            if workflow == "three":
                kept.append((await meter.bytes_kept() - before) / size.executions / 1e3)
        watched.append(size.executions / await service.watched("three", size.executions, AT_A_TIME))
        if rival is not None:
            rivals.append(size.dbos_executions / await rival.executions(3, size.dbos_executions, AT_A_TIME))
    baseline = Baseline("bare store, 3 steps, 64 at a time", alone)
    steps = Baseline(baseline.name, [3 * value for value in alone])
    rows = [
        Row("bare store: executions of 3 steps, 64 at a time", "executions/s", alone),
        Row("bare store: their steps", "steps/s", steps.values),
        Row("executions of 3 steps, 64 at a time, awaited by wait", "executions/s", waited["three"], baseline),
        Row("their steps", "steps/s", [3 * value for value in waited["three"]], steps),
        Row("the same with transforms in CEL", "executions/s", waited["transforms"], baseline),
        Row("the same, each awaited by a watch", "executions/s", watched, baseline),
    ]
    if rivals:
        other = Baseline("DBOS, 3 steps, 64 at a time", rivals)
        rows.append(Row("executions of 3 steps, awaited by wait", "executions/s", waited["three"], other))
        rows.append(Row("the same with transforms in CEL", "executions/s", waited["transforms"], other))
    rows += [row for name, each in costs.items() for row in cost_rows(name, each, size.executions)]
    rows.append(Row("tables and indexes, of an execution of 3 steps", "KB", kept))
    return rows


def cost_rows(name: str, costs: Sequence[Cost], count: int) -> list[Row]:
    """Return how much of the processor each process used for an execution."""
    shares = {"the server": "server", "its Postgres": "postgres", "the client": "client"}
    return [
        Row(f"CPU of {who}, an execution of {name}", "ms", [1e3 * getattr(cost, field) / count for cost in costs])
        for who, field in shares.items()
    ]


async def latency(service: Service, bare: BareStore, rival: DbosProcess | None, size: Size) -> list[Row]:
    """One execution of many steps, alone."""
    values, alone, rivals = list[float](), list[float](), list[float]()
    for _ in range(size.repetitions + 2):
        alone.append(1000 * await bare.run(1, SEQUENCE, 1) / SEQUENCE)
        values.append(1000 * await service.waited("forty", 1, 1) / SEQUENCE)
        if rival is not None:
            rivals.append(1000 * await rival.executions(SEQUENCE, 1, 1) / SEQUENCE)
    name = f"one execution of {SEQUENCE} steps, alone"
    rows = [Row(name, "ms/step", values, Baseline(f"bare store, {SEQUENCE} steps, alone", alone))]
    return rows + ([Row(name, "ms/step", values, Baseline(f"DBOS, {SEQUENCE} steps, alone", rivals))] if rivals else [])


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


async def starts(service: Service, bare_channel: grpc.aio.Channel, rival: DbosProcess | None, size: Size) -> list[Row]:
    """Execute alone, one by one and in batches, of executions that begin later."""
    values, batches, alone, rivals = list[float](), list[float](), list[float](), list[float]()
    start = bare_channel.unary_unary(bare_start.METHOD, BytesValue.SerializeToString, BytesValue.FromString)
    for repetition in range(size.repetitions):
        requests = [BytesValue(value=f"{repetition}-{number}".encode()) for number in range(size.starts)]
        began = time.perf_counter()
        answers = await fly((_call(start, request) for request in requests), AT_A_TIME)
        alone.append(size.starts / (time.perf_counter() - began))
        assert len({answer.value for answer in answers}) == size.starts
        values.append(size.starts / await service.starts(size.starts, AT_A_TIME))
        batches.append(size.starts / await service.batches(size.starts, BATCH, BATCHES_AT_A_TIME))
        if rival is not None:
            rivals.append(size.dbos_starts / await rival.starts(size.dbos_starts, AT_A_TIME))
    name, baseline = "Execute alone, 64 at a time", Baseline("bare gRPC server, one statement", alone)
    measured = {name: values, f"BatchExecute of {BATCH}, {BATCHES_AT_A_TIME} at a time": batches}
    baselines = [baseline, *([Baseline("DBOS, starts", rivals)] if rivals else [])]
    return [Row(what, "starts/s", found, base) for what, found in measured.items() for base in baselines]


async def _call(method: Any, request: BytesValue) -> BytesValue:
    answer: BytesValue = await method(request)
    return answer


async def profile(folder: Path, into: Path, size: Size) -> None:
    """Write a profile of a server that runs the three-step executions."""
    command = (sys.executable, "-m", "tests.bench.profiled", str(into))
    async with serving(folder, *command) as server, grpc.aio.insecure_channel(server.target) as channel:
        service = Service(channel)
        await service.prepare()
        seconds = await service.waited("three", size.executions, AT_A_TIME)
    print(f"{size.executions / seconds:,.0f} executions/s under the profiler; read {into} with pstats")


@asynccontextmanager
async def serving(folder: Path, *command: str) -> AsyncIterator[ServerProcess]:
    """Run a server inside."""
    server = ServerProcess(
        # The program itself, not a fork of what tests have loaded.
        folder,
        "--handlers",
        str(HERE / "handlers.py"),
        listen="127.0.0.1:0",
        command=command or (sys.executable, *FLOWKEEP),
    )
    await server.start()
    try:
        yield server
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
