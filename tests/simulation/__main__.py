"""`python -m tests.simulation`: runs seeds, replays one with its trace, or shows that planted bugs are caught."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

from tests.simulation.mutants import MUTANTS
from tests.simulation.trial import Outcome, Verdict, keep, need_fixed_hashes, simulate_all, simulate_file, simulate_seed


def main() -> int:
    """Run what the arguments say; 1 when anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=1_000, help="how many seeds; 1 prints the trace")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--workers", type=int, default=0, help="processes; by default one per core")
    parser.add_argument("--replay", type=Path, help="a kept scenario to run with its trace")
    parser.add_argument("--mutant", default="", choices=["", *MUTANTS], help="a bug to plant")
    parser.add_argument("--mutants", action="store_true", help="says within how many seeds planted bugs show")
    parser.add_argument("--keep", action="store_true", help="writes failing scenarios to the regressions")
    options = parser.parse_args()
    need_fixed_hashes()
    if options.mutants:
        return _plant(options)
    if options.replay is not None:
        return _show(simulate_file(options.replay))
    if options.seeds == 1:
        return _show(simulate_seed(options.seed, mutant=options.mutant, with_trace=True))
    return _run(options)


def _show(outcome: Outcome) -> int:
    print("\n".join(outcome.trace))
    print(f"seed {outcome.seed}: {outcome.verdict}, trace {outcome.digest[:16]}")
    print("\n".join(outcome.problems))
    return int(outcome.verdict is Verdict.FAIL)


def _run(options: argparse.Namespace) -> int:
    begin = time.perf_counter()
    verdicts: Counter[Verdict] = Counter()
    for outcome in simulate_all(options.seed, options.seeds, options.workers, options.mutant):
        verdicts[outcome.verdict] += 1
        if outcome.verdict is Verdict.FAIL:
            _tell(outcome, options)
    elapsed = time.perf_counter() - begin
    counts = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in Verdict)
    print(f"{options.seeds} seeds from {options.seed}: {counts}; {options.seeds / elapsed:.1f} seeds/s")
    return int(verdicts[Verdict.FAIL] > 0)


def _tell(outcome: Outcome, options: argparse.Namespace) -> None:
    planted = f" ARGS='--mutant {options.mutant}'" if options.mutant else ""
    print(f"seed {outcome.seed}: FAIL; again by: make simulate SEEDS=1 SEED={outcome.seed}{planted}")
    for problem in outcome.problems[:5]:
        print(f"    {problem}")
    if options.keep:
        print(f"    kept as {keep(outcome.seed)}")
    sys.stdout.flush()


def _plant(options: argparse.Namespace) -> int:
    """Plant the bug that is named, or each, until it is caught; 1 when one is not."""
    survived = 0
    for name, mutant in MUTANTS.items():
        if options.mutant not in ("", name):
            continue
        caught: Outcome | None = None
        needed = 0
        for outcome in simulate_all(options.seed, options.seeds, options.workers or 1, name):
            needed += 1
            if any(problem.startswith(mutant.oracles) for problem in outcome.problems):
                caught = outcome
                break
        if caught is None:
            survived += 1
            print(f"{name}: NOT CAUGHT in {options.seeds} seeds: {mutant.bug}")
        else:
            problem = next(problem for problem in caught.problems if problem.startswith(mutant.oracles))
            print(f"{name}: caught within {needed} seeds (seed {caught.seed}): {mutant.bug}\n    {problem}")
        sys.stdout.flush()
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
