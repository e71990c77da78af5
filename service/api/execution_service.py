"""The servicer of ExecutionService: reads the request, makes one call, builds the response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

from flowkeep import payload
from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_BASIC, EXECUTION_VIEW_FULL
from flowkeep.v1.execution_pb2 import Execution as ExecutionMessage
from flowkeep.v1.execution_service_pb2_grpc import ExecutionServiceServicer
from persistence.errors import NotFoundError
from persistence.model import Created, Event, Execution, ExecutionOrder, PageKey, Scope
from persistence.repository import ExecutionRepository
from service.api.answering import in_time
from service.api.claims import DEBUG, READ_WORKFLOWS
from service.api.errors import invalid
from service.api.executions import (
    LARGEST_STEPS,
    SMALL_STEPS,
    cancel_response,
    detail_message,
    execution_message,
    withhold_definition,
)
from service.api.filters import count_limit, execution_filter, execution_order, sort_kind, sort_value
from service.api.identity import current_identity
from service.api.page_tokens import PageTokens
from service.api.paging import fitting, page_limit
from service.api.times import seconds
from service.engine.content import Order
from service.engine.executions import Executions
from service.engine.watch import Bookmark, Output
from service.engine.workflows import Workflows

LARGEST_FULL_PAGE = 20

ANSWER_MARGIN = 0.25
"""Seconds before the caller's deadline at which a waiting call answers, so that the answer arrives."""

_EVENTS_TAG = pb.WatchExecutionResponse.DESCRIPTOR.fields_by_name["events"].number << 3 | 2


