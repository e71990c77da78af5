"""The columns of each kind of row that a batch writes: name, type, and where the value comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from persistence.model import EditedVariable, Ending, Event, Execution, Message, Step
from persistence.people import NewTask, TaskChange, TaskState
from persistence.postgres.commit.encoding import Column, RowKind
from persistence.postgres.commit.sharing import SharedPayload
from persistence.signals import Signal
from persistence.transition import NewExecution, Transition


def _counts(path: str) -> tuple[Column[Any], ...]:
    names = ("total", "completed", "failed", "skipped", "running", "cancelled")
    return tuple(Column(f"steps_{name}", "int", f"{path}.{name}") for name in names)


def ending_document(ending: Ending | None) -> dict[str, Any] | None:
    """Return the JSON object of an end that is decided."""
    return None if ending is None else {"state": ending.state, "failure": ending.failure}


def signals_document(signals: Sequence[Signal]) -> list[Any]:
    """Return the JSON array of signals that no step has taken."""
    found: list[Any] = msgspec.to_builtins(signals)
    return found


def edited_document(edited: Mapping[str, EditedVariable]) -> dict[str, Any]:
    """Return the JSON object of variables that somebody has set."""
    found: dict[str, Any] = msgspec.to_builtins(dict(edited))
    return found


EXECUTION = RowKind[Execution](
    Column("org_id", "text", "org"),
    Column("id", "uuid", "id"),
    Column("owner", "text", "owner"),
    Column("workflow_id", "uuid", "workflow_id"),
    Column("workflow_name", "text", "workflow_name"),
    Column("revision", "int", "revision"),
    Column("state", "text", "state"),
    Column("create_time", "timestamptz", "create_time"),
    Column("timeout", "float8", "timeout"),
    Column("priority", "int", "priority"),
    Column("tags", "text[]", "tags"),
    Column("labels", "jsonb", "labels or None"),
    Column("correlation_id", "text", "correlation_id"),
    Column("request_id", "text", "request_id"),
    Column("scheduled_time", "timestamptz", "scheduled_time"),
    Column("start_time", "timestamptz", "start_time"),
    Column("end_time", "timestamptz", "end_time"),
    Column("deadline_time", "timestamptz", "deadline_time"),
    Column("progress", "int", "progress"),
    *_counts("counts"),
    Column("last_seq", "int8", "last_seq"),
    Column("result", "jsonb"),
    Column("failure", "jsonb", "failure"),
    Column("ending", "jsonb"),
    Column("mail", "int8", "mail"),
    Column("incarnation", "uuid", "incarnation"),
    Column("epoch", "int8", "epoch"),
    Column("wake_time", "timestamptz", "wake_time"),
    Column("bytes", "int8", "bytes"),
    Column("run", "int", "run"),
    Column("lineage", "jsonb", "lineage"),
    Column("pause", "jsonb", "pause"),
    Column("breakpoints", "jsonb", "breakpoints"),
    Column("held_back", "bool", "held_back or None"),
    Column("signals", "jsonb"),
    Column("dry_run", "bool", "is_dry_run or None"),
)
"""A new execution, with the signals that it was sent with its creation, NULL for none."""

INPUT = RowKind[NewExecution](
    Column("org_id", "text", "execution.org"),
    Column("execution_id", "uuid", "execution.id"),
    Column("input", "jsonb", "input"),
    Column("vars", "jsonb", "vars or None"),
    Column("dry_run", "jsonb", "dry_run"),
)
"""The input of a new execution."""

REQUEST = RowKind[NewExecution](
    Column("org_id", "text", "execution.org"),
    Column("request_id", "text", "execution.request_id"),
    Column("method", "text", "method"),
    Column("execution_id", "uuid", "execution.id"),
    Column("content_hash", "bytea", "content_hash"),
    Column("create_time", "timestamptz", "execution.create_time"),
)
"""The request id of a new execution."""

CHANGE = RowKind[Transition](
    Column("org_id", "text", "org"),
    Column("id", "uuid", "execution_id"),
    Column("incarnation", "uuid", "incarnation"),
    Column("epoch", "int8", "epoch"),
    Column("base_seq", "int8"),
    Column("last_seq", "int8", "last_seq"),
    Column("state", "text", "state"),
    Column("mail_seen", "int8", "mail_seen"),
    Column("bound", "int8"),
    Column("released", "bool", lambda change: change.release or change.state.is_end),
    Column("survived", "bool"),
    *_counts("counts"),
    Column("progress", "int", "progress"),
    Column("start_time", "timestamptz", "start_time"),
    Column("end_time", "timestamptz", "end_time"),
    Column("deadline_time", "timestamptz", "deadline_time"),
    Column("wake_time", "timestamptz", "wake_time"),
    Column("result", "jsonb"),
    Column("awaits", "jsonb", lambda change: list(change.awaits) or None),
    Column("failure", "jsonb"),
    Column("ending", "jsonb"),
    Column("pause", "jsonb", "pause"),
    Column("breakpoints", "jsonb", "breakpoints"),
    Column("bytes", "int8", "bytes"),
    Column("usage", "jsonb", "usage"),
    Column("signals", "jsonb"),
    Column("edited_vars", "jsonb"),
)
"""What transitions of one execution make of its row: the last of them, what `last_seq` must be before, whether any of
them survived, how many binding messages there may be, NULL where none of them is bound, and the signals that no step
has taken and variables that somebody has set, NULL where they stay as they are."""

STEP = RowKind[Step](
    Column("org_id", "text"),
    Column("execution_id", "uuid"),
    Column("path", "text", "path"),
    Column("iteration", "int", "iteration"),
    Column("handler", "text", "handler"),
    Column("state", "text", "state"),
    Column("attempt", "int", "attempt"),
    Column("failures", "int", "failures or None"),
    Column("progress", "int", "progress"),
    Column("input", "jsonb"),
    Column("output", "jsonb"),
    Column("failure", "jsonb", "failure"),
    Column("failed_attempts", "jsonb", "failed_attempts or None"),
    Column("assigned", "jsonb"),
    Column("skip_reason", "text", "skip_reason or None"),
    Column("start_time", "timestamptz", "start_time"),
    Column("attempt_time", "timestamptz"),
    Column("end_time", "timestamptz", "end_time"),
    Column("wait", "jsonb"),
    Column("end_seq", "int8", "end_seq"),
    Column("worker", "text", "worker or None"),
    Column("position", "int", "position"),
    Column("items", "int[]"),
    Column("usage", "jsonb", "usage"),
    Column("fixed", "bool", "is_fixed or None"),
    Column("mocked", "bool", "is_mocked or None"),
    Column("shared", "jsonb"),
)
"""A step; its payloads are given as far as they are not shared. `shared` has true for an input that stays as it is."""

HISTORY = RowKind[Event](
    Column("execution_id", "uuid"),
    Column("seq", "int8", "seq"),
    Column("time", "timestamptz", "time"),
    Column("org_id", "text"),
    Column("layout", "text"),
    Column("body", "bytea"),
    Column("shared", "jsonb"),
)
"""The events that are written at once, by the last of them; their body is given without what is shared of it."""

MESSAGE = RowKind[Message](
    Column("org_id", "text"),
    Column("execution_id", "uuid"),
    Column("id", "uuid", "id"),
    Column("kind", "text", "kind"),
    Column("create_time", "timestamptz", "time"),
    Column("sender", "text", "sender"),
    Column("body", "jsonb", "body"),
)
"""A message to an execution."""

CONSUMED = RowKind[UUID](
    Column("org_id", "text"),
    Column("execution_id", "uuid"),
    Column("id", "uuid", lambda message_id: message_id),
)
"""A message that an execution has seen."""

TASK = RowKind[NewTask](
    Column("org_id", "text"),
    Column("execution_id", "uuid"),
    Column("id", "uuid", "id"),
    Column("path", "text", "path"),
    Column("iteration", "int", "iteration"),
    Column("workflow_name", "text", "workflow_name"),
    Column("owner", "text", "owner"),
    Column("state", "text", lambda task: TaskState.OPEN),
    Column("title", "text", "title"),
    Column("outcomes", "text[]", "outcomes"),
    Column("assignees", "text[]", "assignees"),
    Column("groups", "text[]", "groups"),
    Column("create_time", "timestamptz", "create_time"),
    Column("update_time", "timestamptz", "create_time"),
    Column("due_time", "timestamptz", "due_time"),
    Column("waited", "bool", "waited"),
    Column("escalated", "bool", lambda task: False),
    Column("version", "int", lambda task: 1),
    Column("description", "text", "description"),
    Column("form", "jsonb", "form"),
)
"""A task of people that was made."""

TASK_CHANGE = RowKind[TaskChange](
    Column("org_id", "text"),
    Column("id", "uuid", "id"),
    Column("state", "text", "state"),
    Column("time", "timestamptz", "time"),
    Column("ends", "bool", lambda change: change.state.is_end),
    Column("outcome", "text", "outcome or None"),
    Column("assignees", "text[]", "assignees"),
    Column("groups", "text[]", "groups"),
    Column("due_time", "timestamptz", "due_time"),
)
"""What becomes of a task of people that has not ended."""

SHARED = RowKind[SharedPayload](
    Column("org_id", "text", "org"),
    Column("execution_id", "uuid", "execution_id"),
    Column("digest", "text", "digest"),
    Column("document", "jsonb"),
    Column("message", "bytea", "message"),
)
"""A large payload of an execution; a document is given."""
