"""How many calls are served at a time."""

from __future__ import annotations

import grpc

from flowkeep.v1.error_pb2 import ErrorReason
from persistence.shares import Shares
from service.api.claims import Identity
from service.api.errors import Refusal, RefusedError
from service.api.receiving import this_task


class Admission:
    """The places of calls, of which no org and no identity takes those of all others.

    gRPC has such a limit too, but tells callers neither why nor when to come back.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._calls = Shares(most)
        # A call that waits for the end of an execution keeps its place for long: some are left for those that do not.
        self._waits = Shares(most - most // 10)

    @property
    def is_at_work(self) -> bool:
        """Whether there are calls that do not wait for the end of an execution."""
        return self._calls.held > self._waits.held

    def take(self, identity: Identity) -> None:
        """Give the current call a place until its status has gone out. Raises RefusedError, before it did anything."""
        self._take(self._calls, identity)

    def take_wait(self, identity: Identity) -> None:
        """Give the current call, which has a place, one of those that wait. Raises RefusedError."""
        self._take(self._waits, identity)

    def _take(self, places: Shares, identity: Identity) -> None:
        who = identity.org, identity.subject
        if not places.has_place(*who):
            raise _too_many(self._calls.held, self._most)
        places.take(*who)
        this_task().add_done_callback(lambda _: places.give_back(*who))


def _too_many(served: int, most: int) -> RefusedError:
    if served >= most:
        text = f"this server serves {most} calls, as many as it may; try again later"
    else:
        text = f"this server serves as many calls of your org or identity as their share of {most} is; try again later"
    reason = ErrorReason.ERROR_REASON_QUEUE_FULL
    return RefusedError(
        Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, reason, text, {"limit": str(most)}, retry_after=1.0)
    )
