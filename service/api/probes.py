"""What bounds the calls that need no identity, health checks and reflection: they never take a place of other calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc

from flowkeep.v1.error_pb2 import ErrorReason
from service.api.errors import Refusal, RefusedError
from service.api.receiving import Receiving
from service.api.sending import Sending


@dataclass(eq=False, slots=True)
class Bounded:
    """Streams of one kind that are open: so many in all, and from one address."""

    kind: str
    most: int
    most_per_address: int
    _open: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def opened(self, peer: str) -> Iterator[None]:
        """Count a stream while it is open. Raises RefusedError when there are too many."""
        address = peer.rpartition(":")[0]
        if self._open.total() >= self.most:
            raise _too_many(f"this server has {self.most} streams of {self.kind}", self.most)
        if self._open[address] >= self.most_per_address:
            raise _too_many(f"this address has {self.most_per_address} streams of {self.kind}", self.most_per_address)
        self._open[address] += 1
        try:
            yield
        finally:
            self._open[address] -= 1
            if not self._open[address]:
                del self._open[address]


@dataclass(eq=False, slots=True)
class Probes:
    """The limits of one server."""

    sending: Sending
    # A request of these has a few bytes and comes at once, so that few turns are enough, and others' memory is left.
    receiving: Receiving = field(default_factory=lambda: Receiving(8, 4, patience=5.0, give_way=0.05))
    # gRPC clients may watch health, each connection with one stream; orchestrators ask with single checks.
    health: Bounded = field(default_factory=lambda: Bounded("health", most=500, most_per_address=100))
    # A tool for people. Each stream may be receiving a request all the time.
    reflection: Bounded = field(default_factory=lambda: Bounded("reflection", most=10, most_per_address=5))


def _too_many(text: str, most: int) -> RefusedError:
    text = f"{text} open, as many as it may; try again later"
    reason = ErrorReason.ERROR_REASON_TOO_MANY_STREAMS
    metadata = {"limit": str(most)}
    return RefusedError(Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, reason, text, metadata, retry_after=1.0))
