"""The course of one chaos run: traffic, faults, healing, and writing down what there is to judge."""

from __future__ import annotations

import asyncio
import gc
import random
import resource
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from flowkeep import Client
from tests.faults.checks.aftermath import overgrown
from tests.faults.checks.delays import told_after
from tests.faults.checks.starts import explained
from tests.faults.harness.caller import DEADLINE
from tests.faults.harness.cluster import TTL, Cluster, running_cluster
from tests.faults.harness.collection import Kept, collect, leaks
from tests.faults.harness.control import STEERING
from tests.faults.harness.division import divide
from tests.faults.harness.programs import INPUT_SCHEMA, Program
from tests.faults.harness.records import Outcome, Record, StepFacts, Usage
from tests.faults.harness.traffic import Traffic, running_traffic
from tests.faults.harness.usage import usages
from tests.faults.kinds.kind import Kind, Scene, VoidError
from tests.patience import PATIENCE

WARM_UP = 3.0
WORK_PATIENCE = PATIENCE
"""Seconds within which, with three TTLs, everything has ended after the last heal: I19, EX7."""
SESSIONS_PATIENCE = 5.0
IDLE_PATIENCE = 10.0


Workload = Callable[[random.Random, str], list[Program]]
"""Gives the programs of a run, whose calls go to an address."""


async def run_chaos(
    kind: Kind, seed: int, duration: float, rate: float, ttl: float = TTL, workload: Workload | None = None
) -> Record:
    """Run one kind of fault by a seed and return all that was seen. Call it in the main thread."""
    (record,) = [record async for record in run_in_parts(kind, seed, duration, rate, ttl, workload)]
    return record


async def run_in_parts(
    kind: Kind, seed: int, duration: float, rate: float, ttl: float, workload: Workload | None = None, parts: int = 1
) -> AsyncIterator[Record]:
    """Run as `run_chaos` does, and give what was seen in parts, each with all that belongs to its executions.

    What belongs to none is in every part. So it is never all in memory, however much it is.
    """

    def draw(what: str) -> random.Random:
        # One for each part, so that the faults of a seed do not depend on how fast the traffic was.
        return random.Random(f"{what} {kind.name} {seed}")

    # Clients, proxies and the world outside share this process, which needs more than the usual 1,024 files.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    async with AsyncExitStack() as stack:
        try:
            prepared = await kind.prepare()
        except VoidError as reason:
            yield Record(kind.name, seed, void_reason=str(reason))
            return
        stack.push_async_callback(kind.clean_up)
        cluster = await stack.enter_async_context(
            running_cluster(
                draw("network"),
                ttl=ttl,
                settings={**kind.settings, **prepared},
                follows=kind.follows,
                shields_clients=kind.shields_clients,
                make_postgres=kind.make_postgres,
            )
        )
        fresh = await usages(cluster)
        made = (workload or kind.workload)(draw("programs"), cluster.world.url)
        async with kind.beside(cluster):
            await _apply(cluster, made)
            clients = kind.watchers, kind.is_steered
            async with running_traffic(cluster, made, rate, draw("traffic"), *clients) as traffic:
                course = await _run(kind, duration, rate, cluster, traffic, draw("faults"))
        idle = await _idle(cluster, fresh)
        for replica in cluster.replicas:
            await replica.stop()
        notes = {**_notes(traffic), "kept beyond the start": _growth(fresh, idle), **kind.notes(cluster)}
        course = {**course, **kind.seen(), "leaks": await _leaks(cluster), "fresh": fresh, "idle": idle, "notes": notes}
        division = await divide(cluster.postgres, parts)
        for number, part in enumerate(division.parts):
            kept = await collect(cluster.postgres, part if parts > 1 else None)
            record = replace(_record(kind, seed, traffic, cluster, kept, made), **course)
            record = division.part_of(record, number) if parts > 1 else record
            yield replace(record, notes={**record.notes, **_remarks(record)})


