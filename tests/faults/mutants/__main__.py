"""`python -m tests.faults.mutants`: plants every bug of FAULTS and demands that its oracle turns red.

In the simulation, in checks on a real Postgres, and in real server processes under the fault that brings it out.
"""

from __future__ import annotations

import os

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # as in chaos.py, before anything imports gRPC

import argparse
import asyncio
import json
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults import run
from tests.faults.checks.checker import CHECKS
from tests.faults.checks.violations import Violation
from tests.faults.harness.cluster import SETTINGS
from tests.faults.harness.records import Record
from tests.faults.kinds import clock
from tests.faults.kinds.catalogue import KINDS
from tests.faults.kinds.kind import Kind
from tests.folders import ROOT
from tests.simulation.mutants import MUTANTS

PLANTED = Path(__file__).with_name("planted.py")
WITHIN = 500
"""Seeds of the simulation in which a bug has to show."""
RATE = 25.0
"""Executions per second: more of them are in flight when a fault hits."""
DURATION = 12.0

# What a bug left undone is not waited for: that alone would take most of the time.
run.WORK_PATIENCE, run.IDLE_PATIENCE = 5.0, 0.0


class Skewed(clock.Skewed):
    """K16 with clocks that are hardly wrong, so that what waits for the wrong time has an end."""

    RANGE = 4.0


@dataclass(frozen=True)
class Served:
    """A bug for real processes: the fault that brings it out, and the rules of which one must be seen broken."""

    bug: str
    kind: Callable[[], Kind]
    oracles: Sequence[str]
    duration: float = DURATION


SERVED: Mapping[str, Served] = {
    "M1": Served(
        "a write asks for no owner, epoch or version; nor does a lost lease stop it", KINDS["K2"], ("I9", "I10")
    ),
    "M2": Served("a rescue takes by id, with the epoch of an earlier look", KINDS["K1"], ("I6", "I7", "I9")),
    "M4": Served("Execute is acknowledged before the commit, which is not tried again", KINDS["K5"], ("I1",)),
    "M5": Served("a creation whose commit is unknown counts as failed and is made again", KINDS["K10"], ("I2", "I8")),
    "M6": Served("no poll, no look after the listener was away", KINDS["K8"], ("W11",), 20.0),
    # Not K5: what was done while the database was away is written in the end, unless somebody else has taken over.
    "M8": Served("events are given to watchers before the commit", KINDS["K9"], ("W10",)),
    "M9": Served("neither a refused write nor a lost lease stops who drives", KINDS["K2"], ("ST3", "ST10", "I8")),
    "M15": Served("timers go by the clock of the replica", Skewed, ("I14",)),
}


@dataclass(frozen=True)
class Checked:
    """A bug for a check on a real Postgres: the test that demands that the check turns red."""

    bug: str
    oracle: str
    test: str


_WORKERS = "tests/integration/test_workers_planted.py"

CHECKED: Mapping[str, Checked] = {
    "M3": Checked(
        "leases and claims go by now(), when the transaction began",
        "I9",
        "tests/faults/mutants/test_mutants.py::test_m3",
    ),
    "M7": Checked(
        "events are numbered by one sequence for all", "I3, W3", "tests/faults/mutants/test_mutants.py::test_m7"
    ),
    "M11": Checked("one event is skipped where a purge ended", "W8", "tests/integration/test_purge.py::test_m11"),
    "M20": Checked("the result of a superseded attempt is accepted", "ST4", f"{_WORKERS}::test_m20"),
    "M21": Checked("anybody may speak for the worker of an attempt", "ST4", f"{_WORKERS}::test_m21"),
    "M22": Checked("a worker that was silent for too long keeps what it runs", "ST4", f"{_WORKERS}::test_m22"),
    "M23": Checked("the capacity of workers is ignored", "ST9", f"{_WORKERS}::test_m23"),
    "M24": Checked("what a worker runs is forgotten when it drains", "ST1", f"{_WORKERS}::test_m24"),
    "M30": Checked(
        "a fork shares a payload with its original", "RE4", "tests/integration/test_fork_planted.py::test_m30"
    ),
    "M32": Checked(
        "a dry run calls a handler that sends", "DR1", "tests/integration/test_dry_runs_planted.py::test_m32"
    ),
    "M25": Checked("what workers run is lost when their server drains", "ST1", f"{_WORKERS}::test_m25"),
}


@dataclass(frozen=True)
class Finding:
    """Within how many seeds a bug was caught; None: it survived."""

    mutant: str
    bug: str
    where: str
    oracle: str
    seeds: int | None
    seen: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
        return self.mutant, self.bug, self.where, self.oracle, "SURVIVED" if self.seeds is None else str(self.seeds)