class ExecutionServicer(ExecutionServiceServicer):
    """Executions over gRPC."""

    def __init__(
        self,
        executions: Executions,
        workflows: Workflows,
        repository: ExecutionRepository,
        tokens: PageTokens,
        wait_limit: float,
    ) -> None:
        self._executions = executions
        self._workflows = workflows
        self._repository = repository
        self._tokens = tokens
        self._wait_limit = wait_limit

    async def Execute(self, request: pb.ExecuteRequest, context: Any) -> pb.ExecuteResponse:
        if request.wait:
            return await self._execute_and_wait(request, context)
        created = await self._created(request)
        return pb.ExecuteResponse(execution=execution_message(created.execution), created=created.created)

    async def _execute_and_wait(self, request: pb.ExecuteRequest, context: Any) -> pb.ExecuteResponse:
        """Bound all but the waiting, which takes as long as the caller gave."""
        created = await in_time(self._created(request))
        scope = Scope(created.execution.org, created.execution.owner)
        await self._executions.wait(scope, created.execution, self._time_to_wait(context))
        message = await in_time(self._full(scope, created.execution.id, SMALL_STEPS))
        return pb.ExecuteResponse(execution=message, created=created.created)

    async def _created(self, request: pb.ExecuteRequest) -> Created:
        caller = current_identity.get()
        return await self._executions.execute(caller.scope, caller.subject, _order(request))

    async def GetExecution(self, request: pb.GetExecutionRequest, context: Any) -> pb.GetExecutionResponse:
        scope, execution_id = current_identity.get().scope, UUID(request.execution_id)
        if request.view == EXECUTION_VIEW_BASIC:
            message = execution_message(await self._repository.get_execution(scope, execution_id))
        else:
            message = await self._full(scope, execution_id)
        return pb.GetExecutionResponse(execution=message)

    async def ListExecutions(self, request: pb.ListExecutionsRequest, context: Any) -> pb.ListExecutionsResponse:
        scope, where, order = current_identity.get().scope, execution_filter(request), execution_order(request)
        full = request.view == EXECUTION_VIEW_FULL
        limit = page_limit(request.page_size, LARGEST_FULL_PAGE) if full else page_limit(request.page_size)
        after = self._tokens.read(request.page_token, request, scope, sort_kind(order))
        found = await self._repository.list_executions(scope, where, order, after, limit + 1)
        shown = await self._messages(scope, found[:limit], full=full)
        response = pb.ListExecutionsResponse(executions=fitting(shown))
        cut = len(response.executions) < len(shown)
        if cut or len(found) > limit:
            last = _of(found, response.executions[-1]) if cut else found[limit - 1]
            response.next_page_token = self._tokens.make(request, scope, _position(order, last))
        if request.count_total:
            response.total_size = await self._repository.count_executions(scope, where, order, count_limit())
        return response

    async def Cancel(self, request: pb.CancelRequest, context: Any) -> pb.CancelResponse:
        caller = current_identity.get()
        detail = await self._executions.cancel(caller.scope, UUID(request.execution_id), caller.subject, request.reason)
        definition, _ = await self._workflows.shown(detail)
        return cancel_response(detail, definition)

    async def WatchExecution(  # type: ignore[override]  # stored bytes pass through unparsed
        self, request: pb.WatchExecutionRequest, context: Any
    ) -> AsyncIterator[pb.WatchExecutionResponse | bytes]:
        scope, execution_id, after_seq = current_identity.get().scope, UUID(request.execution_id), request.after_seq
        if request.snapshot:
            if after_seq:
                raise invalid("after_seq", "must be 0 with snapshot: events follow the snapshot's own seq")
            execution = await self._full(scope, execution_id, SMALL_STEPS)
            after_seq = execution.last_seq
            yield pb.WatchExecutionResponse(snapshot=pb.Snapshot(seq=after_seq, execution=execution))
        async for page in self._executions.watch(scope, execution_id, after_seq):
            match page:
                case Bookmark():
                    yield pb.WatchExecutionResponse(bookmark=pb.Bookmark(seq=page.seq))
                case Output():
                    output = pb.StepOutput(path=page.path, attempt=page.attempt, text=page.text)
                    yield pb.WatchExecutionResponse(output=output)
                case _:
                    yield _events_response(page)

    def _time_to_wait(self, context: Any) -> float:
        remaining: float | None = context.time_remaining()
        return (
            self._wait_limit
            if remaining is None
            else max(0.0, remaining - max(ANSWER_MARGIN, min(1.0, remaining / 20)))
        )

    async def _messages(self, scope: Scope, found: Sequence[Execution], *, full: bool) -> list[ExecutionMessage]:
        if not full:
            return [execution_message(each) for each in found]
        shown = await asyncio.gather(*(self._if_left(scope, each.id) for each in found))
        return [message for message in shown if message is not None]

    async def _if_left(self, scope: Scope, execution_id: UUID) -> ExecutionMessage | None:
        try:
            return await self._full(scope, execution_id)
        except NotFoundError:  # removed since the list was read
            return None

    async def _full(self, scope: Scope, execution_id: UUID, largest: int = LARGEST_STEPS) -> ExecutionMessage:
        detail = await self._repository.get_detail(scope, execution_id)
        definition, is_defined = await self._workflows.shown(detail)
        caller = current_identity.get()
        may_debug = caller.may(DEBUG)
        message = await detail_message(detail, definition, with_trace=may_debug, largest=largest, is_defined=is_defined)
        if not caller.may(READ_WORKFLOWS):
            withhold_definition(message)
        return message


def _order(request: pb.ExecuteRequest) -> Order:
    return Order(
        workflow=request.workflow,
        revision=request.revision,
        input=payload.from_struct(request.input),
        request_id=request.request_id,
        tags=tuple(request.tags),
        metadata=dict(request.metadata),
        priority=request.priority if request.HasField("priority") else None,
        correlation_id=request.correlation_id,
        start_delay=seconds(request.start_delay),
        timeout=seconds(request.timeout) if request.HasField("timeout") else None,
    )


def _of(found: Sequence[Execution], message: ExecutionMessage) -> Execution:
    return next(each for each in found if str(each.id) == message.execution_id)


def _position(order: ExecutionOrder, execution: Execution) -> PageKey:
    return PageKey(sort_value(order, execution), execution.id)


def _events_response(events: Sequence[Event]) -> bytes:
    """Return a serialized response around events as they are stored: their bytes are never made again."""
    parts: list[bytes] = []
    for event in events:
        parts += (bytes((_EVENTS_TAG,)), _varint(len(event.body)), event.body)
    return b"".join(parts)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
