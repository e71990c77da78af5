"""The course of one chaos run: traffic, faults, healing, and writing down what there is to judge."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from flowkeep import Client
from tests.faults.caller import DEADLINE
from tests.faults.cluster import Cluster, Replica, running_cluster
from tests.faults.collection import Kept, collect, leaks
from tests.faults.kinds import Kind, Scene, VoidError
from tests.faults.programs import INPUT_SCHEMA, Program, programs
from tests.faults.records import Outcome, Record
from tests.faults.traffic import Traffic, running_traffic

WARM_UP = 3.0
HEAL_PATIENCE = 30.0
"""Seconds within which everything has ended after the last heal: I19."""
PROGRAMS = 16
SESSIONS_PATIENCE = 5.0


async def run_chaos(kind: Kind, seed: int, duration: float, rate: float) -> Record:
    """Run one kind of fault by a seed and return all that was seen. Call it in the main thread."""

    def draw(what: str) -> random.Random:
        # One for each part, so that the faults of a seed do not depend on how fast the traffic was.
        return random.Random(f"{what} {kind.name} {seed}")

    async with AsyncExitStack() as stack:
        try:
            prepared = await kind.prepare()
        except VoidError as reason:
            return Record(kind.name, seed, void_reason=str(reason))
        stack.push_async_callback(kind.clean_up)
        cluster = await stack.enter_async_context(
            running_cluster(
                draw("network"),
                settings={**kind.settings, **prepared},
                follows=kind.follows,
                shields_clients=kind.shields_clients,
                postgres_folder=kind.postgres_folder,
            )
        )
        made = programs(draw("programs"), PROGRAMS, cluster.world.url)
        await _apply(cluster.replicas[0], made)
        async with running_traffic(cluster, made, rate, draw("traffic")) as traffic:
            course = await _run(kind, duration, rate, cluster, traffic, draw("faults"))
        for replica in cluster.replicas:
            await replica.stop()
        course = {**course, "leaks": await _leaks(cluster), "notes": {**_notes(traffic), **kind.notes(cluster)}}
        return replace(_record(kind, seed, traffic, cluster, await collect(cluster.postgres), made), **course)


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
    all_ended = await _all_ended(cluster, healed + HEAL_PATIENCE)
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
    return {
        "slowest answer": f"{max(answers, default=0):.1f} s of {DEADLINE:g} s",
        "unknown outcomes": ", ".join(f"{code} {count}" for code, count in unknown.most_common()) or "none",
    }


def _record(kind: Kind, seed: int, traffic: Traffic, cluster: Cluster, kept: Kept, made: list[Program]) -> Record:
    return Record(
        kind=kind.name,
        seed=seed,
        calls=tuple(traffic.calls),
        streams=tuple(traffic.streams),
        effects=tuple(cluster.world.effects),
        rows=kept.rows,
        requests=kept.requests,
        writes=kept.writes,
        incarnations=kept.incarnations,
        programs={program.name: program.steps for program in made},
        keeps_ownership=kind.keeps_ownership,
        logs={replica.name: replica.server.log for replica in cluster.replicas},
        exit_codes={replica.name: max(replica.exit_codes, default=0) for replica in cluster.replicas},
    )


async def _apply(replica: Replica, made: list[Program]) -> None:
    block = {"id": "block", "handler": "chaos_block", "params": {"seconds": 1.5}}
    bulk = {"id": "bulk", "handler": "chaos_bulk", "params": {"size": 60_000}}
    extra = [
        {"name": "blocker", "input_schema": INPUT_SCHEMA, "steps": [block]},
        {"name": "bulk", "input_schema": INPUT_SCHEMA, "steps": [{**bulk, "id": f"b{n}"} for n in range(20)]},
    ]
    async with Client(replica.target) as client:
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


async def _leaks(cluster: Cluster) -> list[str]:
    """Return what is left in Postgres when its sessions had a while to notice that their clients have gone."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SESSIONS_PATIENCE
    while True:
        left = await leaks(cluster.postgres)
        if not left or loop.time() >= deadline:
            return left
        await asyncio.sleep(0.1)
