"""Many chaos runs: `python -m tests.faults.chaos_all --runs 3`, with one line for each kind at the end."""

from __future__ import annotations

import os

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # as in chaos.py, before anything imports gRPC

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tests.faults.chaos import run_once
from tests.faults.checks.checker import Result, Verdict
from tests.faults.checks.failover import report
from tests.faults.harness.cluster import TTL
from tests.faults.harness.records import Record
from tests.faults.kinds.catalogue import KINDS

AGAIN = 2
"""Runs more of a kind of which none showed anything: a fault can miss, and a busy machine can hold up the traffic."""
SMOKE = ("K1", "K2", "K5", "K8", "K9", "K10", "K12", "K17")


@dataclass
class Tally:
    """The runs of one kind."""

    kind: str
    verdicts: list[Verdict] = field(default_factory=list)
    excused: int = 0
    """How many of them had a reason of their own to show nothing: this machine lacks something, say."""

    @property
    def line(self) -> str:
        """Runs, clean, VOID, violations."""
        results = [verdict.result for verdict in self.verdicts]
        violations = sum(len(verdict.violations) for verdict in self.verdicts)
        reasons = {verdict.void_reason for verdict in self.verdicts if verdict.result is Result.VOID}
        text = (
            f"{self.kind:4} runs {len(results)}, clean {results.count(Result.PASS)}, "
            f"VOID {results.count(Result.VOID)}, violations {violations}"
        )
        return text + "".join(f" ({reason})" for reason in sorted(reasons))

    @property
    def is_void(self) -> bool:
        """Whether no run showed anything, for no reason of its own."""
        return not self.excused and {verdict.result for verdict in self.verdicts} == {Result.VOID}

    @property
    def is_shown(self) -> bool:
        """Whether no run broke a promise, and one at least showed so or was excused."""
        results = {verdict.result for verdict in self.verdicts}
        return Result.FAIL not in results and (Result.PASS in results or self.excused > 0)


def main() -> None:
    """Run, tell, and exit with 1 when any promise was broken, or a kind of fault never landed."""
    arguments = _arguments()
    tallies, records = run_all(
        arguments.kinds, arguments.runs, arguments.seed, arguments.duration, arguments.rate, arguments.ttl
    )
    print()
    for tally in tallies:
        print(tally.line)
    for line in report(records):
        print(line)
    sys.exit(not all(tally.is_shown for tally in tallies))


def run_all(
    kinds: Sequence[str], runs: int, seed: int, duration: float, rate: float, ttl: float = TTL
) -> tuple[list[Tally], list[Record]]:
    """Run each kind `runs` times with seeds from `seed` on, kind after kind in turn; again where nothing was shown."""
    tallies = [Tally(kind) for kind in kinds]
    records = []
    for number in range(runs + AGAIN):
        for tally in tallies if number < runs else [tally for tally in tallies if tally.is_void]:
            record, verdict = run_once(tally.kind, seed + number, duration, rate, ttl)
            tally.verdicts.append(verdict)
            tally.excused += bool(record.void_reason)
            for violation in verdict.violations[:10]:
                print(f"  {violation}", flush=True)
            # Only what the failover clock reads: hundreds of runs have to fit into memory.
            records.append(replace(record, calls=(), streams=(), effects=(), rows={}, logs={}))
    return tallies, records


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run kinds of faults many times and count.")
    parser.add_argument("--kinds", type=_kinds, default=list(KINDS), help="comma-separated, or `smoke`; all by default")
    parser.add_argument("--runs", type=int, default=1, help="of each kind")
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--duration", type=float, default=20.0, help="seconds of traffic in each run")
    parser.add_argument("--rate", type=float, default=15.0, help="executions per second")
    parser.add_argument("--ttl", type=float, default=TTL, help="seconds of a lease; production's is 10")
    return parser.parse_args()


def _kinds(text: str) -> list[str]:
    named = SMOKE if text == "smoke" else tuple(text.split(","))
    if unknown := [kind for kind in named if kind not in KINDS]:
        raise argparse.ArgumentTypeError(f"there is no kind {', '.join(unknown)}; there are {', '.join(KINDS)}")
    return list(named)


if __name__ == "__main__":
    main()
