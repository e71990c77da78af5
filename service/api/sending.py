"""How answers are sent: so many bytes at a time, in all and per org, and each within a time.

gRPC keeps an answer until its reader has taken it, and has no end to that.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
import structlog

from flowkeep.v1.error_pb2 import ErrorReason
from service.api.answering import LONGEST
from service.api.errors import Refusal, RefusedError
from service.api.receiving import this_task

log = structlog.get_logger(__name__)

SMALL = 64 << 10
"""Bytes of an answer that goes out without a look at the others: a client takes as much before it reads."""

MOST = 64 << 20
"""Bytes of larger answers at a time. As many wait at most; gRPC needs twice as many while it sends."""

MOST_PER_ORG = MOST // 2

LEAST_PACE = 2 << 20
"""Bytes in a second that the reader of a large answer takes at least, once patience is over."""

_RPC = "_schedule_rpc_coro"
"""The coroutine of gRPC in which a call lives until its status has gone out."""


@dataclass(eq=False, slots=True)
class _Waiter:
    org: str
    size: int
    turn: asyncio.Future[None]


@dataclass(eq=False, slots=True)
class Sending:
    """The answers that are being sent."""

    patience: float
    most: int = MOST
    most_per_org: int = MOST_PER_ORG
    _bytes: Counter[str] = field(default_factory=Counter)
    _waiting: dict[_Waiter, None] = field(default_factory=dict)
    _unsent: dict[asyncio.Task[Any], float] = field(default_factory=dict)
    _left: dict[asyncio.Task[Any], Callable[[], None]] = field(default_factory=dict)
    _timer: asyncio.TimerHandle | None = None

    async def answer(self, raw: bytes, org: str) -> bytes:
        """Return an answer of the current call when it may be sent; the call is given up when nobody reads it.

        Raises RefusedError.
        """
        size, task = len(raw), this_task()
        if size > SMALL:
            await self.room(size, org, min(self.patience, LONGEST))
            task.add_done_callback(lambda _: self.free(size, org))
        self._expect(task, self.patience + size / LEAST_PACE)
        return raw

    async def room(self, size: int, org: str, patience: float) -> None:
        """Return when so many bytes may be sent, until they are set `free`. Raises RefusedError after patience."""
        if self._fits(size, org) and all(waiter.org != org for waiter in self._waiting):
            self._bytes[org] += size
            return
        if sum(waiter.size for waiter in self._waiting) + size > self.most:
            raise _unread(self.most_per_org)
        waiter = _Waiter(org, size, asyncio.get_running_loop().create_future())
        self._waiting[waiter] = None
        try:
            async with asyncio.timeout(patience):
                await waiter.turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if self._waiting.pop(waiter, None) is None:
                self.free(size, org)
            if isinstance(error, TimeoutError):
                raise _unread(self.most_per_org) from None
            raise

    def free(self, size: int, org: str) -> None:
        """Say that these bytes are gone; those that wait come next, the oldest first."""
        self._bytes[org] -= size
        if not self._bytes[org]:
            del self._bytes[org]
        for waiter in [each for each in self._waiting if self._fits(each.size, each.org)]:
            if self._fits(waiter.size, waiter.org) and not waiter.turn.done():
                del self._waiting[waiter]
                self._bytes[waiter.org] += waiter.size
                waiter.turn.set_result(None)

    def leave(self, gone: Callable[[], None] = lambda: None) -> None:
        """Give up what the current call has sent unless it is read within patience; tell when it is gone."""
        self._left.setdefault(this_task(), gone)
        self._start_looking()

    def _follow_left(self) -> None:
        """Find what outlives the calls that were left, of all at once: it takes a look at every task."""
        left, self._left = self._left, {}
        rpcs = _rpcs(left)
        for task, gone in left.items():
            if (rpc := rpcs.get(task)) is None:
                gone()
            else:
                rpc.add_done_callback(partial(_call, gone))
                self._expect(rpc, self.patience)

    def _fits(self, size: int, org: str) -> bool:
        """Whether there is room. The one answer of an org, or of all, may be larger than what several may be."""
        sent = self._bytes.total()
        of_org = self._bytes.get(org, 0)
        return (not of_org or of_org + size <= self.most_per_org) and (not sent or sent + size <= self.most)

    def _expect(self, task: asyncio.Task[Any], seconds: float) -> None:
        self._unsent[task] = task.get_loop().time() + seconds
        self._start_looking()

    def _start_looking(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(min(1.0, self.patience / 2), self._look, loop, context=Context())

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self._left:
            self._follow_left()
        now = loop.time()
        self._unsent = {task: until for task, until in self._unsent.items() if not task.done()}
        if late := [task for task, until in self._unsent.items() if until <= now]:
            self._give_up(late)
        if self._unsent:
            self._start_looking()

    def _give_up(self, late: Sequence[asyncio.Task[Any]]) -> None:
        """End calls whose answers nobody reads.

        Without its tasks gRPC lets go of a call, unless it came last, or before all others of the server.
        """
        rpcs = _rpcs(late)
        for task in late:
            self._unsent.pop(task, None)
            task.cancel()
            if task in rpcs:
                rpcs[task].cancel()
        log.warning("answers not read; their calls are ended", calls=len(late), seconds=self.patience)


def _rpcs(tasks: Iterable[asyncio.Task[Any]]) -> Mapping[asyncio.Task[Any], asyncio.Task[Any]]:
    """Return the task of gRPC that outlives each of these tasks of handlers. gRPC gives no way to end a call.

    It is found by what its coroutine holds on to: the task of the handler.
    """
    wanted = {id(task): task for task in tasks}
    found: dict[asyncio.Task[Any], asyncio.Task[Any]] = {}
    for rpc in asyncio.all_tasks():
        coroutine = rpc.get_coro()
        if getattr(coroutine, "__name__", "") != _RPC:
            continue
        for scope in gc.get_referents(coroutine):
            for held in gc.get_referents(scope):
                with suppress(KeyError):
                    found[wanted[id(held)]] = rpc
    return found


def _call(gone: Callable[[], None], rpc: asyncio.Task[Any]) -> None:
    gone()


def _unread(most_per_org: int) -> RefusedError:
    text = (
        f"answers of {most_per_org >> 20} MiB wait to be read by this org, or of twice as many by all; "
        "read them, or try again later"
    )
    reason = ErrorReason.ERROR_REASON_QUEUE_FULL
    metadata = {"limit": str(most_per_org)}
    return RefusedError(Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, reason, text, metadata, retry_after=1.0))
