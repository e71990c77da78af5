"""Workers in three languages while workers and servers are killed: `python -m tests.faults.workers_run --quick`.

First it measures the way to a worker that is warm, while nothing else runs. Then it runs executions whose steps go from
language to language, kills a worker every 5 s and a server every 20 s, and starts each again. What is lost, unfinished,
recorded twice, or the result of an attempt that was over, makes it exit with 1.
"""

from __future__ import annotations

import os

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # as in chaos.py, before anything imports gRPC

import argparse
import asyncio
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

from tests.faults.chaos import SHOWN
from tests.faults.checks.aftermath import check_liveness, check_traces
from tests.faults.checks.answers import check_acknowledged, check_definite, check_request_ids
from tests.faults.checks.checker import Result, Verdict
from tests.faults.checks.failover import percentile
from tests.faults.checks.histories import check_ends, check_numbers, check_records, check_states
from tests.faults.checks.keeping import keep
from tests.faults.checks.violations import Check, Violation
from tests.faults.checks.workers import check_completed, check_results
from tests.faults.harness.crew import LANGUAGES, ROOM
from tests.faults.harness.records import Outcome
from tests.faults.harness.shifts import LEASE, LONGEST, QUICK, SILENCE, WORKFLOW, Shift, Size, run_shift

CHECKS: Sequence[Check] = (
    check_acknowledged,
    check_request_ids,
    check_definite,
    check_numbers,
    check_ends,
    check_states,
    check_records,
    check_results,
    check_completed,
    check_liveness,
    check_traces,
)


def judge(shift: Shift) -> Verdict:
    """Return what was broken. A run in which nobody was killed is void."""
    violations = [violation for check in CHECKS for violation in check(shift.record)]
    acked = {call.execution_id for call in shift.record.calls if call.outcome is Outcome.OK}
    if len(acked) < shift.asked:
        violations.append(Violation("EX7", "all", f"{len(acked)} of {shift.asked} executions were acknowledged"))
    killed = [
        sum(count for name, count in shift.kills.items() if name.startswith("server") is is_server)
        for is_server in (True, False)
    ]
    void = "" if all(killed) else "it was over before a worker and a server had been killed"
    return Verdict(Result.FAIL if violations else Result.VOID if void else Result.PASS, violations, void)


def told(shift: Shift) -> Iterator[str]:
    """Give what was measured and counted, line by line."""
    record = shift.record
    if missing := [language for language in LANGUAGES if language not in shift.languages]:
        yield f"{', '.join(missing)}: `make clients` could not build a worker, which is left out"
    for language, seconds in shift.ways.items():
        yield f"from the start of a step to a worker in {language}: {_milliseconds(seconds)}"
    yield f"executions over all languages, one alone: {_milliseconds(shift.relays)}"
    rows = [row for row in record.rows.values() if row.workflow == WORKFLOW]
    asked = {call.execution_id for call in record.calls if call.outcome is Outcome.OK}
    rows = [row for row in rows if row.execution_id in asked]
    begun = {(row.execution_id, event.path, event.attempt) for row in rows for event in row.events if event.attempt}
    again = sum(max(step.attempt - 1, 0) for row in rows for step in row.steps)
    called = sum(effect.execution_id in asked for effect in record.effects)
    yield (
        f"under faults: {len(rows)} executions, {len(begun)} attempts in {shift.seconds:.0f} s, which is "
        f"{len(begun) / shift.seconds:.0f} attempts/s of 0 to {LONGEST:g} s each, {ROOM} at a time at each worker"
    )
    yield f"killed: {', '.join(f'{name} {count} times' for name, count in shift.kills.items() if count)}"
    yield f"cut off and made again: {again} attempts; workers have begun {called}"
    yield f"servers are lost after {LEASE:g} s, workers after {SILENCE:g} s"


def _milliseconds(seconds: Sequence[float]) -> str:
    return f"p50 {1000 * percentile(seconds, 0.5):.1f} ms, p99 {1000 * percentile(seconds, 0.99):.1f} ms"


def main() -> None:
    """Run, tell, and exit with 1 when a promise was broken, with 3 when the run is void."""
    arguments = _arguments()
    size = QUICK if arguments.quick else Size()
    size = replace(size, attempts=arguments.attempts or size.attempts, servers=arguments.servers or size.servers)
    shift = asyncio.run(run_shift(size, arguments.seed))
    verdict = judge(shift)
    for line in told(shift):
        print(line)
    if verdict.void_reason:
        print(f"void: {verdict.void_reason}")
    for violation in verdict.violations[:SHOWN]:
        print(f"  {violation}")
    print(f"{verdict.result} seed {arguments.seed}: {len(verdict.violations)} violations {verdict.rules or ''}")
    if verdict.result is Result.FAIL:
        print(f"what is left is in {keep(shift.record, verdict)}")
    sys.exit({Result.PASS: 0, Result.FAIL: 1, Result.VOID: 3}[verdict.result])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run attempts on workers while workers and servers are killed.")
    parser.add_argument("--attempts", type=int, default=0, help="attempts, by default 5,000")
    parser.add_argument("--servers", type=int, default=0, help="server processes, by default 3")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="400 attempts on two servers, more often killed")
    return parser.parse_args()


if __name__ == "__main__":
    main()
