"""Failures of work, domain to wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowkeep import payload
from flowkeep.v1.execution_pb2 import Failure as FailureMessage
from service.engine.failure import Failure


def failure_message(failure: Failure, *, with_trace: bool = False) -> FailureMessage:
    """Return the message of a failure; its stack trace only `with_trace`."""
    return FailureMessage(
        code=failure.code,
        message=failure.message,
        details=payload.to_struct(failure.details) if failure.details else None,
        step_path=failure.step_path,
        retryable=failure.retryable,
        stack_trace=failure.stack_trace if with_trace else "",
    )


def stored_failure(stored: Mapping[str, Any] | None, *, with_trace: bool) -> FailureMessage | None:
    """Return the message of a failure as it is stored."""
    return failure_message(Failure.from_json(stored), with_trace=with_trace) if stored else None
