"""Requests of the service, built from plain Python."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, TypedDict, TypeVar, Unpack, cast

from google.protobuf.duration_pb2 import Duration

from flowkeep.arguments import entries, flag, text, text_map, texts, whole
from flowkeep.dry_runs import dry_run_message
from flowkeep.durations import Span, to_duration
from flowkeep.payload import Input, to_struct, to_value
from flowkeep.times import Time, to_timestamp
from flowkeep.v1.comparison_pb2 import CompareExecutionsRequest
from flowkeep.v1.dry_run_pb2 import DryRun
from flowkeep.v1.execution_pb2 import Breakpoint, Execution, ExecutionView, StepExecution, StepView
from flowkeep.v1.execution_service_pb2 import (
    CancelRequest,
    ExecuteRequest,
    ExecutionFilter,
    ForkExecutionRequest,
    ListExecutionsRequest,
    ListStepsRequest,
    RetryRequest,
    SignalExecutionRequest,
    SignalWithStartRequest,
    TimeRange,
)

E = TypeVar("E", bound=int)
Read = TypeVar("Read")

State: TypeAlias = str | Execution.State.ValueType
"""A state of an execution: `"FAILED"` or `Execution.STATE_FAILED`."""

StepState: TypeAlias = str | StepExecution.State.ValueType
"""A state of a step: `"FAILED"` or `StepExecution.STATE_FAILED`."""

Order: TypeAlias = str | ListExecutionsRequest.Order.ValueType
"""An order of executions: `"NEWEST"`, `"LONGEST"`, `"LAST_ENDED"`, or the enum's value."""

Breakpoints: TypeAlias = Mapping[str, str] | Iterable[str]
"""Paths of steps before which an execution is held, `*` for each; or these with conditions in CEL, empty for always."""

RequestId: TypeAlias = str | uuid.UUID | None
"""Id of a request that changes something; without one the client makes it."""


class StartOptions(TypedDict, total=False):
    """How an execution is started, beside its input; `execute_request` says what each option means."""

    revision: int
    tags: Iterable[str]
    labels: Mapping[str, str] | None
    priority: int | None
    start_delay: Span | None
    timeout: Span | None
    breakpoints: Breakpoints


class ExecuteOptions(StartOptions, total=False):
    """How a workflow is executed, beside its input; `execute_request` says what each option means."""

    request_id: RequestId
    correlation_id: str
    wait: bool
    view: ExecutionView.ValueType
    dry_run: DryRun | None


class ForkOptions(TypedDict, total=False):
    """What is otherwise in an execution that is made from another one; `fork_request` says what each option means."""

    step: str
    iteration: int
    input: Input | None
    vars: Input | None
    outputs: Mapping[str, Any] | None
    revision: int | None


class ExecutionFilters(TypedDict, total=False):
    """Which executions are meant; all must hold. Beginnings of ranges are inclusive, their ends exclusive.

    `dry_run` is None for dry runs and others.
    """

    workflow: str
    states: Iterable[State]
    owner: str
    tags: Iterable[str]
    labels: Mapping[str, str]
    correlation_id: str
    created_from: Time | None
    created_before: Time | None
    ended_from: Time | None
    ended_before: Time | None
    execution_id_prefix: str
    source_execution_id: str
    dry_run: bool | None


class ListOptions(ExecutionFilters, total=False):
    """Which executions to list, in which order, and how much of each: BASIC by default."""

    order: Order
    view: ExecutionView.ValueType


def compare_request(execution_id: str, other_execution_id: str) -> CompareExecutionsRequest:
    """Return the request that compares two executions."""
    return CompareExecutionsRequest(
        execution_id=text("execution_id", execution_id),
        other_execution_id=text("other_execution_id", other_execution_id),
    )


def execute_request(
    workflow: str | uuid.UUID,
    input: Input | None = None,
    *,
    revision: int = 0,
    request_id: RequestId = None,
    tags: Iterable[str] = (),
    labels: Mapping[str, str] | None = None,
    priority: int | None = None,
    correlation_id: str = "",
    start_delay: Span | None = None,
    timeout: Span | None = None,
    wait: bool = False,
    view: ExecutionView.ValueType = ExecutionView.EXECUTION_VIEW_UNSPECIFIED,
    breakpoints: Breakpoints = (),
    dry_run: DryRun | None = None,
) -> ExecuteRequest:
    """Return a request of Execute. It always has a request id, so that sending it again starts nothing twice.

    `revision` 0 is the latest. `tags`, `labels` and `correlation_id` are to find the execution by. `priority` and
    `timeout` default to the workflow's; `timeout` counts from the start, which `start_delay` puts off. With `wait` the
    answer comes when the execution has ended, or shortly before the deadline of the call. `view` is how much of it the
    answer has: BASIC by default, with `wait` together with the result. `breakpoints` are where it is held: paths of
    steps, or mappings of them to conditions. With a `dry_run`, as `flowkeep.dry_run` makes it, nothing is sent.

    Raises PayloadError for an input that payloads cannot carry, TypeError for an argument of another type, ValueError
    for a span that is none.
    """
    return ExecuteRequest(
        workflow=text("workflow", workflow),
        input=None if input is None else to_struct(input, "input"),
        revision=whole("revision", revision),
        request_id=request_text(request_id),
        tags=texts("tags", tags),
        labels=text_map("labels", {} if labels is None else labels),
        priority=None if priority is None else whole("priority", priority),
        correlation_id=text("correlation_id", correlation_id),
        start_delay=_span("start_delay", start_delay),
        timeout=_span("timeout", timeout),
        wait=flag("wait", wait),
        view=execution_view(view),
        breakpoints=breakpoint_messages(breakpoints),
        dry_run=dry_run_message(dry_run),
    )


