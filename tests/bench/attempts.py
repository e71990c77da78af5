"""CPU of one attempt, driving and planning included, on the memory store: `python -m tests.bench.attempts`."""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import time
from typing import Any

import structlog
import uvloop

from persistence.memory import MemoryRepository
from persistence.model import Scope
from service.app import build_engine
from service.config import Config
from service.engine.durations import TEN_YEARS
from service.engine.handlers.model import Effect, Handler
from service.engine.handlers.registry import Registry
from service.engine.requests import StartRequest
from service.engine.running.leases import LeaseKeeper

EXECUTIONS, STEPS, ROUNDS = 500, 10, 3
SCOPE = Scope("acme")


async def _call(params: Any, context: Any) -> Any:
    return params


async def _pause(params: Any, context: Any) -> Any:
    await asyncio.sleep(0)
    return params


HANDLERS = [
    Handler(f"{run.__name__[1:]}-{effect}", run, params_schema={"type": "object"}, effect=effect)
    for run in (_call, _pause)
    for effect in (Effect.NONE, Effect.IDEMPOTENT)
]


async def measure(profile: cProfile.Profile | None = None) -> dict[str, float]:
    """Return the microseconds of an attempt of each handler, in the quickest round."""
    engine = build_engine(Config(max_running=10 * EXECUTIONS), MemoryRepository(), Registry(HANDLERS))
    await LeaseKeeper(engine.repository, engine.runner.tenure, engine.clock, TEN_YEARS).register(alone=True)
    found = {}
    for handler in HANDLERS:
        steps = [{"id": f"s{n}", "handler": handler.name, "params": {"n": n}} for n in range(STEPS)]
        await engine.workflows.create("acme", {"name": handler.name, "steps": steps}, "me")
        request, took = StartRequest(handler.name), []
        for _ in range(ROUNDS):
            begun = time.process_time()
            if profile is not None:
                profile.enable()
            made: Any = await engine.executions.execute_all(SCOPE, "me", [request] * EXECUTIONS)
            runs = filter(None, (engine.runner.run_of(each.execution.id) for each in made))
            await asyncio.gather(*(run.closed.wait() for run in runs))
            if profile is not None:
                profile.disable()
            took.append(time.process_time() - begun)
        found[handler.name] = 1e6 * min(took) / EXECUTIONS / STEPS
    await engine.runner.stop()
    return found


def _drop(*_: Any) -> Any:
    raise structlog.DropEvent


def main() -> None:
    """Measure, and say what it came to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", action="store_true", help="show where it goes, too")
    profile = cProfile.Profile() if parser.parse_args().profile else None
    structlog.configure(processors=[_drop])
    for name, cost in uvloop.run(measure(profile)).items():
        print(f"{name:18} {cost:6.1f} us an attempt")
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(45)


if __name__ == "__main__":
    main()
