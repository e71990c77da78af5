"""Failures of work, domain to wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flowkeep import payload
from flowkeep.v1.execution_pb2 import Failure as FailureMessage
from service.engine.failure import Failure


def failure_message(failure: Failure) -> FailureMessage:
    """Return the message of a failure, without its stack trace."""
    return FailureMessage(
        code=failure.code,
        message=failure.message,
        details=payload.to_struct(failure.details) if failure.details else None,
        step_path=failure.step_path,
        step_iteration=failure.step_iteration,
        retryable=failure.retryable,
    )


def stored_failure(stored: Mapping[str, Any] | None, *, with_trace: bool) -> FailureMessage | None:
    """Return the message of a failure as it is stored; its stack trace only `with_trace`, else whether there is one."""
    if not stored:
        return None
    failure = Failure.from_json(stored)
    try:
        message = failure_message(failure)
    except (ValueError, TypeError):  # written by hand: the rest is shown
        message = failure_message(replace(failure, details={}))
    message.stack_trace = failure.stack_trace if with_trace else ""
    message.stack_trace_withheld = bool(failure.stack_trace) and not with_trace
    return message
