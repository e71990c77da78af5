"""Rows of the database as values, and JSON as the text of jsonb.

Nothing that a row holds makes a read fail: what cannot be read is left out, and the value says so. The driver cannot
read times outside of the years 1 to 9999; the columns here give the first moment of year 1 in their place.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
from sqlalchemy import DateTime

from persistence.breakpoints import Breakpoints, WorkflowBreakpoints
from persistence.dry_runs import DryRun
from persistence.errors import PersistenceError
from persistence.lineage import Lineage
from persistence.model import (
    FINAL_STATES,
    Edit,
    EditedVariable,
    Ending,
    Execution,
    ExecutionState,
    Json,
    Message,
    Pause,
    Step,
    StepCounts,
    StepState,
    Wait,
)
from persistence.pauses import WorkflowPause
from persistence.postgres.tables import metadata
from persistence.signals import Signal
from persistence.usage import Usage

EXECUTION_COLUMNS = (
    "org_id", "id", "owner", "workflow_id", "workflow_name", "revision", "state", "create_time", "timeout", "priority",
    "tags", "labels", "correlation_id", "request_id", "scheduled_time", "start_time", "end_time", "deadline_time",
    "progress", "steps_total", "steps_completed", "steps_failed", "steps_skipped", "steps_running", "steps_cancelled",
    "last_seq", "failure", "ending", "pause", "mail", "incarnation", "epoch", "wake_time", "deaths", "bytes", "run",
    "usage", "reopened_seq", "lineage", "breakpoints", "held_back", "dry_run",
)  # fmt: skip
MESSAGE_COLUMNS = ("id", "kind", "create_time", "sender", "body")
STEP_COLUMNS = (
    "path", "iteration", "handler", "state", "attempt", "input", "output", "failure", "failed_attempts", "assigned",
    "skip_reason", "start_time", "attempt_time", "end_time", "wait", "end_seq", "worker", "failures", "progress",
    "position", "items", "usage", "fixed", "mocked", "shared",
)  # fmt: skip

UNREADABLE_TIME = datetime.min.replace(tzinfo=UTC)
"""Stands for a time that Python has none for."""

LONGEST_TIMEOUT = 315_576_000_000.0
"""Seconds; what a message can carry."""

_TIMES = frozenset(c.name for t in metadata.tables.values() for c in t.columns if isinstance(c.type, DateTime))
_FIRST, LAST = "'0001-01-01 00:00:00+00'", "'9999-12-31 23:59:59.999999+00'"
IS_READABLE = f"BETWEEN {_FIRST} AND {LAST}"
"""What a time is that can be read, in SQL."""

HAS_BREAKPOINTS = "w.breakpoints_left > 0 AND w.breakpoints_until > clock_timestamp() AND w.breakpoints IS NOT NULL"
"""Whether the next executions of a workflow are held, in SQL."""

_LONG_NUMBER = re.compile(r"\d{17}")
_decode = msgspec.json.decode
_decode_labels = msgspec.json.Decoder(dict[str, str]).decode
_decode_wait = msgspec.json.Decoder(Wait).decode
_decode_usage = msgspec.json.Decoder(Usage).decode
_decode_pause = msgspec.json.Decoder(Pause).decode
_decode_lineage = msgspec.json.Decoder(Lineage).decode
_decode_breakpoints = msgspec.json.Decoder(Breakpoints).decode
_decode_workflow_pause = msgspec.json.Decoder(WorkflowPause).decode
_encode = msgspec.json.encode
# Structs, which only msgspec knows, are dicts to it.
_strict = json.JSONEncoder(allow_nan=False, default=msgspec.to_builtins)
_EXECUTION_STATES = {state.value: state for state in ExecutionState}
_STEP_STATES = {state.value: state for state in StepState}


class NotReadableError(Exception):
    """A value of a row means nothing here."""


def selected(columns: Iterable[str], table: str = "") -> str:
    """Return columns as a SELECT names them, so that the driver can read whatever they hold."""
    return ", ".join(f"{readable(f'{table}{name}')} AS {name}" if name in _TIMES else table + name for name in columns)


def readable(time: str) -> str:
    """Return a time, in SQL, such that the driver can read it."""
    return f"CASE WHEN {time} < {_FIRST} OR {time} > {LAST} THEN {_FIRST} ELSE {time} END"


def encoded(value: Json) -> bytes:
    """Return the JSON text of a value. Raises PersistenceError when it is not JSON."""
    try:
        text = _encode(value)
        if b"null" in text:
            _strict.encode(value)  # msgspec writes NaN and the infinities as null
        return text
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise PersistenceError(f"refused, not JSON: {error}") from error


def decoded(text: str | None) -> Json:
    """Return the value of a JSON text, None for SQL's NULL. Raises ValueError for a number beyond all floats."""
    if text is None:
        return None
    if _LONG_NUMBER.search(text):
        return json.loads(text, parse_int=_number, parse_float=_real)
    return _decode(text)


