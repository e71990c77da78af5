"""The attempt that runs, as its process knows it: when it must stop, and whether it was told to."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextvars import ContextVar
from threading import Event, Lock
from typing import Any
from uuid import UUID

from persistence.usage import Usage


class Attempt:
    """One attempt of a step while this process runs it. Any thread may ask it, and tell it to stop.

    `stop` is what its handler asks. `told_at` is the monotonic time at which it was told to stop, `has_expired` whether
    by its timeout. `has_noticed`: its handler asked since, and heard so. `is_abandoned`: this process drives the
    execution no longer, and what comes of the attempt is of no use. `is_in_thread`: a thread runs it now, which nothing
    can stop. `has_returned`: its handler gave what it gives, which may have to wait for its turn. `usage` is
    what it has used so far, None for nothing.
    """

    __slots__ = (
        "_deadline",
        "_monotonic",
        "epoch",
        "execution_id",
        "handler",
        "has_expired",
        "has_noticed",
        "has_returned",
        "incarnation",
        "is_abandoned",
        "is_in_thread",
        "iteration",
        "number",
        "org",
        "path",
        "stop",
        "told_at",
        "usage",
    )

    def __init__(
        self,
        execution_id: UUID,
        path: str,
        number: int,
        handler: str,
        incarnation: UUID,
        epoch: int,
        monotonic: Callable[[], float] = time.monotonic,
        iteration: int = 1,
        org: str = "",
    ) -> None:
        self.execution_id = execution_id
        self.path = path
        self.iteration = iteration
        self.number = number
        self.handler = handler
        self.incarnation = incarnation
        self.epoch = epoch
        self.org = org
        self.stop = _Stop(self)
        self.told_at: float | None = None
        self.has_noticed = False
        self.has_expired = False
        self.has_returned = False
        self.is_in_thread = False
        self.is_abandoned = False
        self.usage: Usage | None = None
        self._monotonic = monotonic
        self._deadline = math.inf

    def begin(self, timeout: float) -> None:
        """Let its time begin."""
        self._deadline = self._monotonic() + timeout

    def expire(self) -> None:
        """Tell it to stop because its time is over."""
        self.has_expired = True
        self.tell()

    def tell(self) -> None:
        """Tell it to stop."""
        if self.told_at is None:
            self.told_at = self._monotonic()
            self.stop.set()

    def use(self, input_tokens: int, output_tokens: int, cost_micros: int) -> None:
        """Count what it has used more."""
        if input_tokens or output_tokens or cost_micros:
            more = Usage(input_tokens, output_tokens, cost_micros)
            with _lock:
                self.usage = more.plus(self.usage)

    @property
    def late(self) -> float:
        """For how many seconds it should have ended; 0 when it was not told to."""
        return 0.0 if self.told_at is None else self._monotonic() - self.told_at

    @property
    def is_late(self) -> bool:
        """Whether its handler stopped because its time was over."""
        return self.has_noticed and self._monotonic() >= self._deadline

    @property
    def is_over(self) -> bool:
        """Whether it was told to stop, or its time is over."""
        return self.told_at is not None or self._monotonic() >= self._deadline

    @property
    def facts(self) -> dict[str, Any]:
        """What a log says of it."""
        return {
            "execution_id": str(self.execution_id),
            "step": self.path,
            "iteration": self.iteration,
            "attempt": self.number,
            "handler": self.handler,
        }


_lock = Lock()
"""Over the making of events that threads wait for, and what they have used: few handlers do either."""


class _Stop(Event):
    """Set when an attempt must stop, also while the event loop is too busy to tell it."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._told: Event | None = None

    def is_set(self) -> bool:
        is_over = self._attempt.is_over
        self._attempt.has_noticed |= is_over
        return is_over

    def set(self) -> None:
        with _lock:
            if self._told is not None:
                self._told.set()

    def wait(self, timeout: float | None = None) -> bool:
        with _lock:
            told = self._told = self._told or Event()
        # Told before there was the event, nobody would set it.
        if self._attempt.told_at is None:
            told.wait(timeout)
        return self.is_set()


CURRENT: ContextVar[Attempt] = ContextVar("attempt")
"""The attempt to which what runs belongs: bound in its task, and inherited by the tasks and callbacks that it makes."""
