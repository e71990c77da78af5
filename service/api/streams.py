"""How long a stream lives: how many there may be, who may read it, and how long it may stay unread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import structlog

from flowkeep.v1.error_pb2 import ErrorReason
from persistence.shares import Shares
from service.api.claims import Identity
from service.api.errors import Refusal, RefusedError
from service.api.identity import Authenticator
from service.api.sending import Sending

LARGE = 512 << 10
"""Bytes of a response that is counted: snapshots and large events are, not the pages that most streams consist of."""

RECHECK = 15.0
"""Seconds between looks at a stream's token; with the leeway of clocks it ends at most 60 s late (CONTRACT W13)."""


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Streams of this process and of one org at a time, and the seconds that a message may wait to be read."""

    most: int
    most_per_org: int
    write_patience: float


class Streams:
    """The streams that are open."""

    def __init__(self, limits: StreamLimits) -> None:
        self._limits = limits
        self._open = Shares(limits.most, limits.most_per_org)

    @contextmanager
    def opened(self, identity: Identity) -> Iterator[None]:
        """Count a stream while it is open. Raises RefusedError when there are too many."""
        who = identity.org, identity.subject
        if not self._open.has_place(*who):
            raise self._too_many(identity.org)
        self._open.take(*who)
        try:
            yield
        finally:
            self._open.give_back(*who)

    def _too_many(self, org: str) -> RefusedError:
        limits = self._limits
        if self._open.held >= limits.most:
            return _too_many(f"this server has {limits.most} streams open, as many as it may", limits.most)
        if self._open.held_by(org) >= limits.most_per_org:
            text = f"this org on this server has {limits.most_per_org} streams open, as many as it may"
            return _too_many(text, limits.most_per_org)
        most = min(limits.most, limits.most_per_org)
        return _too_many(f"your org or identity has as many streams open as its share of {most} is", most)

    def writer(self, context: Any, org: str, sending: Sending) -> Writer:
        """Return what sends the responses of a stream."""
        return Writer(context, self._limits.write_patience, org, sending)


class Writer:
    """Sends the responses of a stream, and gives up on a reader who is stuck."""

    def __init__(self, context: Any, patience: float, org: str, sending: Sending) -> None:
        self._context = context
        self._patience = patience
        self._org = org
        self._sending = sending
        self._has_begun = False

    async def send(self, response: bytes) -> None:
        """Return when a response has gone out as far as flow control lets it. Raises RefusedError for a stuck reader.

        What is not read stays with the connection for as long again. What is large counts among the answers that wait
        to be read.
        """
        if len(response) <= LARGE:
            await self._write(response)
            return
        size, org, sending = len(response), self._org, self._sending
        await sending.room(size, org, self._patience)
        try:
            await self._write(response)
        except RefusedError:
            sending.leave(lambda: sending.free(size, org))
            raise
        except BaseException:
            sending.free(size, org)
            raise
        sending.free(size, org)

    async def _write(self, response: bytes) -> None:
        limit = asyncio.timeout(self._patience)
        try:
            async with limit:
                await self._begin()
                await self._context.write(response)
        except TimeoutError:
            if not limit.expired():
                raise
            raise _too_slow(self._patience) from None

    async def _begin(self) -> None:
        """Send the metadata apart: gRPC loses a status that follows a first write which took them along and hangs."""
        if not self._has_begun:
            self._has_begun = True
            await self._context.send_initial_metadata(())


class Recheck:
    """Looks from time to time whether the token that a stream was opened with is still good."""

    def __init__(self, authenticator: Authenticator, metadata: Mapping[str, Sequence[str]], peer: str) -> None:
        self._authenticator = authenticator
        self._metadata = metadata
        self._peer = peer
        self._next = time.monotonic() + RECHECK

    async def __call__(self) -> None:
        """Raise UnauthenticatedError when the token no longer is."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + RECHECK
            with structlog.contextvars.bound_contextvars(peer=self._peer):
                await self._authenticator.identify(self._metadata)


def _too_many(text: str, most: int) -> RefusedError:
    text = f"{text}; try again later or end one"
    metadata = {"limit": str(most)}
    reason = ErrorReason.ERROR_REASON_TOO_MANY_STREAMS
    return RefusedError(Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, reason, text, metadata, retry_after=1.0))


def _too_slow(patience: float) -> RefusedError:
    text = f"the stream was not read for {patience:g} s; go on after the last event that arrived"
    reason = ErrorReason.ERROR_REASON_SLOW_CONSUMER
    return RefusedError(
        Refusal(grpc.StatusCode.UNAVAILABLE, reason, text, {"seconds": f"{patience:g}"}, retry_after=0.1)
    )
