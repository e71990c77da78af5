"""One seed or scenario from its beginning to its verdict, and many of them on all cores."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path

from tests.simulation.checker import check
from tests.simulation.mutants import MUTANTS
from tests.simulation.programs import scenario
from tests.simulation.scenario import Scenario, load
from tests.simulation.world import World

REGRESSIONS = Path(__file__).parent / "regressions"
CHUNK = 25


class Verdict(StrEnum):
    """What a run showed. VOID: nothing went wrong because nothing happened to anything that was going on."""

    PASS = "PASS"
    FAIL = "FAIL"
    VOID = "VOID"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Verdict on a run, its violations, its trace, and a digest of the trace."""

    seed: int
    verdict: Verdict
    problems: tuple[str, ...]
    digest: str
    trace: tuple[str, ...] = ()


def simulate(case: Scenario, *, mutant: str = "", with_trace: bool = False) -> Outcome:
    """Run a scenario, with a planted bug if one is named, and judge it."""
    with MUTANTS[mutant].planted() if mutant else nullcontext():
        world = World(case)
        history = world.run()
    problems = tuple(dict.fromkeys(check(world)))
    lines = history.lines()
    verdict = Verdict.FAIL if problems else Verdict.PASS if history.landed else Verdict.VOID
    digest = sha256("\n".join([*lines, *problems]).encode()).hexdigest()
    world.close()
    return Outcome(case.seed, verdict, problems, digest, tuple(lines) if with_trace else ())


def simulate_seed(seed: int, *, mutant: str = "", with_trace: bool = False) -> Outcome:
    """Run the scenario of a seed and judge it."""
    return simulate(scenario(seed), mutant=mutant, with_trace=with_trace)


def simulate_file(path: Path) -> Outcome:
    """Run a scenario that was kept and judge it."""
    return simulate(load(path), with_trace=True)


def simulate_all(first: int, count: int, workers: int = 0, mutant: str = "") -> Iterator[Outcome]:
    """Run `count` seeds on all cores, or as many workers, and give the outcomes in order."""
    chunks = [(begin, min(begin + CHUNK, first + count), mutant) for begin in range(first, first + count, CHUNK)]
    workers = workers or os.cpu_count() or 1
    if workers == 1:
        for chunk in chunks:
            yield from _simulate_chunk(chunk)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for outcomes in pool.map(_simulate_chunk, chunks):
            yield from outcomes


def keep(seed: int) -> Path:
    """Write the scenario of a seed where kept ones are replayed, and return the file."""
    path = REGRESSIONS / f"seed_{seed}.json"
    scenario(seed).save(path)
    return path


def need_fixed_hashes() -> None:
    """Begin this program anew unless hashes of strings are the same in every process: order may hang on them."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - this very program


def _simulate_chunk(chunk: tuple[int, int, str]) -> list[Outcome]:
    begin, end, mutant = chunk
    gc.freeze()  # what is loaded stays; only what a run leaves is looked through
    return [simulate_seed(seed, mutant=mutant) for seed in range(begin, end)]
