"""Starting many executions at once: each request is repeated as long as it would be in a call of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol, TypeAlias

from flowkeep.errors import FlowkeepError, from_status
from flowkeep.retry import Backoff, Judge, may_repeat, nothing_done
from flowkeep.v1.execution_service_pb2 import (
    BatchExecuteRequest,
    BatchExecuteResponse,
    ExecuteRequest,
    ExecuteResponse,
)

Outcome: TypeAlias = ExecuteResponse | FlowkeepError
"""What became of one request of a batch: what Execute answers, or the error that it ends with."""


class Send(Protocol):
    """The call of a client."""

    async def __call__(
        self, request: BatchExecuteRequest, *, may_repeat: Judge, timeout: float
    ) -> BatchExecuteResponse:
        """Send a batch, again while the judge allows it, for so many seconds in all."""
        ...


def judge_of(request: ExecuteRequest) -> Judge:
    """Return what says whether the request may be sent again: with a request id nothing is started twice."""
    return may_repeat if request.request_id else nothing_done


async def execute_all(send: Send, requests: Sequence[ExecuteRequest], timeout: float) -> list[Outcome]:
    """Return what became of each request, in their order. Raises FlowkeepError for the first call as a whole."""
    clock, backoff = asyncio.get_running_loop().time, Backoff()
    deadline = clock() + timeout
    outcomes = await _sent(send, requests, range(len(requests)), timeout)
    while True:
        errors = {index: each for index, each in enumerate(outcomes) if isinstance(each, FlowkeepError)}
        again = [index for index, error in errors.items() if judge_of(requests[index])(error)]
        if not again:
            return outcomes
        longest = max((errors[index] for index in again), key=lambda error: error.retry_after or 0.0)
        pause = backoff.after(longest)
        if clock() + pause >= deadline:
            return outcomes
        await asyncio.sleep(pause)
        try:
            found = await _sent(send, requests, again, deadline - clock())
        except FlowkeepError:  # what is known of each stays what was told last
            return outcomes
        for index, outcome in zip(again, found, strict=True):
            outcomes[index] = outcome


async def _sent(send: Send, requests: Sequence[ExecuteRequest], places: Sequence[int], timeout: float) -> list[Outcome]:
    batch = [requests[place] for place in places]
    judge = may_repeat if all(request.request_id for request in batch) else nothing_done
    response = await send(BatchExecuteRequest(requests=batch), may_repeat=judge, timeout=timeout)
    return [
        _outcome(each, sent, place) for sent, (each, place) in enumerate(zip(response.results, places, strict=True))
    ]


def _outcome(result: BatchExecuteResponse.Result, sent: int, place: int) -> Outcome:
    if result.HasField("response"):
        return result.response
    error = from_status(result.error)
    # Its texts say where it stood in the batch that was sent, of which others may have been left out.
    return error if sent == place else error.moved(f"requests[{sent}]", f"requests[{place}]")
