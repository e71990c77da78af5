"""One chaos run: `python -m tests.faults.chaos --kind K1 --seed 1 --duration 20`."""

from __future__ import annotations

import os

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # read when gRPC begins; its fork handlers kill children now and then

import argparse
import asyncio
import sys
import time
import traceback

from tests.faults.checks.checker import Result, Verdict, judge
from tests.faults.checks.failover import report
from tests.faults.checks.keeping import keep
from tests.faults.harness.cluster import TTL
from tests.faults.harness.records import Record
from tests.faults.kinds.catalogue import KINDS
from tests.faults.kinds.kind import Kind
from tests.faults.run import Workload, run_chaos

SHOWN = 40


def run_once(kind: str, seed: int, duration: float, rate: float, ttl: float = TTL) -> tuple[Record, Verdict]:
    """Run one kind of fault by its name; see run_kind."""
    return run_kind(KINDS[kind](), seed, duration, rate, ttl)


def run_kind(
    kind: Kind, seed: int, duration: float, rate: float, ttl: float, workload: Workload | None = None
) -> tuple[Record, Verdict]:
    """Run one kind of fault, judge it, tell it in a line, and keep what is left if it failed."""
    begun = time.monotonic()
    try:
        record = asyncio.run(run_chaos(kind, seed, duration, rate, ttl, workload))
    except Exception:  # whatever it is, the other runs go on
        record = Record(kind.name, seed, crash=traceback.format_exc()[-4000:])
    verdict = judge(record)
    print(summary(record, verdict, time.monotonic() - begun), flush=True)
    if verdict.result is Result.FAIL:
        keep(record, verdict)
    return record, verdict


def summary(record: Record, verdict: Verdict, took: float) -> str:
    """Return the run in one line."""
    calls = sum(1 for call in record.calls if call.method == "Execute")
    hits = sum(1 for landing in record.landings if landing.in_flight)
    return (
        f"{verdict.result} {record.kind} seed {record.seed}: {len(record.rows)} executions, {calls} Execute calls, "
        f"{len(record.streams)} streams, {len(record.effects)} effects, {hits} of {len(record.landings)} faults hit, "
        f"{len(verdict.violations)} violations, {took:.0f} s"
    )


def main() -> None:
    """Run, tell, and exit with 1 when a promise was broken, with 3 when the run is void."""
    arguments = _arguments()
    record, verdict = run_once(arguments.kind, arguments.seed, arguments.duration, arguments.rate, arguments.ttl)
    for name, value in record.notes.items():
        print(f"  {name}: {value}")
    for line in report([record]):
        print(f"  {line}")
    if verdict.void_reason:
        print(f"  void: {verdict.void_reason}")
    for rule, count in sorted(verdict.rules.items()):
        print(f"  {rule}: {count}")
    for violation in verdict.violations[:SHOWN]:
        print(f"  {violation}")
    sys.exit({Result.PASS: 0, Result.FAIL: 1, Result.VOID: 3}[verdict.result])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Run one kind of fault against three replicas and judge what came of it."
    )
    parser.add_argument("--kind", default="K1", choices=list(KINDS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--duration", type=float, default=20.0, help="seconds of traffic")
    parser.add_argument("--rate", type=float, default=15.0, help="executions per second")
    parser.add_argument("--ttl", type=float, default=TTL, help="seconds of a lease; production's is 10")
    return parser.parse_args()


if __name__ == "__main__":
    main()
