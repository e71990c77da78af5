"""Values as the rows that a batch writes: JSON arrays, which cost this process little and Postgres takes apart.

An array of a million small values is dearer to encode for unnest than all of Python's other work for a transition.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from persistence.errors import PersistenceError
from persistence.model import Ending, Event, Execution, NewExecution, Step, StepCounts, Transition, Wait
from persistence.postgres.commit.sharing import Payloads
from persistence.postgres.records import encoded

# Columns in the order of the rows below, with their types.
EXECUTION: Mapping[str, str] = {
    "org_id": "text",
    "id": "uuid",
    "owner": "text",
    "workflow_id": "uuid",
    "workflow_name": "text",
    "revision": "int",
    "state": "text",
    "create_time": "timestamptz",
    "timeout": "float8",
    "priority": "int",
    "tags": "text[]",
    "labels": "jsonb",
    "correlation_id": "text",
    "request_id": "text",
    "scheduled_time": "timestamptz",
    "start_time": "timestamptz",
    "end_time": "timestamptz",
    "deadline_time": "timestamptz",
    "progress": "int",
    "steps_total": "int",
    "steps_completed": "int",
    "steps_failed": "int",
    "steps_skipped": "int",
    "steps_running": "int",
    "steps_cancelled": "int",
    "last_seq": "int8",
    "failure": "jsonb",
    "ending": "jsonb",
    "cancel_time": "timestamptz",
    "cancel_by": "text",
    "cancel_reason": "text",
    "incarnation": "uuid",
    "epoch": "int8",
    "wake_time": "timestamptz",
    "bytes": "int8",
}
PAYLOAD: Mapping[str, str] = {"org_id": "text", "execution_id": "uuid", "input": "jsonb", "result": "jsonb"}
REQUEST: Mapping[str, str] = {
    "org_id": "text",
    "request_id": "text",
    "execution_id": "uuid",
    "content_hash": "bytea",
    "create_time": "timestamptz",
}
STEP: Mapping[str, str] = {
    "org_id": "text",
    "execution_id": "uuid",
    "path": "text",
    "handler": "text",
    "state": "text",
    "attempt": "int",
    "failures": "int",
    "progress": "int",
    "input": "jsonb",
    "output": "jsonb",
    "failure": "jsonb",
    "failed_attempts": "jsonb",
    "assigned": "jsonb",
    "skip_reason": "text",
    "start_time": "timestamptz",
    "attempt_time": "timestamptz",
    "end_time": "timestamptz",
    "wait": "jsonb",
    "end_seq": "int8",
    "worker": "text",
    "position": "int",
    "shared": "jsonb",
}
EVENT: Mapping[str, str] = {
    "org_id": "text",
    "execution_id": "uuid",
    "seq": "int8",
    "transition_seq": "int8",
    "kind": "text",
    "time": "timestamptz",
    "body": "bytea",
    "shared": "jsonb",
}
SHARED: Mapping[str, str] = {
    "org_id": "text",
    "execution_id": "uuid",
    "digest": "text",
    "document": "jsonb",
    "message": "bytea",
}
CHANGE: Mapping[str, str] = {
    "org_id": "text",
    "id": "uuid",
    "incarnation": "uuid",
    "epoch": "int8",
    "base_seq": "int8",
    "last_seq": "int8",
    "state": "text",
    "cancel_seen": "bool",
    "ends_otherwise": "bool",
    "released": "bool",
    "survived": "bool",
    "steps_total": "int",
    "steps_completed": "int",
    "steps_failed": "int",
    "steps_skipped": "int",
    "steps_running": "int",
    "steps_cancelled": "int",
    "progress": "int",
    "start_time": "timestamptz",
    "end_time": "timestamptz",
    "deadline_time": "timestamptz",
    "wake_time": "timestamptz",
    "failure": "jsonb",
    "ending": "jsonb",
    "bytes": "int8",
}

_encode = msgspec.json.encode
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def select(columns: Mapping[str, str]) -> str:
    """Return a SELECT of the rows that the parameter $1 holds."""
    fields = (f"{_field(index, kind)} AS {name}" for index, (name, kind) in enumerate(columns.items()))
    return f"SELECT {', '.join(fields)} FROM jsonb_array_elements($1::jsonb) AS r"  # noqa: S608 - our own columns


def joined(rows: Iterable[bytes]) -> str:
    """Return rows as the parameter of a statement."""
    return (b"[" + b",".join(rows) + b"]").decode()


def request_row(new: NewExecution) -> bytes:
    """The row of a request id."""
    execution = new.execution
    return _row(execution.org, execution.request_id, execution.id, new.content_hash, _time(execution.create_time))


def payload_row(new: NewExecution) -> bytes:
    """The row of input and result."""
    return _row(new.execution.org, new.execution.id, _json(new.input), _json(new.result))


def result_row(transition: Transition) -> bytes | None:
    """The change of the row of input and result, None without a result."""
    if transition.result is None or not transition.state.is_end:
        return None
    return _row(transition.org, transition.execution_id, None, _json(transition.result))


def execution_row(execution: Execution) -> bytes:
    """The row of a new execution."""
    cancel = execution.cancel
    return _row(
        execution.org,
        execution.id,
        execution.owner,
        execution.workflow_id,
        execution.workflow_name,
        execution.revision,
        execution.state,
        _time(execution.create_time),
        execution.timeout,
        execution.priority,
        execution.tags,
        execution.labels,
        execution.correlation_id,
        execution.request_id,
        _time(execution.scheduled_time),
        _time(execution.start_time),
        _time(execution.end_time),
        _time(execution.deadline_time),
        execution.progress,
        *_counts(execution.counts),
        execution.last_seq,
        _json(execution.failure),
        _json(ending_document(execution.ending)),
        _time(cancel.time if cancel else None),
        cancel and cancel.by,
        cancel and cancel.reason,
        execution.incarnation,
        execution.epoch,
        _time(execution.wake_time),
        execution.bytes,
    )


def change_row(transition: Transition, base_seq: int, failure: msgspec.Raw | None, ending: msgspec.Raw | None) -> bytes:
    """The change of the row of an execution."""
    return _row(
        transition.org,
        transition.execution_id,
        transition.incarnation,
        transition.epoch,
        base_seq,
        transition.last_seq,
        transition.state,
        transition.cancel_seen,
        transition.state.is_end and transition.state != "CANCELLED",
        transition.release or transition.state.is_end,
        transition.survived,
        *_counts(transition.counts),
        transition.progress,
        _time(transition.start_time),
        _time(transition.end_time),
        _time(transition.deadline_time),
        _time(transition.wake_time),
        failure,
        ending,
        transition.bytes,
    )


def step_row(org: str, execution_id: UUID, step: Step, payloads: Payloads) -> bytes:
    """The row of a step; what is large of it goes to `payloads`."""
    shared: dict[str, str] = {}
    given = payloads.kept(step.input, "input", shared)
    output, assigned = payloads.kept(step.output, "output", shared), payloads.kept(step.assigned, "assigned", shared)
    return _row(
        org,
        execution_id,
        step.path,
        step.handler,
        step.state,
        step.attempt,
        step.failures,
        step.progress,
        given,
        output,
        _json(step.failure),
        _json(step.failed_attempts or None),
        assigned,
        step.skip_reason,
        _time(step.start_time),
        _time(step.attempt_time),
        _time(step.end_time),
        _wait(step.wait),
        step.end_seq,
        step.worker,
        step.position,
        shared or None,
    )


def event_rows(org: str, execution_id: UUID, base_seq: int, events: Sequence[Event], payloads: Payloads) -> list[bytes]:
    """The rows of events; what is large of them goes to `payloads`.

    Raises PersistenceError unless they follow `base_seq` and end with a whole transition.
    """
    last_seq = base_seq + len(events)
    rows = []
    for seq, event in enumerate(events, start=base_seq + 1):
        if event.seq != seq or not seq <= event.transition_seq <= last_seq:
            raise PersistenceError("refused: events are numbered without gaps and end with a whole transition")
        body, shared = payloads.body(event)
        rows.append(_row(org, execution_id, seq, event.transition_seq, event.kind, _time(event.time), body, shared))
    return rows


def payload_rows(payloads: Payloads) -> dict[tuple[UUID, str], bytes]:
    """The rows of large payloads, by execution and digest."""
    return {key: _row(*columns) for key, columns in payloads.items()}


def check_times(transition: Transition) -> None:
    """Raises PersistenceError when a time cannot be kept; before anything is written, as `checked`."""
    for moment in (transition.start_time, transition.end_time, transition.deadline_time, transition.wake_time):
        _time(moment)


def ending_document(ending: Ending | None) -> dict[str, Any] | None:
    """The JSON object of an end that is decided."""
    return None if ending is None else {"state": ending.state, "failure": ending.failure}


def checked(value: Any) -> msgspec.Raw | None:
    """The encoded value; what is wrong with it shows before anything is written."""
    return None if value is None else msgspec.Raw(_checked(encoded(value)))


def _row(*values: Any) -> bytes:
    try:
        return _checked(_encode(values))
    except (TypeError, ValueError, RecursionError) as error:
        raise PersistenceError(f"refused: {error}") from error


def _checked(text: bytes) -> bytes:
    if b"\\u0000" in text and _NUL.search(text):
        raise PersistenceError("refused: a string holds the character NUL")
    return text


def _json(value: Any) -> msgspec.Raw | None:
    return None if value is None else msgspec.Raw(encoded(value))


def _time(moment: datetime | None) -> datetime | None:
    if moment is None or moment.tzinfo is UTC:
        return moment
    try:
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except OverflowError:
        raise PersistenceError("refused: a time lies outside of the years 1 to 9999") from None
    raise PersistenceError("refused: a time has no time zone")


def _wait(wait: Wait | None) -> Wait | None:
    if wait is not None:
        _time(wait.start_time)
        _time(wait.wake_time)
    return wait


def _counts(counts: StepCounts) -> tuple[int, int, int, int, int, int]:
    return counts.total, counts.completed, counts.failed, counts.skipped, counts.running, counts.cancelled


def _field(index: int, kind: str) -> str:
    if kind == "jsonb":
        return f"nullif(r->{index}, 'null')"
    if kind == "text":
        return f"r->>{index}"
    if kind == "bytea":
        return f"decode(r->>{index}, 'base64')"
    if kind == "text[]":
        return f"CASE WHEN r->{index} = '[]' THEN '{{}}' ELSE ARRAY(SELECT jsonb_array_elements_text(r->{index})) END"
    return f"(r->>{index})::{kind}"
