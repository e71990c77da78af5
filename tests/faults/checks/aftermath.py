"""Whether the service is well when the fault is over: I19, I20."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta

from tests.faults.checks.attempts import still
from tests.faults.checks.violations import FINAL, Violation
from tests.faults.harness.records import Call, Outcome, Record, Usage

_BAD_SIGNS = re.compile(
    r"Task was destroyed|never awaited|CRITICAL|was never retrieved|assertion|raised in core|^Traceback", re.IGNORECASE
)
_VERDICTS = frozenset({"execution quarantined"})
"""Errors in the log that are no mistakes of the service."""
_OF_KIND = {"K4": frozenset({"the event loop is blocked", "execution released, because its step blocks the server"})}
"""Those that a kind of fault calls for."""
VERSION_BEFORE = "version_before"
"""Folder of the code that an upgrade replaces, in which nothing can be mended any more."""
_SIGNS_SHOWN = 5
# A pool fills up and a thread pool too, but neither grows with the number of executions, of which there are hundreds.
_MORE_TASKS, _MORE_DESCRIPTORS = 10, 32


def check_liveness(record: Record) -> Iterator[Violation]:
    """I19: everything ended in time after the last heal, and each replica answers."""
    unfinished = [row for row in record.rows.values() if row.state not in FINAL]
    for row in unfinished:
        yield Violation("I19", row.execution_id, f"is still {row.state} at event {row.last_seq}")
    if not record.all_ended and not unfinished:
        yield Violation("I19", "all", "they ended, but too late after the last heal")
    last: dict[str, list[Call]] = defaultdict(list)
    for call in record.calls:
        if call.is_final:
            last[call.replica].append(call)
    for replica, calls in last.items():
        for call in calls[-5:]:
            if call.outcome is not Outcome.OK:
                yield Violation("I19", replica, f"{call.method} ended with {call.code} {call.reason} after the heal")


def check_course(record: Record) -> Iterator[Violation]:
    """The run came to its end: every replica that was to start has started, and so on."""
    if record.crash:
        yield Violation("RUN", record.kind, record.crash)


def check_answers(record: Record) -> Iterator[Violation]:
    """CONTRACT 2.5: no call hangs beyond its deadline and a second, in which the harness itself did not stand still."""
    for call in record.calls:
        if _seconds(record, call) > call.deadline + 1.0:
            text = f"{call.method} took {call.returned - call.invoked:.1f} s, its deadline was {call.deadline:g} s"
            yield Violation("HANG", call.replica, text)


def overgrown(fresh: Usage, idle: Usage) -> list[str]:
    """Return what a replica that has nothing to do uses much more of than it did when it had started."""
    left = []
    if (more := sum(idle.tasks.values()) - sum(fresh.tasks.values())) > _MORE_TASKS:
        kinds = {name: count for name, count in idle.tasks.items() if count > fresh.tasks.get(name, 0)}
        left.append(f"has {more} tasks more than after its start: {kinds}")
    if (more := idle.descriptors - fresh.descriptors) > _MORE_DESCRIPTORS:
        left.append(f"has {more} descriptors more than after its start")
    return left


def _seconds(record: Record, call: Call) -> float:
    took = call.returned - call.invoked
    if record.clock is None:
        return took
    begin, end = (record.clock + timedelta(seconds=moment) for moment in (call.invoked, call.returned))
    return took - still(record.stalls, begin, end).total_seconds()


def check_usage(record: Record) -> Iterator[Violation]:
    """I20: tasks and descriptors are back to what they were when there is nothing left to do."""
    for replica, fresh in record.fresh.items():
        if replica not in record.idle:
            yield Violation("I20", replica, "did not answer when there was nothing left to do")
            continue
        for text in overgrown(fresh, record.idle[replica]):
            yield Violation("I20", replica, text)


def check_traces(record: Record) -> Iterator[Violation]:
    """I20: nothing is left in Postgres when all replicas have stopped, and their logs have no bad signs."""
    for leak in record.leaks:
        yield Violation("I20", "postgres", leak)
    for replica, code in record.exit_codes.items():
        if code != 0:
            yield Violation("I20", replica, f"ended with exit code {code} when it was stopped")
    for replica, log in {**record.logs, **record.worker_logs}.items():
        verdicts = _VERDICTS | _OF_KIND.get(record.kind, frozenset())
        lines = [line for line in log.splitlines() if _is_bad(line, verdicts)]
        for line in lines[:_SIGNS_SHOWN]:
            yield Violation("I20", replica, f"{len(lines)} bad lines in its log, such as {line[:400]}")


def _is_bad(line: str, verdicts: frozenset[str]) -> bool:
    if f"/{VERSION_BEFORE}/" in line:
        return False
    if _BAD_SIGNS.search(line):
        return True
    try:
        entry = json.loads(line)
        return entry["level"] in ("error", "critical") and entry["event"] not in verdicts
    except (ValueError, KeyError, TypeError):
        return False