async def _run(
    kind: Kind, duration: float, rate: float, cluster: Cluster, traffic: Traffic, draw: random.Random
) -> dict[str, Any]:
    """Let traffic warm up, make faults, heal, and wait for the end; returns what of the record is known then."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(WARM_UP)
    share = len(traffic.history.acked) / (rate * WARM_UP)
    scene = Scene(cluster, draw, loop.time() + duration - WARM_UP)
    void_reason = ""
    try:
        await kind.run(scene)
    except VoidError as reason:
        void_reason = str(reason)
    healed = loop.time()
    await traffic.stop_starting(2 * DEADLINE)
    all_ended = await _all_ended(cluster, healed + 3 * cluster.ttl + WORK_PATIENCE)
    await traffic.read_all(cluster)
    return {
        "landings": tuple(scene.landings),
        "traffic_share": share,
        "all_ended": all_ended,
        "void_reason": void_reason,
    }


def _notes(traffic: Traffic) -> dict[str, str]:
    answers = [call.returned - call.invoked for call in traffic.calls]
    unknown = Counter(call.code for call in traffic.calls if call.outcome is Outcome.UNKNOWN)
    steered = Counter(call.method for call in traffic.calls if call.outcome is Outcome.OK and call.method in STEERING)
    return {
        "steered": ", ".join(f"{method} {count}" for method, count in sorted(steered.items())) or "none",
        "slowest answer": f"{max(answers, default=0):.1f} s of {DEADLINE:g} s",
        "unknown outcomes": ", ".join(f"{code} {count}" for code, count in unknown.most_common()) or "none",
    }


def _remarks(record: Record) -> dict[str, str]:
    return {
        "commit to watcher": told_after(record),
        "late calls that a pause explains": f"{explained(record)} of {len(record.effects)}",
    }


def _growth(fresh: Mapping[str, Usage], idle: Mapping[str, Usage]) -> str:
    tasks = [sum(used.tasks.values()) - sum(fresh[name].tasks.values()) for name, used in idle.items()]
    descriptors = [used.descriptors - fresh[name].descriptors for name, used in idle.items()]
    return f"tasks {tasks}, descriptors {descriptors}"


def _record(kind: Kind, seed: int, traffic: Traffic, cluster: Cluster, kept: Kept, made: list[Program]) -> Record:
    return Record(
        kind=kind.name,
        seed=seed,
        calls=tuple(traffic.calls),
        streams=tuple(traffic.streams),
        effects=tuple(cluster.world.effects),
        rows=kept.rows,
        requests=kept.requests,
        operations=kept.operations,
        writes=kept.writes,
        incarnations=kept.incarnations,
        leases=kept.leases,
        programs={program.name: program.steps for program in made}
        | {"blocker": {"block": StepFacts("chaos_block", seconds=1.5 * cluster.ttl)}},
        caps={program.name: program.cap for program in made if program.cap is not None},
        stalls=tuple(cluster.world.stalls),
        clock=datetime.fromtimestamp(time.time() - time.monotonic(), UTC),
        keeps_ownership=kind.keeps_ownership,
        logs={replica.name: replica.server.log for replica in cluster.replicas},
        exit_codes={replica.name: next(filter(None, replica.exit_codes), 0) for replica in cluster.replicas},
    )


async def _apply(cluster: Cluster, made: list[Program]) -> None:
    block = {"id": "block", "handler": "chaos_block", "params": {"seconds": 1.5 * cluster.ttl}}
    bulk = {"id": "bulk", "handler": "chaos_bulk", "params": {"size": 60_000}}
    extra = [
        {"name": "blocker", "input_schema": INPUT_SCHEMA, "steps": [block]},
        {"name": "bulk", "input_schema": INPUT_SCHEMA, "steps": [{**bulk, "id": f"b{n}"} for n in range(20)]},
    ]
    async with Client(cluster.replicas[0].target) as client:
        for definition in [*(program.definition for program in made), *extra]:
            await client.create_workflow(definition)


async def _all_ended(cluster: Cluster, deadline: float) -> bool:
    """Wait until no execution is left, and tell whether that was in time."""
    loop = asyncio.get_running_loop()
    while loop.time() < deadline:
        if not await cluster.owned():
            return True
        await asyncio.sleep(0.2)
    return False


async def _idle(cluster: Cluster, fresh: Mapping[str, Usage]) -> Mapping[str, Usage]:
    """Return what each replica uses when it has nothing to do, and had a while to notice."""
    for replica in cluster.replicas:
        await replica.send_clients_away()
    gc.collect()  # a call that was left keeps its connection until then
    loop = asyncio.get_running_loop()
    deadline = loop.time() + IDLE_PATIENCE
    while True:
        idle = await usages(cluster)
        if not any(overgrown(fresh[name], used) for name, used in idle.items()) or loop.time() >= deadline:
            return idle
        await asyncio.sleep(0.2)


async def _leaks(cluster: Cluster) -> list[str]:
    """Return what is left in Postgres when its sessions had a while to notice that their clients have gone."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SESSIONS_PATIENCE
    while True:
        left = await leaks(cluster.postgres)
        if not left or loop.time() >= deadline:
            return left
        await asyncio.sleep(0.1)
