"""What it takes to explain an execution with many steps: `python -m tests.bench.explain [--steps 100000]`.

Server, Postgres and client share the machine, and the server has its event loop with the client: for how long that was
held up at most, by the time of the processor, is what others would have waited. One of the steps waits, behind all
others; then the execution is cancelled and retried, after which what runs again is looked for among all.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import time

import structlog
import uvloop

import flowkeep
from persistence.embedded import EmbeddedPostgres
from persistence.postgres import PostgresRepository, migrate
from tests.folders import new_folder
from tests.integration.stage import serving

INNER = 1_000
"""Items of each list in the list."""

ROUNDS = 20
PATIENCE = 3_600.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measures the explanation of an execution with many steps.")
    parser.add_argument("--steps", type=int, default=100_000, metavar="N", help=f"a multiple of {INNER:,}")
    steps = parser.parse_args().steps
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with (
        new_folder("flowkeep-explain-", on_disk=True) as folder,
        EmbeddedPostgres(folder / "data") as postgres,
    ):
        uvloop.run(measure(postgres.dsn(), steps))


def definition() -> dict[str, object]:
    """Return a workflow of lists in a list, and a step behind them that waits."""
    inner = {"id": "b", "handler": "transform", "params": {"value": 1}}
    around = {"id": "a", "for_each": {"items": "input.inner", "steps": [inner], "output": "${ 1 }"}}
    waits = {"id": "waits", "handler": "wait", "params": {"duration": "1d"}}
    fan = {"id": "all", "for_each": {"items": "input.outer", "steps": [around], "output": "${ 1 }"}}
    return {"name": "many", "steps": [fan, waits]}


async def measure(dsn: str, steps: int) -> None:
    """Print how long it takes, and how long the loop was held up meanwhile, in each of the two cases."""
    await migrate(dsn)
    repository = await PostgresRepository.open(dsn, command_timeout=PATIENCE)
    try:
        async with (
            serving(repository, max_execution_bytes=1 << 30) as target,
            flowkeep.Client(target, timeout=PATIENCE) as client,
        ):
            await client.apply(definition())
            outer = list(range(steps // INNER))
            began = time.perf_counter()
            execution_id = (await client.execute("many", {"outer": outer, "inner": list(range(INNER))})).execution_id
            await waiting(client, execution_id)
            counts = (await client.get_execution(execution_id)).step_counts
            print(f"{counts.total:,} steps, made in {time.perf_counter() - began:.0f} s")
            await explained(client, execution_id, "one waits behind all others")
            await client.cancel(execution_id)
            async for _ in client.watch(execution_id, 10):
                pass
            await client.retry(execution_id)
            await waiting(client, execution_id, 2)
            await explained(client, execution_id, "the same, after a retry")
    finally:
        await repository.close()


async def waiting(client: flowkeep.Client, execution_id: str, times: int = 1) -> None:
    """Return when the execution waits at its last step."""
    async for event in client.watch(execution_id):
        times -= event.HasField("step_waiting")
        if not times:
            return


async def explained(client: flowkeep.Client, execution_id: str, what: str) -> None:
    """Print the median and the most of what it takes, and for how long the loop was held up at most."""
    took, held = list[float](), [0.0]
    looking = asyncio.create_task(look(held))
    for _ in range(ROUNDS):
        began = time.perf_counter()
        found = await client.explain_execution(execution_id)
        took.append(1e3 * (time.perf_counter() - began))
        assert [each.path for each in found.steps] == ["waits"], found
    looking.cancel()
    took.sort()
    print(f"{what}: median {took[len(took) // 2]:.1f} ms, most {took[-1]:.1f} ms; loop held up {1e3 * held[0]:.1f} ms")


async def look(held: list[float]) -> None:
    """Keep how much of the processor the loop took at most between two looks at it."""
    while True:
        began = time.thread_time()
        await asyncio.sleep(0.001)
        held[0] = max(held[0], time.thread_time() - began)


if __name__ == "__main__":
    main()
