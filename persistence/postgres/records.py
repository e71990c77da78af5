"""Rows of the database as values, and JSON as the text of jsonb."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import asyncpg
import msgspec

from persistence.errors import PersistenceError
from persistence.model import CancelRequest, Execution, ExecutionState, Json, Step, StepCounts, StepState

EXECUTION_COLUMNS = (
    "org_id, id, owner, workflow_id, workflow_name, revision, state, create_time, timeout, priority, tags, metadata,"
    " correlation_id, request_id, scheduled_time, start_time, end_time, deadline_time, progress, steps_total,"
    " steps_completed, steps_failed, steps_skipped, steps_running, steps_cancelled, last_seq, failure, cancel_time,"
    " cancel_by, cancel_reason, incarnation, epoch, wake_time, deaths"
)
STEP_COLUMNS = (
    "path, handler, state, attempt, input, output, failure, failed_attempts, assigned, skip_reason, start_time,"
    " attempt_time, end_time, wake_time, end_seq, worker, failures, progress"
)

_LONG_NUMBER = re.compile(r"\d{17}")
_decode = msgspec.json.decode
_encode = msgspec.json.encode
_strict = json.JSONEncoder(allow_nan=False)
_EXECUTION_STATES = {state.value: state for state in ExecutionState}
_STEP_STATES = {state.value: state for state in StepState}


def encoded(value: Json) -> bytes:
    """Return the JSON text of a value. Raises PersistenceError when it is not JSON."""
    try:
        text = _encode(value)
        if b"null" in text:
            _strict.encode(value)  # msgspec writes NaN and the infinities as null
        return text
    except (TypeError, ValueError, RecursionError) as error:
        raise PersistenceError(f"refused, not JSON: {error}") from error


def decoded(text: str | None) -> Json:
    """Return the value of a JSON text, None for SQL's NULL."""
    if text is None:
        return None
    if _LONG_NUMBER.search(text):
        return json.loads(text, parse_int=_number)
    return _decode(text)


def _number(digits: str) -> int | float:
    # jsonb writes 1e300 with all its digits; JSON has no integers of that size, so it was a float.
    return int(digits) if len(digits.lstrip("-")) < 17 else float(digits)


def execution(row: asyncpg.Record | Mapping[str, Any]) -> Execution:
    """Return the execution that a row of EXECUTION_COLUMNS holds."""
    cancel_time = row["cancel_time"]
    return Execution(
        id=row["id"],
        org=row["org_id"],
        owner=row["owner"],
        workflow_id=row["workflow_id"],
        workflow_name=row["workflow_name"],
        revision=row["revision"],
        state=_EXECUTION_STATES[row["state"]],
        create_time=row["create_time"],
        timeout=row["timeout"],
        counts=StepCounts(
            total=row["steps_total"],
            completed=row["steps_completed"],
            failed=row["steps_failed"],
            skipped=row["steps_skipped"],
            running=row["steps_running"],
            cancelled=row["steps_cancelled"],
        ),
        priority=row["priority"],
        tags=tuple(row["tags"]),
        metadata=_decode(row["metadata"]),
        correlation_id=row["correlation_id"],
        request_id=row["request_id"],
        scheduled_time=row["scheduled_time"],
        start_time=row["start_time"],
        end_time=row["end_time"],
        deadline_time=row["deadline_time"],
        progress=row["progress"],
        last_seq=row["last_seq"],
        failure=decoded(row["failure"]),
        cancel=None
        if cancel_time is None
        else CancelRequest(time=cancel_time, by=row["cancel_by"], reason=row["cancel_reason"]),
        incarnation=row["incarnation"],
        epoch=row["epoch"],
        wake_time=row["wake_time"],
        deaths=row["deaths"],
    )


def step(row: asyncpg.Record) -> Step:
    """Return the step that a row of STEP_COLUMNS holds."""
    return Step(
        path=row["path"],
        handler=row["handler"],
        state=_STEP_STATES[row["state"]],
        attempt=row["attempt"],
        input=decoded(row["input"]),
        output=decoded(row["output"]),
        failure=decoded(row["failure"]),
        failed_attempts=tuple(decoded(row["failed_attempts"]) or ()),
        assigned=decoded(row["assigned"]),
        skip_reason=row["skip_reason"],
        start_time=row["start_time"],
        attempt_time=row["attempt_time"],
        end_time=row["end_time"],
        wake_time=row["wake_time"],
        end_seq=row["end_seq"],
        worker=row["worker"],
        failures=row["failures"],
        progress=row["progress"],
    )
