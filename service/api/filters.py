"""Filters and orders of lists, wire to domain."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from flowkeep.v1.execution_pb2 import Execution as ExecutionMessage
from flowkeep.v1.execution_pb2 import StepExecution
from flowkeep.v1.execution_service_pb2 import ExecutionFilter as ExecutionFilterMessage
from flowkeep.v1.execution_service_pb2 import ListExecutionsRequest, ListStepsRequest, TimeRange
from persistence.listing import ExecutionFilter, ExecutionOrder, StepFilter
from persistence.model import Execution, ExecutionState, StepState
from service.api.errors import invalid
from service.api.times import moment
from service.engine.ids import created_within

COUNTED_EXACTLY = 10_000

_ID_DIGITS = 32


def count_limit() -> int:
    """Return where counting stops: one more than is counted exactly says that there are more."""
    return COUNTED_EXACTLY + 1


def execution_filter(given: ExecutionFilterMessage) -> ExecutionFilter:
    """Return the filter that a request gives. Raises ValidationError for too long a prefix."""
    created_from, created_until = _range(given.create_time)
    ended_from, ended_until = _range(given.end_time)
    # What lies between ids is found by an index.
    ids = (*_ids(given.execution_id_prefix), *created_within(created_from, created_until))
    return ExecutionFilter(
        workflow=given.workflow,
        states=tuple(_state(state) for state in given.states),
        owner=given.owner,
        tags=tuple(given.tags),
        labels=dict(given.labels),
        correlation_id=given.correlation_id,
        created_from=created_from,
        created_until=created_until,
        ended_from=ended_from,
        ended_until=ended_until,
        lowest_id=max(filter(None, ids[::2]), default=None),
        highest_id=min(filter(None, ids[1::2]), default=None),
        source=UUID(given.source_execution_id) if given.source_execution_id else None,
        is_dry_run=given.dry_run if given.HasField("dry_run") else None,
    )


def step_filter(request: ListStepsRequest) -> StepFilter:
    """Return the filter of a request."""
    states = (StepExecution.State.Name(state).removeprefix("STATE_") for state in request.states)
    return StepFilter(frozenset(map(StepState, states)), request.handler)


def execution_order(request: ListExecutionsRequest) -> ExecutionOrder:
    """Return the order of a request."""
    if request.order == ListExecutionsRequest.ORDER_UNSPECIFIED:
        return ExecutionOrder.NEWEST
    return ExecutionOrder(ListExecutionsRequest.Order.Name(request.order).removeprefix("ORDER_"))


def sort_kind(order: ExecutionOrder) -> type[float] | type[datetime] | None:
    """Return of which kind the values are by which executions have their place in a list, None when it is by id."""
    return {ExecutionOrder.LAST_ENDED: datetime, ExecutionOrder.LONGEST: float}.get(order)


def sort_value(order: ExecutionOrder, execution: Execution) -> float | datetime | None:
    """Return the value by which an execution has its place in a list, None when it cannot be read."""
    if execution.unreadable:
        return None
    if order is ExecutionOrder.LAST_ENDED:
        return execution.end_time
    if order is ExecutionOrder.LONGEST and execution.end_time is not None:
        return (execution.end_time - (execution.start_time or execution.create_time)).total_seconds()
    return None


def _state(state: ExecutionMessage.State.ValueType) -> ExecutionState:
    return ExecutionState(ExecutionMessage.State.Name(state).removeprefix("STATE_"))


def _ids(prefix: str) -> tuple[UUID | None, UUID | None]:
    """Return the lowest and the highest id that begins with a prefix."""
    digits = prefix.replace("-", "")
    if len(digits) > _ID_DIGITS:
        raise invalid("execution_id_prefix", f"must have at most {_ID_DIGITS} hexadecimal digits")
    if not digits:
        return None, None
    return UUID(digits.ljust(_ID_DIGITS, "0")), UUID(digits.ljust(_ID_DIGITS, "f"))


def _range(times: TimeRange) -> tuple[datetime | None, datetime | None]:
    return (
        moment(times.start_time) if times.HasField("start_time") else None,
        moment(times.end_time) if times.HasField("end_time") else None,
    )
