"""Following an execution through broken streams, without losing or repeating an event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress

import grpc

from flowkeep.errors import FlowkeepError, UnavailableError, from_rpc_error
from flowkeep.retry import Backoff, may_resume
from flowkeep.v1.event_pb2 import ExecutionEvent
from flowkeep.v1.execution_pb2 import Execution
from flowkeep.v1.execution_service_pb2 import EventBatch, WatchExecutionRequest, WatchExecutionResponse

WatchCall = grpc.aio.UnaryStreamCall[WatchExecutionRequest, WatchExecutionResponse]
OpenStream = Callable[[WatchExecutionRequest], WatchCall]
OnBreak = Callable[[FlowkeepError], None]

ENDED = frozenset(
    {Execution.STATE_COMPLETED, Execution.STATE_FAILED, Execution.STATE_CANCELLED, Execution.STATE_TIMED_OUT}
)
"""States that are ends."""

_MAX_GAPS = 5
_END_SECONDS = 1.0
# The server gives a sign of life every 10 s. A stream silent for this long hangs in a proxy or a stopped process.
_SILENCE_SECONDS = 35.0
_SILENCE: FlowkeepError = UnavailableError(grpc.StatusCode.UNAVAILABLE, "", "the server gave no sign of life")


async def follow(
    open_stream: OpenStream, request: WatchExecutionRequest, on_break: OnBreak | None = None
) -> AsyncGenerator[WatchExecutionResponse, None]:
    """Yield the responses of a watch until the execution has ended, opening the stream again whenever it breaks.

    Every event after `request.after_seq` (or after the snapshot, if one is asked for) comes exactly once and in order;
    a message that repeats events is shortened to what is new. A snapshot comes once; bookmarks and output as sent.
    `on_break` is called with the error of each stream that broke, before the next try.
    Raises FlowkeepError for what another try cannot mend, and DATA_LOSS when the server leaves out events each time it
    is asked.
    """
    cursor, backoff, gaps = _Cursor(request), Backoff(), 0
    error: FlowkeepError
    while True:
        try:
            async with aclosing(_read(open_stream(cursor.request()), cursor)) as responses:
                async for response in responses:
                    backoff.reset()
                    gaps = 0 if response.HasField("events") else gaps
                    yield response
            return
        except _SilenceError:
            error, pause = _SILENCE, backoff.next()
        except _GapError as gap:
            gaps += 1
            error, pause = FlowkeepError(grpc.StatusCode.DATA_LOSS, "", str(gap)), backoff.next()
            if gaps == _MAX_GAPS:
                raise error from None
        except grpc.aio.AioRpcError as failure:
            error = from_rpc_error(failure)
            if cursor.at_end:
                return
            if not may_resume(error):
                raise error from failure
            pause = backoff.after(error)
        if on_break is not None:
            on_break(error)
        await asyncio.sleep(pause)


async def events_of(
    responses: AsyncGenerator[WatchExecutionResponse, None],
) -> AsyncGenerator[ExecutionEvent, None]:
    """Yield the events of a watch one by one."""
    async with aclosing(responses):
        async for response in responses:
            for event in response.events.events:
                yield event


async def _read(call: WatchCall, cursor: _Cursor) -> AsyncGenerator[WatchExecutionResponse, None]:
    responses = aiter(call)
    try:
        while (response := await _next(responses)) is not None:
            fresh = cursor.admit(response)
            if fresh is not None:
                yield fresh
    finally:
        if cursor.at_end:
            await _let_end(responses)
        call.cancel()


async def _next(responses: AsyncIterator[WatchExecutionResponse]) -> WatchExecutionResponse | None:
    try:
        async with asyncio.timeout(_SILENCE_SECONDS):
            return await anext(responses, None)
    except TimeoutError:
        raise _SilenceError from None


async def _let_end(responses: AsyncIterator[WatchExecutionResponse]) -> None:
    # The OK is on its way; taking it keeps a watch that went well from showing as cancelled on the server.
    with suppress(TimeoutError, grpc.aio.AioRpcError):
        async with asyncio.timeout(_END_SECONDS):
            async for _ in responses:
                pass


class _SilenceError(Exception):
    """The stream is open and gives no sign of life."""


class _GapError(Exception):
    """The stream left out events."""


class _Cursor:
    """The position of a watch: what was delivered, and what to ask for next."""

    def __init__(self, request: WatchExecutionRequest) -> None:
        self._execution_id = request.execution_id
        self._seq = request.after_seq
        self._wants_snapshot = request.snapshot
        self.at_end = False

    def request(self) -> WatchExecutionRequest:
        """Return the request that goes on from here."""
        if self._wants_snapshot:
            return WatchExecutionRequest(execution_id=self._execution_id, snapshot=True)
        return WatchExecutionRequest(execution_id=self._execution_id, after_seq=self._seq)

    def admit(self, response: WatchExecutionResponse) -> WatchExecutionResponse | None:
        """Return what is new in a response, or None. Raises _GapError when something is missing before it."""
        if response.HasField("snapshot"):
            return self._admit_snapshot(response)
        if response.HasField("events"):
            return self._admit_events(response)
        if response.HasField("bookmark") and response.bookmark.seq > self._seq and not self._wants_snapshot:
            raise _GapError(f"the server passed over the events {self._seq + 1} to {response.bookmark.seq}")
        return response

    def _admit_snapshot(self, response: WatchExecutionResponse) -> WatchExecutionResponse | None:
        if not self._wants_snapshot:
            return None
        self._wants_snapshot = False
        self._seq = response.snapshot.seq
        self.at_end = response.snapshot.execution.state in ENDED
        return response

    def _admit_events(self, response: WatchExecutionResponse) -> WatchExecutionResponse | None:
        fresh = [event for event in response.events.events if event.seq > self._seq]
        if not fresh:
            return None
        for expected, event in enumerate(fresh, self._seq + 1):
            if event.seq != expected:
                raise _GapError(f"the server sent event {event.seq} where {expected} was due")
        self._seq = fresh[-1].seq
        self.at_end = fresh[-1].HasField("finished")
        if len(fresh) == len(response.events.events):
            return response
        return WatchExecutionResponse(events=EventBatch(events=fresh))
