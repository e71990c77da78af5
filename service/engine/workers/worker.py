"""One worker, and what it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime

from service.engine.handlers.model import StepContext
from service.engine.workers.model import Answer, Assign, AttemptId, Link, Registration, Stop, StopReason


class Assignment:
    """An attempt that a worker was given. `answer` is what the worker says of it in the end, or that it is lost.

    `is_discarded`: the answer is of no use, because the attempt was told to stop before it came.
    """

    __slots__ = ("answer", "command", "context", "is_discarded", "is_told", "percent", "worker")

    def __init__(self, worker: Worker, command: Assign, context: StepContext) -> None:
        self.worker = worker
        self.command = command
        self.context = context
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.is_told = False
        self.is_discarded = False
        self.percent = 0
        """How much of it is done, as it last said."""

    @property
    def attempt(self) -> AttemptId:
        """The attempt."""
        return self.command.attempt

    def stop(self, reason: StopReason) -> None:
        """Tell the worker to stop it, once; whatever it says from now on is discarded."""
        self.is_discarded = True
        if not self.is_told and not self.answer.done():
            self.is_told = True
            self.worker.tell(Stop(self.attempt, reason))


class Worker:
    """A worker that is connected to this process, or was a moment ago.

    `assigned` are the attempts that it runs, as far as it has said; `reserved` is how many more it has been promised.
    `silence` counts the looks since it was last heard of.
    """

    __slots__ = (
        "assigned",
        "connect_time",
        "heard_time",
        "is_draining",
        "link",
        "registration",
        "reserved",
        "silence",
        "unsettled",
    )

    def __init__(self, registration: Registration, link: Link, now: datetime) -> None:
        self.registration = registration
        self.link: Link | None = link
        self.assigned: dict[AttemptId, Assignment] = {}
        self.unsettled: dict[AttemptId, Assignment] = {}
        """Those of which it has given the result, and does not know yet what became of that."""
        self.reserved = 0
        self.silence = 0
        self.is_draining = False
        self.connect_time = self.heard_time = now

    @property
    def title(self) -> str:
        """How to call it in texts for people."""
        return repr(self.registration.name or self.registration.worker_id)

    @property
    def is_available(self) -> bool:
        """Whether it may be given attempts at all."""
        return self.link is not None and not self.is_draining

    @property
    def room(self) -> int:
        """How many attempts it may be given now."""
        return self.registration.capacity - len(self.assigned) - self.reserved if self.is_available else 0

    @property
    def known(self) -> Mapping[AttemptId, Assignment]:
        """All attempts that it may speak of."""
        return {**self.assigned, **self.unsettled}

    def tell(self, command: Assign | Stop) -> None:
        """Send a command, unless its stream is broken: what it runs is looked through when it comes back."""
        if self.link is not None:
            self.link.tell(command)