def breakpoint_messages(breakpoints: Breakpoints) -> list[Breakpoint]:
    """Return breakpoints as they are sent."""
    if isinstance(breakpoints, Mapping):
        conditions = text_map("breakpoints", breakpoints)
    else:
        conditions = dict.fromkeys(texts("breakpoints", breakpoints), "")
    return [Breakpoint(path=path, condition=condition) for path, condition in conditions.items()]


def request_text(request_id: RequestId) -> str:
    """Return a request id as it is sent: the given one, or one that nobody else has."""
    return text("request_id", request_id or uuid.uuid4())


def cancel_request(execution_id: str, reason: str = "", request_id: RequestId = None) -> CancelRequest:
    """Return a request of Cancel."""
    return CancelRequest(
        execution_id=text("execution_id", execution_id),
        reason=text("reason", reason),
        request_id=request_text(request_id),
    )


def signal_request(
    execution_id: str,
    name: str,
    payload: Input | None = None,
    *,
    workflow: str = "",
    correlation_id: str = "",
    request_id: RequestId = None,
) -> SignalExecutionRequest:
    """Return a request of SignalExecution, to an execution by its id, or by its workflow and correlation id."""
    if bool(execution_id) == bool(workflow or correlation_id):
        raise ValueError("a signal is for an execution by its id, or by its workflow and correlation id")
    request = SignalExecutionRequest(
        name=text("name", name),
        payload=to_struct({} if payload is None else payload, "payload"),
        request_id=request_text(request_id),
    )
    if execution_id:
        request.execution_id = text("execution_id", execution_id)
    else:
        request.correlation.workflow = text("workflow", workflow)
        request.correlation.correlation_id = text("correlation_id", correlation_id)
    return request


def signal_with_start_request(
    workflow: str | uuid.UUID,
    correlation_id: str,
    name: str,
    payload: Input | None = None,
    *,
    input: Input | None = None,
    request_id: RequestId = None,
    **options: Unpack[StartOptions],
) -> SignalWithStartRequest:
    """Return a request of SignalWithStart; `options` and `input` are those of `execute_request`."""
    start = execute_request(workflow, input, correlation_id=correlation_id, **options)
    start.ClearField("request_id")  # the request as a whole has one
    return SignalWithStartRequest(
        start=start,
        name=text("name", name),
        payload=to_struct({} if payload is None else payload, "payload"),
        request_id=request_text(request_id),
    )


def retry_request(
    execution_id: str,
    reason: str = "",
    *,
    timeout: Span | None = None,
    edit: tuple[str, Mapping[str, Any]] | None = None,
    skip: tuple[str, Any] | None = None,
    request_id: RequestId = None,
) -> RetryRequest:
    """Return a request of Retry. Raises ValueError when both `edit` and `skip` are given."""
    if edit is not None and skip is not None:
        raise ValueError("edit and skip exclude each other")
    request = RetryRequest(
        execution_id=text("execution_id", execution_id),
        reason=text("reason", reason),
        request_id=request_text(request_id),
        timeout=_span("timeout", timeout),
    )
    if edit is not None:
        request.edit.path = text("edit", edit[0])
        request.edit.input.CopyFrom(to_struct(edit[1]))
    if skip is not None:
        request.skip.path = text("skip", skip[0])
        request.skip.output.CopyFrom(to_value(skip[1]))
    return request


def fork_request(
    execution_id: str,
    step: str = "",
    *,
    iteration: int = 0,
    input: Input | None = None,
    vars: Input | None = None,
    outputs: Mapping[str, Any] | None = None,
    revision: int | None = None,
    validate_only: bool = False,
    request_id: RequestId = None,
) -> ForkExecutionRequest:
    """Return a request of ForkExecution. What is None is as it was; `revision` 0 is the latest."""
    request = ForkExecutionRequest(
        execution_id=text("execution_id", execution_id),
        input=None if input is None else to_struct(input, "input"),
        validate_only=flag("validate_only", validate_only),
        request_id=request_text(request_id),
    )
    request.step_path, request.step_iteration = text("step", step), whole("iteration", iteration)
    if vars is not None:
        request.vars.CopyFrom(to_struct(vars, "vars"))
    for path, output in (outputs or {}).items():
        request.outputs.add(path=text("outputs", path), output=to_value(output))
    if revision is not None:
        request.revision = whole("revision", revision)
    return request


