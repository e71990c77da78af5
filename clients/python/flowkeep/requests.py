"""Requests of the service, built from plain Python."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TypeAlias, TypedDict, TypeVar, Unpack

from google.protobuf.timestamp_pb2 import Timestamp

from flowkeep.durations import Span, to_duration
from flowkeep.payload import to_struct
from flowkeep.v1.execution_pb2 import Execution, ExecutionView
from flowkeep.v1.execution_service_pb2 import ExecuteRequest, ListExecutionsRequest, TimeRange

E = TypeVar("E", bound=int)

State: TypeAlias = str | Execution.State.ValueType
"""A state of an execution: `"FAILED"` or `Execution.STATE_FAILED`."""

Order: TypeAlias = str | ListExecutionsRequest.Order.ValueType
"""An order of executions: `"NEWEST"`, `"LONGEST"`, `"LAST_ENDED"`, or the enum's value."""


class ExecuteOptions(TypedDict, total=False):
    """How a workflow is executed, beside its input; `execute_request` says what each option means."""

    revision: int
    request_id: str | None
    tags: Iterable[str]
    metadata: Mapping[str, str] | None
    priority: int | None
    correlation_id: str
    start_delay: Span | None
    timeout: Span | None
    wait: bool


class ExecutionFilters(TypedDict, total=False):
    """Which executions to list, all must hold, and how. Beginnings of ranges are inclusive, their ends exclusive."""

    workflow: str
    states: Iterable[State]
    triggered_by: str
    tags: Iterable[str]
    metadata: Mapping[str, str]
    correlation_id: str
    created_from: datetime | None
    created_before: datetime | None
    ended_from: datetime | None
    ended_before: datetime | None
    order: Order
    view: ExecutionView.ValueType
    execution_id_prefix: str


def execute_request(
    workflow: str,
    input: Mapping[str, Any] | None = None,
    *,
    revision: int = 0,
    request_id: str | None = None,
    tags: Iterable[str] = (),
    metadata: Mapping[str, str] | None = None,
    priority: int | None = None,
    correlation_id: str = "",
    start_delay: Span | None = None,
    timeout: Span | None = None,
    wait: bool = False,
) -> ExecuteRequest:
    """Return a request of Execute. It always has a request id, so that sending it again starts nothing twice.

    `revision` 0 is the latest. `tags`, `metadata` and `correlation_id` are to find the execution by. `priority` and
    `timeout` default to the workflow's; `timeout` counts from the start, which `start_delay` puts off. With `wait` the
    answer comes when the execution has ended, or shortly before the deadline of the call.

    Raises PayloadError for an input that payloads cannot carry, ValueError for a span that is none.
    """
    return ExecuteRequest(
        workflow=workflow,
        input=None if input is None else to_struct(input, "input"),
        revision=revision,
        request_id=request_id or str(uuid.uuid4()),
        tags=tags,
        metadata=metadata or {},
        priority=priority,
        correlation_id=correlation_id,
        start_delay=None if start_delay is None else to_duration(start_delay),
        timeout=None if timeout is None else to_duration(timeout),
        wait=wait,
    )


def list_request(
    *, page_size: int = 0, page_token: str = "", count_total: bool = False, **filters: Unpack[ExecutionFilters]
) -> ListExecutionsRequest:
    """Return a request of ListExecutions.

    Raises ValueError for a state or order that does not exist, and for a time without a time zone, and TypeError for
    a filter that does not exist.
    """
    if unknown := filters.keys() - ExecutionFilters.__annotations__.keys():
        raise TypeError(f"there is no filter {', '.join(sorted(unknown))}")
    return ListExecutionsRequest(
        page_size=page_size,
        page_token=page_token,
        count_total=count_total,
        workflow=filters.get("workflow", ""),
        states=[_number(dict(Execution.State.items()), "STATE_", state) for state in filters.get("states", ())],
        triggered_by=filters.get("triggered_by", ""),
        tags=filters.get("tags", ()),
        metadata=filters.get("metadata", {}),
        correlation_id=filters.get("correlation_id", ""),
        create_time=_time_range(filters.get("created_from"), filters.get("created_before")),
        end_time=_time_range(filters.get("ended_from"), filters.get("ended_before")),
        order=_number(dict(ListExecutionsRequest.Order.items()), "ORDER_", filters.get("order", "UNSPECIFIED")),
        view=filters.get("view", ExecutionView.EXECUTION_VIEW_UNSPECIFIED),
        execution_id_prefix=filters.get("execution_id_prefix", ""),
    )


def _number(enum: Mapping[str, E], prefix: str, value: str | E) -> E:
    if not isinstance(value, str):
        return value
    if prefix + value not in enum:
        names = [name.removeprefix(prefix) for name in enum]
        raise ValueError(f"{value!r} is none of {', '.join(names[1:])}")
    return enum[prefix + value]


def _time_range(start: datetime | None, end: datetime | None) -> TimeRange | None:
    if start is None and end is None:
        return None
    return TimeRange(start_time=_timestamp(start), end_time=_timestamp(end))


def _timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    if time.tzinfo is None:
        raise ValueError(f"{time.isoformat()} lacks a time zone")
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
