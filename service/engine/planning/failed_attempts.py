"""The attempts of a step that failed, as they are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import takewhile
from typing import Any

from msgspec.structs import replace

from persistence.model import Step
from service.engine import payload
from service.engine.clock import later
from service.engine.definition import StepSpec
from service.engine.failure import WORKER_LOST, Failure

MAX_FAILED_ATTEMPTS_KEPT = 20

MAX_FAILED_ATTEMPTS_BYTES = 64 << 10
"""They are written anew with each attempt."""


def with_failed_attempt(step: Step, failure: Failure, time: datetime) -> Step:
    """Return the step with its newest attempt, which ended at `time`, among those that failed."""
    attempt = {
        "attempt": step.attempt,
        "start_time": step.attempt_time.isoformat() if step.attempt_time else None,
        "end_time": time.isoformat(),
        "failure": failure.to_json(),
        "worker": step.worker,
    }
    return replace(step, failed_attempts=_kept((*step.failed_attempts, attempt)[-MAX_FAILED_ATTEMPTS_KEPT:]))


def lost_in_a_row(step: Step) -> int:
    """Return how many attempts were lost with their workers, of the newest ones that failed."""
    codes = (attempt.get("failure", {}).get("code") for attempt in reversed(step.failed_attempts))
    return sum(1 for _ in takewhile(lambda code: code == WORKER_LOST, codes))


def may_retry(spec: StepSpec, step: Step, failure: Failure, retry_time: datetime) -> bool:
    """Return whether the next attempt of a step may follow at a time on one that failed so."""
    if not failure.retryable or failure.code in spec.retry.non_retryable_codes:
        return False
    if step.failures >= spec.retry.max_attempts:
        return False
    if spec.total_timeout is None or step.start_time is None:
        return True
    return retry_time < later(step.start_time, spec.total_timeout)


def _kept(attempts: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Return attempts as they are kept: once they are large, the older ones without details and stack traces."""
    kept, room = list[Mapping[str, Any]](), MAX_FAILED_ATTEMPTS_BYTES
    for attempt in reversed(attempts):
        room -= payload.size(attempt)
        kept.append(attempt if room >= 0 or not kept else {**attempt, "failure": _bare(attempt.get("failure", {}))})
    return tuple(reversed(kept))


def _bare(failure: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in failure.items() if name not in ("details", "stack_trace")}