def _number(digits: str) -> int | float:
    # jsonb writes 1e300 with all its digits; JSON has no integers of that size, so it was a float.
    return int(digits) if len(digits.lstrip("-")) < 17 else _real(digits)


def _real(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError("a number is too large")
    return value


def document(text: str | None) -> dict[str, Any]:
    """Return a JSON object. Raises NotReadableError when the text is none."""
    value = decoded(text)
    if type(value) is not dict:
        raise NotReadableError("no object")
    return value


def execution(row: asyncpg.Record | Mapping[str, Any]) -> Execution:
    """Return the execution that a row of EXECUTION_COLUMNS holds. Raises some error when that cannot be read."""
    found = Execution(
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
        tags=texts(row["tags"] or ()),
        labels=_decode_labels(row["labels"] or "{}"),
        correlation_id=row["correlation_id"],
        request_id=row["request_id"],
        scheduled_time=row["scheduled_time"],
        start_time=row["start_time"],
        end_time=row["end_time"],
        deadline_time=row["deadline_time"],
        progress=row["progress"],
        last_seq=row["last_seq"],
        failure=None if row["failure"] is None else failure(row["failure"]),
        ending=None if row["ending"] is None else ending(row["ending"]),
        pause=None if row["pause"] is None else pause(row["pause"]),
        mail=row["mail"],
        incarnation=row["incarnation"],
        epoch=row["epoch"],
        wake_time=row["wake_time"],
        deaths=row["deaths"],
        bytes=row["bytes"],
        run=row["run"],
        usage=None if row["usage"] is None else usage(row["usage"]),
        reopened_seq=row["reopened_seq"] or 0,
        lineage=None if row["lineage"] is None else lineage(row["lineage"]),
        breakpoints=None if row["breakpoints"] is None else breakpoints(row["breakpoints"]),
        held_back=row["held_back"] is True,
        is_dry_run=row["dry_run"] is True,
    )
    if not 0.0 <= found.timeout <= LONGEST_TIMEOUT or UNREADABLE_TIME in (
        found.create_time,
        found.scheduled_time,
        found.start_time,
        found.end_time,
        found.deadline_time,
        found.wake_time,
    ):
        raise NotReadableError("a time")
    return found


def message(row: asyncpg.Record | Mapping[str, Any]) -> Message:
    """Return the message that a row of MESSAGE_COLUMNS holds. Raises some error when that cannot be read."""
    if row["create_time"] == UNREADABLE_TIME:
        raise NotReadableError("a time")
    return Message(row["id"], row["kind"], row["create_time"], row["sender"], document(row["body"]))


def step(row: asyncpg.Record | Mapping[str, Any]) -> Step:
    """Return the step that a row of STEP_COLUMNS holds. Raises some error when that cannot be read."""
    found = Step(
        path=row["path"],
        iteration=row["iteration"],
        handler=row["handler"],
        state=_STEP_STATES[row["state"]],
        attempt=row["attempt"],
        input=decoded(row["input"]),
        output=decoded(row["output"]),
        failure=None if row["failure"] is None else failure(row["failure"]),
        failed_attempts=() if row["failed_attempts"] is None else failed_attempts(row["failed_attempts"]),
        assigned=None if row["assigned"] is None else document(row["assigned"]),
        skip_reason=row["skip_reason"] or "",
        start_time=row["start_time"],
        attempt_time=row["attempt_time"] or (row["start_time"] if row["attempt"] else None),
        end_time=row["end_time"],
        wait=None if row["wait"] is None else wait(row["wait"]),
        end_seq=row["end_seq"],
        worker=row["worker"] or "",
        failures=row["failures"] or 0,
        progress=row["progress"],
        position=row["position"],
        items=numbers(row["items"]),
        usage=None if row["usage"] is None else usage(row["usage"]),
        is_fixed=row["fixed"] is True,
        is_mocked=row["mocked"] is True,
    )
    if UNREADABLE_TIME in (found.start_time, found.attempt_time, found.end_time):
        raise NotReadableError("a time")
    return found


def numbers(values: Sequence[Any] | None) -> tuple[int, ...]:
    """Return the numbers of an array; of one that holds anything else none, as nothing but an order is lost by it."""
    found = tuple(values or ())
    return found if all(type(value) is int for value in found) else ()


def texts(values: Sequence[Any]) -> tuple[str, ...]:
    """Return the texts of an array. Raises NotReadableError for NULL and arrays in it."""
    for value in values:
        if type(value) is not str:
            raise NotReadableError("no text")
    return tuple(values)


def failure(text: str | None) -> dict[str, Any] | None:
    """Return a stored failure. Raises NotReadableError when it is none."""
    return None if text is None else _failure(document(text))


def wait(text: str) -> Wait:
    """Return what a step waits for. Raises msgspec.DecodeError, OverflowError when it is nothing of ours."""
    found = _decode_wait(text)
    for moment in (found.start_time, found.wake_time):
        if moment is not None:
            moment.astimezone(UTC)  # a message holds the years 1 to 9999 of UTC
    return found


def usage(text: str) -> Usage:
    """Return what was used up. Raises msgspec.DecodeError when it is nothing of ours."""
    return _decode_usage(text)


def pause(text: str) -> Pause:
    """Return how an execution is paused. Raises msgspec.DecodeError, OverflowError when it is nothing of ours."""
    found = _decode_pause(text)
    found.time.astimezone(UTC)  # a message holds the years 1 to 9999 of UTC
    return found


def workflow_pause(text: str) -> WorkflowPause:
    """Return how a workflow is paused. Raises what `pause` raises."""
    found = _decode_workflow_pause(text)
    found.time.astimezone(UTC)
    return found


def workflow_breakpoints(row: asyncpg.Record | Mapping[str, Any]) -> WorkflowBreakpoints:
    """Return where the next executions of a workflow are held, which has that. Raises some error when it is none."""
    found = decoded(row["breakpoints"])
    until = row["breakpoints_until"]
    if until == UNREADABLE_TIME:
        raise NotReadableError("a time")
    return msgspec.convert({**found, "left": row["breakpoints_left"], "until": until}, WorkflowBreakpoints)


def lineage(text: str) -> Lineage:
    """Return where an execution comes from. Raises msgspec.DecodeError when it is nothing of ours."""
    return _decode_lineage(text)


def breakpoints(text: str) -> Breakpoints:
    """Return where an execution is held. Raises msgspec.DecodeError when it is nothing of ours."""
    return _decode_breakpoints(text)


def signals(text: str | None) -> tuple[Signal, ...]:
    """Return the signals that no step has taken. Raises some error when they are none."""
    return () if text is None else msgspec.convert(decoded(text), tuple[Signal, ...])


def edited(text: str | None) -> dict[str, EditedVariable]:
    """Return the variables that somebody has set. Raises some error when they are none."""
    return {} if text is None else msgspec.convert(decoded(text), dict[str, EditedVariable])


def edit(text: str | None) -> Edit | None:
    """Return what a step has instead of what its definition says. Raises msgspec.ValidationError when it is none."""
    return None if text is None else msgspec.convert(decoded(text), Edit)


def dry_run(text: str | None) -> DryRun | None:
    """Return the mocks of a dry run, None for none. Raises msgspec.ValidationError when it is nothing of ours."""
    return None if text is None else msgspec.convert(decoded(text), DryRun)


def ending(text: str) -> Ending:
    """Return the end that is decided. Raises NotReadableError when it is none."""
    value = document(text)
    state = _EXECUTION_STATES.get(str(value.get("state")))
    if state not in FINAL_STATES:
        raise NotReadableError("no end")
    return Ending(state, _failure(value.get("failure")))


def failed_attempts(text: str | None) -> tuple[dict[str, Any], ...]:
    """Return the stored attempts that failed. Raises NotReadableError when they are none."""
    if text is None:
        return ()
    attempts = decoded(text)
    if type(attempts) is not list:
        raise NotReadableError("no list")
    for attempt in attempts:
        if type(attempt) is not dict or type(attempt.get("attempt", 0)) is not int:
            raise NotReadableError("no attempt")
        _failure(attempt.get("failure", _NO_FAILURE))
        for moment in (attempt.get("start_time"), attempt.get("end_time")):
            if moment is not None and datetime.fromisoformat(moment).tzinfo is None:
                raise NotReadableError("no time zone")
    return tuple(attempts)


_FAILURE_FIELDS = {
    "code": str, "message": str, "details": dict, "step_path": str, "step_iteration": int, "retryable": bool,
    "stack_trace": str,
}  # fmt: skip
_NO_FAILURE: dict[str, Any] = {"code": ""}


def _failure(value: Any) -> dict[str, Any]:
    if type(value) is not dict or "code" not in value:
        raise NotReadableError("no failure")
    if any(type(each) is not _FAILURE_FIELDS.get(name, type(each)) for name, each in value.items()):
        raise NotReadableError("no failure")
    if not 0 <= value.get("step_iteration", 0) < 1 << 31:
        raise NotReadableError("no iteration")
    return value


def canonical_id(reference: str) -> UUID | None:
    """Return the id that a reference to a workflow is; None for a name."""
    try:
        found = UUID(reference)
    except ValueError:
        return None
    return found if str(found) == reference else None
