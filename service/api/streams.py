"""How long a stream lives: how many there may be, who may read it, and how long it may stay unread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass
from typing import Any

import grpc

from flowkeep.v1.error_pb2 import ErrorReason
from persistence.shares import Shares
from service.api.claims import Identity
from service.api.errors import Refusal, RefusedError
from service.api.identity import Authenticator
from service.api.receiving import this_task
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
        self._writes = _Writes(limits.write_patience)

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
        return Writer(context, self._writes, org, sending)


class _Writes:
    """The writes that are on their way, the oldest first: one timer for all, as nearly none is ever late."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._begun: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def within_patience(self, write: Awaitable[None], task: asyncio.Task[Any]) -> None:
        """Return when a write of this task, the current one, has been taken. Raises RefusedError when it is late."""
        loop = task.get_loop()
        self._begun[task] = loop.time() + self.patience
        if self._timer is None:
            self._look_at(loop, self._begun[task])
        try:
            await write
        except asyncio.CancelledError:
            if task not in self._late or task.uncancel():
                raise
            raise _too_slow(self.patience) from None
        finally:
            self._begun.pop(task, None)
            self._late.discard(task)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        while self._begun:
            task, until = next(iter(self._begun.items()))
            if until > now:
                self._look_at(loop, until)
                return
            del self._begun[task]
            self._late.add(task)
            task.cancel()

    def _look_at(self, loop: asyncio.AbstractEventLoop, moment: float) -> None:
        self._timer = loop.call_at(moment, self._look, loop, context=Context())


class Writer:
    """Sends the responses of the stream that the current task serves, and gives up on a reader who is stuck."""

    def __init__(self, context: Any, writes: _Writes, org: str, sending: Sending) -> None:
        self._context = context
        self._writes = writes
        self._org = org
        self._sending = sending
        self._task = this_task()
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
        await sending.room(size, org, self._writes.patience)
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
        if not self._has_begun:
            # Apart: gRPC loses a status that follows a first write which took the metadata along and hangs.
            self._has_begun = True
            await self._writes.within_patience(self._context.send_initial_metadata(()), self._task)
        await self._writes.within_patience(self._context.write(response), self._task)


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
            await self._authenticator.identify(self._metadata, self._peer)


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
