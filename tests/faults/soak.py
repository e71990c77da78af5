"""A long run with faults, in which nothing may be lost or grow: `python -m tests.faults.soak --duration 600`."""

from __future__ import annotations

import os

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # as in chaos.py, before anything imports gRPC

import argparse
import asyncio
import json
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from tests.faults.chaos import SHOWN
from tests.faults.checks.checker import judge
from tests.faults.checks.growth import HEAD, MEMORY, Course, courses
from tests.faults.checks.keeping import keep
from tests.faults.checks.violations import Violation
from tests.faults.harness.cluster import PRODUCTION_TTL
from tests.faults.harness.records import Outcome, Record
from tests.faults.kinds.soak import Soak, soak_workload
from tests.faults.run import run_in_parts
from tests.folders import ROOT

RESULT = ROOT / "build" / "soak.json"
PART = 1000
"""Executions that are judged at a time."""
_CARRIED_SHARE = 0.9


@dataclass
class Tally:
    """What was judged of a soak so far."""

    executions: int = 0
    acked: int = 0
    streams: int = 0
    effects: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)
    void_reason: str = ""

    def add(self, record: Record) -> None:
        """Judge a part."""
        verdict = judge(record)
        self.executions += len(record.rows)
        self.streams += len(record.streams)
        self.effects += len(record.effects)
        executes = [call for call in record.calls if call.method == "Execute"]
        self.acked += len({call.execution_id for call in executes if call.outcome is Outcome.OK})
        self.unknown.update(call.code for call in record.calls if call.outcome is Outcome.UNKNOWN)
        self.slowest = max([self.slowest, *(call.returned - call.invoked for call in record.calls)])
        self.faults = dict(Counter(landing.kind for landing in record.landings))
        self.notes = {name: str(value) for name, value in record.notes.items()}
        self.void_reason = verdict.void_reason
        new = [violation for violation in verdict.violations if violation not in self.violations]
        if new and not self.violations:
            print(f"the first part with violations is kept in {keep(record, verdict)}", flush=True)
        self.violations += new


async def run_soak(soak: Soak, seed: int, duration: float, rate: float, ttl: float) -> Tally:
    """Run it and judge it part by part. Call it in the main thread."""
    tally = Tally()
    parts = max(1, round(rate * duration / PART))
    async for record in run_in_parts(soak, seed, duration, rate, ttl, soak_workload, parts):
        tally.add(record)
    return tally


def troubles(tally: Tally, found: Sequence[Course], expected: float) -> list[str]:
    """Return why a soak failed."""
    rules = Counter(violation.rule for violation in tally.violations)
    told = [f"{rule} was broken {count} times" for rule, count in sorted(rules.items())]
    if tally.void_reason:
        told.append(tally.void_reason)
    if tally.acked < _CARRIED_SHARE * expected:
        told.append(f"{tally.acked} executions were accepted, {expected:.0f} were to be")
    if MEMORY not in {course.name for course in found}:
        told.append("it was too short to follow the memory")
    return told + [f"{course.name} {course.trouble}" for course in found if course.trouble]


def main() -> None:
    """Run, tell, and exit with 1 when something was lost or grew."""
    arguments = _arguments()
    begun = time.monotonic()
    soak = Soak(arguments.interval, arguments.every)
    try:
        tally = asyncio.run(run_soak(soak, arguments.seed, arguments.duration, arguments.rate, arguments.ttl))
    except Exception:  # the samples are told whatever happened
        tally = Tally(violations=[Violation("RUN", "soak", traceback.format_exc()[-4000:])])
    found = courses(soak.samples)
    failed = troubles(tally, found, arguments.rate * arguments.duration)
    print(
        f"{tally.executions} executions, {tally.acked / arguments.duration:.1f}/s accepted of {arguments.rate:g}/s, "
        f"{tally.streams} streams, {tally.effects} effects, faults {tally.faults}, "
        f"{len(tally.violations)} violations, {time.monotonic() - begun:.0f} s"
    )
    print(f"  slowest answer: {tally.slowest:.1f} s; unknown outcomes: {dict(tally.unknown)}")
    print(f"  kept beyond the start: {tally.notes.get('kept beyond the start')}\n\n{HEAD}")
    for course in found:
        print(course.line)
    for violation in tally.violations[:SHOWN]:
        print(f"  {violation}")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(
        json.dumps(
            {
                "settings": vars(arguments),
                "executions": tally.executions,
                "acked": tally.acked,
                "faults": tally.faults,
                "violations": [str(violation) for violation in tally.violations],
                "troubles": failed,
                "courses": [asdict(course) for course in found],
                "samples": [asdict(sample) for sample in soak.samples],
            },
            indent=2,
        )
    )
    print("\nPASS" if not failed else "\nFAIL: " + "; ".join(failed))
    sys.exit(bool(failed))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run three replicas for long with traffic and faults.")
    parser.add_argument("--duration", type=float, default=600.0, help="seconds of traffic")
    parser.add_argument("--rate", type=float, default=40.0, help="executions per second, of three steps each")
    parser.add_argument("--ttl", type=float, default=PRODUCTION_TTL, help="seconds of a lease")
    parser.add_argument("--interval", type=float, default=30.0, help="seconds from fault to fault")
    parser.add_argument("--every", type=float, default=5.0, help="seconds from sample to sample")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
