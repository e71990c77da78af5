"""What is said of a step that was skipped, and of an attempt that was to end and did not end as it was told."""

from __future__ import annotations

from persistence.model import Step
from service.engine.failure import INTERRUPTED, NOT_MOCKED, OUTCOME_UNKNOWN, RESULT_DISCARDED, WORKER_LOST, Failure

CONDITION_IS_FALSE = "its condition is false"
"""Why a step was skipped; in its row, the condition stands behind it."""

_CUT_OFF = "was cut off: its server stopped, died or lost the execution"


def not_mocked(handler: str) -> Failure:
    """Return why a step of a dry run fails that has no mock."""
    return Failure(NOT_MOCKED, f"its handler {handler!r} may send something, and a dry run does not: give it a mock")


def still_running(step: Step) -> Failure:
    """Return what a cancelled step tells of an attempt that is waited for no longer."""
    return Failure(
        OUTCOME_UNKNOWN, f"attempt {step.attempt} was told to stop and has not ended: it may still take effect"
    )


def late_result(step: Step) -> Failure:
    """Return what a cancelled step tells of an attempt that was told to stop, and completed."""
    return Failure(
        RESULT_DISCARDED, f"attempt {step.attempt} was told to stop and completed all the same; its result is discarded"
    )


def cut_off(step: Step) -> Failure:
    """Return what a cancelled step tells of an attempt that another server had begun."""
    return Failure(OUTCOME_UNKNOWN, f"attempt {step.attempt} {_CUT_OFF}; it may have taken effect")


def unknown_outcome(step: Step) -> Failure:
    """Return why an AT_MOST_ONCE step fails of which another server had begun an attempt."""
    return Failure(
        OUTCOME_UNKNOWN,
        f"attempt {step.attempt} was cut off; the step is AT_MOST_ONCE and is not started again",
    )


def interrupted(step: Step) -> Failure:
    """Return what became of an attempt of another server when the next one begins."""
    return Failure(INTERRUPTED, f"attempt {step.attempt} {_CUT_OFF}", retryable=True)


def stopped_by_pause(step: Step) -> Failure:
    """Return what became of an attempt that a hard pause has stopped."""
    return Failure(INTERRUPTED, f"attempt {step.attempt} was told to stop by a pause", retryable=True)


def not_waited_for(step: Step) -> Failure:
    """Return what a cancelled step tells of an attempt that ran when its execution was terminated."""
    return Failure(
        OUTCOME_UNKNOWN, f"the execution was terminated while attempt {step.attempt} ran: it may still take effect"
    )


def lost(step: Step, reason: str) -> Failure:
    """Return what became of an attempt whose worker is lost."""
    return Failure(WORKER_LOST, f"attempt {step.attempt} was lost: {reason}", retryable=True)
