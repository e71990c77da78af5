"""Failover times against CONTRACT 2.5: `python -m tests.faults.failover`, at two TTLs."""

from __future__ import annotations

import os

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # as in chaos.py, before anything imports gRPC

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta

from tests.faults.chaos import SHOWN, run_kind
from tests.faults.checks.checker import Verdict
from tests.faults.checks.failover import moved_after, percentile, written_after
from tests.faults.harness.cluster import PRODUCTION_TTL, TTL
from tests.faults.harness.records import Landing, Record
from tests.faults.kinds.failover import Series, lasting_workload
from tests.folders import ROOT

RESULT = ROOT / "build" / "failover.json"
RATE = 9.0
LONG = frozenset({"stop", "partition"})
"""Kinds of which production's TTL allows only half as many in the same time."""
KINDS = ("kill", "terminate", "stop", "crash", "partition")


@dataclass(frozen=True)
class Clocked:
    """One promise of CONTRACT 2.5 and how it was kept; times in seconds."""

    event: str
    ttl: float
    faults: int
    count: int
    p50: float
    p99: float
    longest: float
    promised_p99: float
    promised_longest: float

    @property
    def is_kept(self) -> bool:
        """Whether it was."""
        return self.p99 <= self.promised_p99 and self.longest <= self.promised_longest

    @property
    def line(self) -> str:
        """A line of the table."""
        promised = f"p99 {self.promised_p99:g}"
        if self.promised_longest != self.promised_p99:
            promised += f", max {self.promised_longest:g}"
        return (
            f"{self.event:44} {self.ttl:4g} {self.faults:6} {self.count:6} {self.p50:7.2f} {self.p99:7.2f} "
            f"{self.longest:7.2f}  {promised:16} {'kept' if self.is_kept else 'BROKEN'}"
        )


HEAD = f"{'event':44} {'TTL':>4} {'faults':>6} {'n':>6} {'p50':>7} {'p99':>7} {'max':>7}  {'promised':16}"


def clocked(record: Record, series: Series, ttl: float) -> list[Clocked]:
    """Return what was measured in one series; nothing at all, nan, breaks a promise too."""
    moved = {kind: [time for each in _of(record, kind) for time in moved_after(record, each)] for kind in KINDS}
    again = ttl + 2.0, ttl + 5.0
    rows: list[tuple[str, str, Sequence[float], float, float]] = [
        ("kill -9: executions move again", "kill", moved["kill"], *again),
        ("kill -9: clients are connected to the new one", "kill", series.seconds["reconnected"], 2.0, 2.0),
        ("SIGTERM: others take over", "terminate", moved["terminate"], 2.0, 2.0),
        ("SIGTERM: the process is gone", "terminate", series.seconds["gone"], 25.0, 25.0),
        ("SIGSTOP 2.5 TTL: executions move again", "stop", moved["stop"], *again),
        ("SIGSTOP 2.5 TTL: registered anew on waking", "stop", series.seconds["registered anew"], 1.0, 1.0),
        ("Postgres crash: first write", "crash", _first_writes(record), 3.0, 3.0),
        ("Postgres crash: answers to calls", "crash", _answers(record, "crash"), 5.0, 5.0),
        ("partition: executions move again", "partition", moved["partition"], *again),
        ("partition: answers to calls", "partition", _answers(record, "partition"), 5.0, 5.0),
        ("partition: accepts again when healed", "partition", series.seconds["healed"], 3.0, 3.0),
    ]
    return [
        Clocked(
            event,
            ttl,
            len(_of(record, kind)),
            len(measured),
            percentile(times, 0.5),
            percentile(times, 0.99),
            max(times),
            *promised,
        )
        for event, kind, measured, *promised in rows
        if kind in series.counts
        for times in [measured or [math.nan]]
    ]


def _of(record: Record, kind: str) -> list[Landing]:
    return [landing for landing in record.landings if landing.kind == kind]


def _first_writes(record: Record) -> list[float]:
    found = (written_after(record, landing) for landing in _of(record, "crash"))
    return [seconds for seconds in found if seconds is not None]


def _answers(record: Record, kind: str) -> list[float]:
    """Return how long the calls took that were under way while a replica, or all of them, had no Postgres.

    What a call waited before, for a process that an earlier fault had stopped, does not count.
    """
    times = []
    for landing in _of(record, kind):
        end = landing.accepting or landing.until
        if end is None or record.clock is None:
            continue
        away, back = ((moment - record.clock) / timedelta(seconds=1) for moment in (landing.time, end))
        times += [
            call.returned - max(call.invoked, away)
            for call in record.calls
            if call.invoked < back and call.returned > away and landing.victim in (call.replica, "postgres")
        ]
    return times


def run_series(ttl: float, counts: Mapping[str, int], seed: int) -> tuple[list[Clocked], Verdict]:
    """Run the faults at one TTL on one cluster and return the figures, and the verdict by which they count."""
    series = Series(f"FO{ttl:g}", counts)
    record, verdict = run_kind(series, seed, 0.0, RATE, ttl, lasting_workload)
    return clocked(record, series, ttl), verdict


def main() -> None:
    """Run, tell, and exit with 1 when a promise was broken, by a figure or otherwise."""
    arguments = _arguments()
    begun = time.monotonic()
    table: list[Clocked] = []
    verdicts = []
    production_runs = round(0.3 * arguments.runs) if arguments.production_runs is None else arguments.production_runs
    for ttl, runs in ((TTL, arguments.runs), (PRODUCTION_TTL, production_runs)):
        slow = (runs + 1) // 2 if ttl >= PRODUCTION_TTL else runs
        counts = {kind: slow if kind in LONG else runs for kind in arguments.kinds}
        if runs:
            rows, verdict = run_series(ttl, counts, arguments.seed)
            table += rows
            verdicts.append(verdict)
    print(f"\n{HEAD}")
    for row in table:
        print(row.line)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps([{**asdict(row), "is_kept": row.is_kept} for row in table], indent=2))
    violations = [violation for verdict in verdicts for violation in verdict.violations]
    missed = [verdict.void_reason for verdict in verdicts if verdict.void_reason]
    print(f"\n{len(violations)} violations, {time.monotonic() - begun:.0f} s; {RESULT}")
    for violation in violations[:SHOWN]:
        print(f"  {violation}")
    if violations or missed:
        print("; ".join(["The figures do not count: promises of another kind were broken", *missed]))
    sys.exit(bool(violations or missed) or not table or not all(row.is_kept for row in table))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure how long the service stands still after faults.")
    parser.add_argument("--runs", type=int, default=20, help=f"faults of each kind at a TTL of {TTL:g} s")
    parser.add_argument(
        "--production-runs",
        type=int,
        help=f"the same at {PRODUCTION_TTL:g} s, 3 for each 10 by default; half as many of those that last",
    )
    parser.add_argument("--kinds", type=_kinds, default=KINDS, help=f"comma-separated, of {', '.join(KINDS)}")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def _kinds(text: str) -> list[str]:
    named = text.split(",")
    if unknown := set(named) - set(KINDS):
        raise argparse.ArgumentTypeError(f"there is no kind {', '.join(sorted(unknown))}")
    return named


if __name__ == "__main__":
    main()