def main() -> None:
    """Plant what the arguments name, tell what was seen, and exit with 1 if a bug survived."""
    arguments = _arguments()
    begun = time.monotonic()
    findings = []
    for finding in _findings(arguments.mutant, arguments.where, arguments.seeds, arguments.seed):
        findings.append(finding)
        print(f"{finding.mutant} {finding.where}: {finding.cells[-1]} {finding.seen[:300]}", flush=True)
    findings.sort(key=lambda finding: (int(finding.mutant[1:]), finding.where))
    print(f"\n{table(findings)}\n")
    survived = sum(finding.seeds is None for finding in findings)
    print(f"{len(findings)} planted, {survived} survived, {time.monotonic() - begun:.0f} s")
    sys.exit(survived > 0)


def table(findings: Sequence[Finding]) -> str:
    """Return the findings under each other."""
    rows = [("mutant", "bug", "planted in", "oracle", "seeds"), *(finding.cells for finding in findings)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _findings(mutant: str, where: str, seeds: int, first: int) -> Iterator[Finding]:
    def named(mutants: Mapping[str, object], place: str) -> list[str]:
        return [name for name in mutants if mutant in ("", name) and where in ("", place)]

    yield from map(simulated, named(MUTANTS, "simulation"))
    yield from map(checked, named(CHECKED, "postgres"))
    yield from (served(name, seeds, first) for name in named(SERVED, "processes"))


def simulated(name: str) -> Finding:
    """Plant a bug in the simulation."""
    arguments = ("--mutants", f"--mutant={name}", f"--seeds={WITHIN}", "--workers=1")
    done = _python("-m", "tests.simulation", *arguments)
    found = re.search(r"caught within (\d+) seeds.*\n\s*(.*)", done.stdout)
    oracles = ", ".join(oracle.rstrip(":") for oracle in MUTANTS[name].oracles)
    seeds, seen = (int(found[1]), found[2]) if found else (None, done.stderr[-300:])
    return Finding(name, MUTANTS[name].bug, "simulation", oracles, seeds, seen)


def checked(name: str) -> Finding:
    """Plant a bug under a check on a real Postgres."""
    bug = CHECKED[name]
    file, _, test = bug.test.partition("::")
    done = _python("-m", "pytest", "-q", "-p", "no:cacheprovider", file, "-k", test)
    is_caught = done.returncode == 0 and re.search(r"^1 passed", done.stdout, re.MULTILINE) is not None
    return Finding(name, bug.bug, "Postgres", bug.oracle, 1 if is_caught else None, done.stdout.splitlines()[-1])


def served(name: str, seeds: int, first: int) -> Finding:
    """Plant a bug in three real processes and let faults hit them, seed after seed until it is caught."""
    bug = SERVED[name]
    where, oracles, last = f"processes, {bug.kind().name}", ", ".join(bug.oracles), ""
    for number in range(seeds):
        record = _planted_run(name, bug, first + number)
        violations = _judged(record)
        if not all(f"planted {name}" in log for log in record.logs.values()) or not record.logs:
            last = f"not planted: {record.void_reason}{record.crash[-300:]}"
        elif (seen := _caught(violations, bug.oracles)) is not None:
            return Finding(name, bug.bug, where, oracles, number + 1, f"seed {record.seed}: {seen}")
        else:
            last = f"{len(violations)} violations of other rules in seed {record.seed}"
    return Finding(name, bug.bug, where, oracles, None, last)


def _planted_run(name: str, bug: Served, seed: int) -> Record:
    kind = bug.kind()
    handlers = [*json.loads(SETTINGS["FLOWKEEP_HANDLERS"]), str(PLANTED)]
    kind.settings = {**kind.settings, "FLOWKEEP_HANDLERS": json.dumps(handlers), "CHAOS_MUTANT": name}
    try:
        return asyncio.run(run.run_chaos(kind, seed, bug.duration, RATE))
    except Exception:  # whatever it is, the other mutants go on
        return Record(kind.name, seed, crash=traceback.format_exc())


def _judged(record: Record) -> list[Violation]:
    """Return what was broken; a check that breaks by itself, over what a bug left, does not end the others."""
    found = []
    for check in CHECKS:
        try:
            found += list(check(record))
        except Exception as error:
            found.append(Violation("JUDGE", check.__name__, repr(error)))
    return found


def _caught(violations: Sequence[Violation], oracles: Sequence[str]) -> Violation | None:
    return next((violation for violation in violations if violation.rule in oracles), None)


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Plant bugs and demand that each is caught.")
    parser.add_argument("--mutant", default="", choices=["", *dict.fromkeys([*MUTANTS, *CHECKED, *SERVED])])
    parser.add_argument("--where", default="", choices=["", "simulation", "postgres", "processes"])
    parser.add_argument("--seeds", type=int, default=20, help="runs of real processes that a bug may survive")
    parser.add_argument("--seed", type=int, default=1, help="the first of them")
    return parser.parse_args()


if __name__ == "__main__":
    main()
