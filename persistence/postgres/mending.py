"""Rows that do not mean what they should: read as far as they can be, and told of."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import asyncpg
from msgspec.structs import replace

from persistence.model import Execution, ExecutionState, Message, Step, StepCounts, StepState
from persistence.postgres import records

_log = logging.getLogger(__name__)

NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""Where a time has to be."""

_TOLD_KEPT = 10_000


def _time(value: datetime | None) -> bool:
    return value != records.UNREADABLE_TIME


def _optional(read: Callable[[Any], Any]) -> Callable[[Any], bool]:
    return lambda value: value is None or read(value) is not None


# What is checked in each column, and what stands in the place of what cannot be read.
_TIMES = (_time, None)
_EXECUTION: Mapping[str, tuple[Callable[[Any], bool], Any]] = {
    "create_time": (_time, NO_TIME),
    **dict.fromkeys(("scheduled_time", "start_time", "deadline_time", "end_time", "wake_time"), _TIMES),
    "timeout": (lambda seconds: 0.0 <= seconds <= records.LONGEST_TIMEOUT, 0.0),
    "tags": (lambda tags: records.texts(tags or ()) is not None, ()),
    "labels": (lambda text: all(type(each) is str for each in records.document(text or "{}").values()), "{}"),
    "failure": (_optional(records.failure), None),
    "ending": (_optional(records.ending), None),
    "pause": (_optional(records.pause), None),
    "breakpoints": (_optional(records.breakpoints), None),
    "usage": (_optional(records.usage), None),
    "lineage": (_optional(records.lineage), None),
}
_MESSAGE: Mapping[str, tuple[Callable[[Any], bool], Any]] = {
    "create_time": (_time, NO_TIME),
    "body": (lambda text: records.document(text) is not None, "{}"),
}
_STEP: Mapping[str, tuple[Callable[[Any], bool], Any]] = {
    **dict.fromkeys(("start_time", "attempt_time", "end_time"), _TIMES),
    "wait": (_optional(records.wait), None),
    "input": (_optional(lambda text: records.decoded(text) or ()), None),
    "output": (_optional(lambda text: records.decoded(text) or ()), None),
    "failure": (_optional(records.failure), None),
    "failed_attempts": (_optional(records.failed_attempts), None),
    "assigned": (_optional(records.document), None),
    "usage": (_optional(records.usage), None),
}


def execution(row: asyncpg.Record | Mapping[str, Any]) -> Execution:
    """Return the execution that a row holds, as far as it can be read."""
    try:
        return records.execution(row)
    except Exception:
        return _mended_execution(row)


def nothing_of(execution_id: UUID, org: str = "", incarnation: UUID | None = None, epoch: int = 1) -> Execution:
    """Return an execution whose row is there, and of which not even the driver can make anything."""
    tell(execution_id, ["executions"])
    return Execution(
        id=execution_id,
        org=org,
        owner="",
        workflow_id=UUID(int=0),
        workflow_name="",
        revision=1,
        state=ExecutionState.RUNNING,
        create_time=NO_TIME,
        timeout=0.0,
        counts=StepCounts(),
        incarnation=incarnation,
        epoch=epoch,
        unreadable=("executions", "create_time"),
    )


def _mended_execution(row: asyncpg.Record | Mapping[str, Any]) -> Execution:
    values, unreadable = _mended(row, _EXECUTION)
    if not _is_one(ExecutionState, values["state"]):
        unreadable.append("state")
        values["state"] = ExecutionState.RUNNING if row["end_time"] is None else ExecutionState.FAILED
    tell(row["id"], unreadable)
    return replace(records.execution(values), unreadable=tuple(unreadable))


def message(row: asyncpg.Record | Mapping[str, Any]) -> Message:
    """Return the message that a row holds; without time or body where they cannot be read: what is asked for stands."""
    try:
        return records.message(row)
    except Exception:
        values, _ = _mended(row, _MESSAGE)
        return records.message(values)


def step(row: Mapping[str, Any], unreadable: Mapping[UUID, list[str]]) -> Step:
    """Return the step that a row holds, as far as it can be read; adds what cannot be to that of its execution."""
    try:
        return records.step(row)
    except Exception:
        return _mended_step(row, unreadable[row["execution_id"]])


def _mended_step(row: Mapping[str, Any], unreadable: list[str]) -> Step:
    values, columns = _mended(row, _STEP)
    if not _is_one(StepState, values["state"]):
        columns.append("state")
        values["state"] = StepState.RUNNING if row["end_time"] is None else StepState.FAILED
    unreadable += (f"steps.{row['path']}.{column}" for column in columns)
    return records.step(values)


def _mended(row: Any, checks: Mapping[str, tuple[Callable[[Any], bool], Any]]) -> tuple[dict[str, Any], list[str]]:
    values, unreadable = dict(row), list[str]()
    for column, (check, substitute) in checks.items():
        try:
            is_readable = check(values[column])
        except Exception:
            is_readable = False
        if not is_readable:
            unreadable.append(column)
            values[column] = substitute
    return values, unreadable


def _is_one(states: type[StrEnum], name: str) -> bool:
    return any(state.value == name for state in states)


class _Told(OrderedDict[UUID, None]):
    """What was told of: once per process, as far as it remembers."""

    def is_new(self, id: UUID) -> bool:
        if id in self:
            return False
        self[id] = None
        if len(self) > _TOLD_KEPT:
            self.popitem(last=False)
        return True


_told = _Told()


def tell(id: UUID, unreadable: list[str], kind: str = "execution") -> None:
    """Write into the log what of an execution or a workflow cannot be read; each once."""
    if unreadable and _told.is_new(id):
        _log.error("%s %s cannot be read: %s", kind, id, ", ".join(unreadable))
