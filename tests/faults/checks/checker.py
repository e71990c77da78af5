"""The judge of a chaos run: a function of what was recorded, and of nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.faults.checks.aftermath import check_answers, check_course, check_liveness, check_traces, check_usage
from tests.faults.checks.answers import (
    check_acknowledged,
    check_cancels,
    check_definite,
    check_reads,
    check_request_ids,
)
from tests.faults.checks.caps import check_caps
from tests.faults.checks.control import (
    check_edits,
    check_forks,
    check_operations,
    check_paused,
    check_retries,
    check_signals,
    check_variables,
)
from tests.faults.checks.delays import check_delays
from tests.faults.checks.effects import check_at_most_once, check_calls, check_tokens
from tests.faults.checks.histories import check_ends, check_numbers, check_records, check_states, check_timers
from tests.faults.checks.owners import check_epochs, check_kept, check_writers
from tests.faults.checks.signal_starts import check_signal_starts
from tests.faults.checks.starts import check_cancelled, check_fences, check_losers
from tests.faults.checks.streams import check_streams
from tests.faults.checks.violations import Check, Violation
from tests.faults.checks.workers import check_replays, check_results
from tests.faults.harness.records import Record

CHECKS: Sequence[Check] = (
    check_course,
    check_acknowledged,
    check_request_ids,
    check_definite,
    check_reads,
    check_cancels,
    check_paused,
    check_signals,
    check_signal_starts,
    check_retries,
    check_forks,
    check_edits,
    check_variables,
    check_operations,
    check_numbers,
    check_ends,
    check_states,
    check_records,
    check_timers,
    check_tokens,
    check_at_most_once,
    check_calls,
    check_replays,
    check_results,
    check_epochs,
    check_writers,
    check_kept,
    check_losers,
    check_fences,
    check_cancelled,
    check_caps,
    check_delays,
    check_streams,
    check_liveness,
    check_answers,
    check_traces,
    check_usage,
)


class Result(StrEnum):
    """How a run is judged. VOID: it showed nothing, because the fault or the traffic missed."""

    PASS = "PASS"
    FAIL = "FAIL"
    VOID = "VOID"


@dataclass(frozen=True)
class Verdict:
    """The judgement and its reasons."""

    result: Result
    violations: Sequence[Violation]
    void_reason: str = ""

    @property
    def rules(self) -> dict[str, int]:
        """How often each rule was broken."""
        return dict(Counter(violation.rule for violation in self.violations))


def judge(record: Record) -> Verdict:
    """Return the verdict; a violation is one also in a run that is otherwise void."""
    violations = [violation for check in CHECKS for violation in check(record)]
    reason = _void_reason(record)
    result = Result.FAIL if violations else Result.VOID if reason else Result.PASS
    return Verdict(result, violations, reason)


def _void_reason(record: Record) -> str:
    if record.void_reason:
        return record.void_reason
    if record.traffic_share < 0.5:
        return f"traffic before the fault was {record.traffic_share:.0%} of its target"
    if not any(landing.in_flight for landing in record.landings):
        return f"none of {len(record.landings)} faults hit an execution in flight"
    return ""