def list_request(
    *,
    order: Order = ListExecutionsRequest.ORDER_UNSPECIFIED,
    view: ExecutionView.ValueType = ExecutionView.EXECUTION_VIEW_UNSPECIFIED,
    page_size: int = 0,
    page_token: str = "",
    count_total: bool = False,
    **filters: Unpack[ExecutionFilters],
) -> ListExecutionsRequest:
    """Return a request of ListExecutions.

    Raises as `execution_filter` does, and ValueError for an order that does not exist.
    """
    return ListExecutionsRequest(
        filter=execution_filter(**filters),
        order=enum_number("order", dict(ListExecutionsRequest.Order.items()), "ORDER_", order),
        view=execution_view(view),
        page_size=whole("page_size", page_size),
        page_token=text("page_token", page_token),
        count_total=flag("count_total", count_total),
    )


def execution_filter(**filters: Unpack[ExecutionFilters]) -> ExecutionFilter:
    """Return a filter of executions.

    Raises TypeError for a filter that does not exist or is of another type, ValueError for a state that does not exist,
    and for a time that is none or lacks its time zone.
    """
    if unknown := filters.keys() - ExecutionFilters.__annotations__.keys():
        raise TypeError(f"there is no filter {', '.join(sorted(unknown))}")
    states, dry_run = entries("states", filters.get("states", ())), filters.get("dry_run")
    return ExecutionFilter(
        workflow=text("workflow", filters.get("workflow", "")),
        states=[enum_number("states", dict(Execution.State.items()), "STATE_", state) for state in states],
        owner=text("owner", filters.get("owner", "")),
        tags=texts("tags", filters.get("tags", ())),
        labels=text_map("labels", filters.get("labels", {})),
        correlation_id=text("correlation_id", filters.get("correlation_id", "")),
        create_time=_time_range("created", filters.get("created_from"), filters.get("created_before")),
        end_time=_time_range("ended", filters.get("ended_from"), filters.get("ended_before")),
        execution_id_prefix=text("execution_id_prefix", filters.get("execution_id_prefix", "")),
        source_execution_id=text("source_execution_id", filters.get("source_execution_id", "")),
        dry_run=None if dry_run is None else flag("dry_run", dry_run),
    )


def steps_request(
    execution_id: str,
    *,
    states: Iterable[StepState] = (),
    handler: str = "",
    view: StepView.ValueType = StepView.STEP_VIEW_UNSPECIFIED,
    page_size: int = 0,
    page_token: str = "",
) -> ListStepsRequest:
    """Return a request of ListSteps.

    Raises TypeError for an argument of another type, ValueError for a state that does not exist.
    """
    names = dict(StepExecution.State.items())
    return ListStepsRequest(
        execution_id=text("execution_id", execution_id),
        states=[enum_number("states", names, "STATE_", state) for state in entries("states", states)],
        handler=text("handler", handler),
        view=cast(StepView.ValueType, whole("view", view)),
        page_size=whole("page_size", page_size),
        page_token=text("page_token", page_token),
    )


def execution_view(view: Any) -> ExecutionView.ValueType:
    """Return a view of executions. Raises TypeError, and ValueError for a number that no view can have."""
    return cast(ExecutionView.ValueType, whole("view", view))


def enum_number(name: str, enum: Mapping[str, E], prefix: str, value: Any) -> E:
    """Return a value of an enum by its name without the prefix, or by its number. Raises TypeError, ValueError."""
    if not isinstance(value, str):
        return cast(E, whole(name, value))
    if prefix + value not in enum:
        names = [each.removeprefix(prefix) for each in enum]
        raise ValueError(f"{name}: {value!r} is none of {', '.join(names[1:])}")
    return enum[prefix + value]


def _time_range(name: str, start: Time | None, end: Time | None) -> TimeRange | None:
    if start is None and end is None:
        return None
    return TimeRange(
        start_time=_named(f"{name}_from", to_timestamp, start), end_time=_named(f"{name}_before", to_timestamp, end)
    )


def _span(name: str, span: Span | None) -> Duration | None:
    return _named(name, to_duration, span)


def _named(name: str, read: Callable[[Any], Read], value: Any) -> Read | None:
    """Return what is read of an argument, None of None, with its name in what is said against it."""
    try:
        return None if value is None else read(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} {error}") from None
