"""How many calls are served at a time."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from flowkeep.v1.error_pb2 import ErrorReason
from service.api.claims import Identity
from service.api.errors import Refusal, RefusedError
from service.api.receiving import this_task


class Admission:
    """The places of calls. gRPC has such a limit too, but tells callers neither why nor when to come back."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._served = 0

    def take(self, identity: Identity) -> None:
        """Give the current call a place until its status has gone out. Raises RefusedError, before it did anything."""
        if self._served >= self._most:
            raise _too_many(self._most)
        self._served += 1
        this_task().add_done_callback(self._give_back)

    def _give_back(self, task: asyncio.Task[Any]) -> None:
        self._served -= 1


def _too_many(most: int) -> RefusedError:
    text = f"this server serves {most} calls, as many as it may; try again later"
    reason = ErrorReason.ERROR_REASON_QUEUE_FULL
    return RefusedError(
        Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, reason, text, {"limit": str(most)}, retry_after=1.0)
    )
