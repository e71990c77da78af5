"""The calls of `Client` about operations in bulk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import TypeAlias, TypedDict, Unpack

import grpc

from flowkeep.arguments import entries, flag, text, whole
from flowkeep.channel import call_metadata
from flowkeep.connection import Connection
from flowkeep.durations import Span, to_duration
from flowkeep.errors import from_rpc_error
from flowkeep.requests import ExecutionFilters, RequestId, enum_number, execution_filter, request_text
from flowkeep.retry import Backoff, may_resume
from flowkeep.v1 import bulk_service_pb2 as pb
from flowkeep.v1.bulk_pb2 import Bulk, BulkAction, BulkResult

BulkState: TypeAlias = str | Bulk.State.ValueType
"""A state of an operation: `"RUNNING"` or `Bulk.STATE_RUNNING`."""

BulkOutcome: TypeAlias = str | BulkResult.Outcome.ValueType
"""What came of an execution: `"REFUSED"` or `BulkResult.OUTCOME_REFUSED`."""

ACTIONS = tuple(field.name for field in BulkAction.DESCRIPTOR.fields)
"""What can be done in bulk: cancel, pause, resume, terminate, retry."""

# The server gives a sign of life every 10 s. A stream silent for this long hangs in a proxy or a stopped process.
_SILENCE_SECONDS = 35.0


class BulkOptions(ExecutionFilters, total=False):
    """What an operation does, and on which executions: all filters that are given must hold.

    `hard` and `stop_deadline` belong to pause, `timeout` to retry. `match_all`: there need be no filter but states.
    """

    reason: str
    limit: int
    rate: int
    match_all: bool
    hard: bool
    stop_deadline: bool
    timeout: Span | None


class _Own(TypedDict, total=False):
    reason: str
    limit: int
    rate: int
    match_all: bool
    hard: bool
    stop_deadline: bool
    timeout: Span | None


class BulkCalls(Connection):
    """What can be done with many executions at once.

    What the caller does not see raises NotFoundError (BULK_NOT_FOUND).
    """

    async def start_bulk(self, action: str, *, request_id: RequestId = None, **options: Unpack[BulkOptions]) -> Bulk:
        """Start an operation, such as `cancel`, on all executions that meet the filters, and return it.

        It goes on by itself: see `watch_bulk`. Raises InvalidArgumentError, FailedPreconditionError (TOO_MANY_BULKS),
        AlreadyExistsError for a request id that was used with other content.
        """
        request = bulk_request(action, **options)
        request.request_id = request_text(request_id)
        return (await self._call(self._bulks.StartBulk, request)).bulk

    async def preview_bulk(self, action: str, **options: Unpack[BulkOptions]) -> pb.StartBulkResponse:
        """Return how many executions an operation would come to, and the first of them; nothing is done to them."""
        request = bulk_request(action, **options)
        request.validate_only = True
        return await self._call(self._bulks.StartBulk, request)

    async def get_bulk(self, bulk_id: str) -> Bulk:
        """Return an operation."""
        return (await self._call(self._bulks.GetBulk, pb.GetBulkRequest(bulk_id=text("bulk_id", bulk_id)))).bulk

    async def list_bulks(self, *, states: Iterable[BulkState] = (), page_size: int = 0) -> AsyncIterator[Bulk]:
        """Yield operations, newest first. Pages are fetched as needed."""
        names = dict(Bulk.State.items())
        chosen = [enum_number("states", names, "STATE_", each) for each in entries("states", states)]
        request = pb.ListBulksRequest(page_size=whole("page_size", page_size), states=chosen)
        while True:
            page = await self._call(self._bulks.ListBulks, request)
            for bulk in page.bulks:
                yield bulk
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return

    async def watch_bulk(self, bulk_id: str) -> AsyncGenerator[Bulk, None]:
        """Yield an operation as it is, and whenever it has come on, through any broken connection, until its end."""
        request, backoff = pb.WatchBulkRequest(bulk_id=text("bulk_id", bulk_id)), Backoff()
        last = Bulk(state=Bulk.STATE_RUNNING)
        while last.state == Bulk.STATE_RUNNING:
            call = self._bulks.WatchBulk(request, metadata=call_metadata(self._token))
            responses, pause = aiter(call), 0.0
            try:
                while not pause and last.state == Bulk.STATE_RUNNING:
                    try:
                        async with asyncio.timeout(_SILENCE_SECONDS):
                            response = await anext(responses)
                    except (TimeoutError, StopAsyncIteration):
                        pause = backoff.next()
                        continue
                    backoff.reset()
                    if response.bulk != last:
                        last = response.bulk
                        yield last
            except grpc.aio.AioRpcError as failure:
                error = from_rpc_error(failure)
                if not may_resume(error):
                    raise error from failure
                pause = backoff.after(error)
            finally:
                call.cancel()
            await asyncio.sleep(pause)

    async def stop_bulk(self, bulk_id: str) -> Bulk:
        """Let an operation do nothing more, and return it; what it has done stays done."""
        return (await self._call(self._bulks.StopBulk, pb.StopBulkRequest(bulk_id=text("bulk_id", bulk_id)))).bulk

    async def list_bulk_results(
        self, bulk_id: str, *, outcomes: Iterable[BulkOutcome] = (), page_size: int = 0
    ) -> AsyncIterator[BulkResult]:
        """Yield what came of each execution, in the order in which the operation came to them."""
        names = dict(BulkResult.Outcome.items())
        request = pb.ListBulkResultsRequest(
            bulk_id=text("bulk_id", bulk_id),
            page_size=whole("page_size", page_size),
            outcomes=[enum_number("outcomes", names, "OUTCOME_", each) for each in entries("outcomes", outcomes)],
        )
        while True:
            page = await self._call(self._bulks.ListBulkResults, request)
            for result in page.results:
                yield result
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return


def bulk_request(action: str, **options: Unpack[BulkOptions]) -> pb.StartBulkRequest:
    """Return the request that starts an operation.

    Raises as `execution_filter` does, ValueError for an action that does not exist, and TypeError for an option that
    belongs to another one.
    """
    if text("action", action) not in ACTIONS:
        raise ValueError(f"action must be one of {', '.join(ACTIONS)}, not {action!r}")
    filters: ExecutionFilters = {k: v for k, v in options.items() if k not in _Own.__annotations__}  # type: ignore[assignment]
    request = pb.StartBulkRequest(
        filter=execution_filter(**filters),
        reason=text("reason", options.get("reason", "")),
        limit=whole("limit", options.get("limit", 0)),
        rate=whole("rate", options.get("rate", 0)),
        match_all=flag("match_all", options.get("match_all", False)),
    )
    getattr(request.action, action).SetInParent()
    hard = flag("hard", options.get("hard", False))
    stop_deadline = flag("stop_deadline", options.get("stop_deadline", False))
    timeout = options.get("timeout")
    if (hard or stop_deadline) and action != "pause":
        raise TypeError(f"hard and stop_deadline belong to pause, not to {action}")
    if timeout is not None and action != "retry":
        raise TypeError(f"timeout belongs to retry, not to {action}")
    if action == "pause":
        request.action.pause.hard, request.action.pause.stop_deadline = hard, stop_deadline
    if timeout is not None:
        request.action.retry.timeout.CopyFrom(to_duration(timeout))
    return request
