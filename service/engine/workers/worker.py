"""One worker, and what it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime

from service.engine.handlers.model import Handler, StepContext
from service.engine.wishes import Wishes
from service.engine.workers.model import Answer, Assign, AttemptId, Link, Registration, Stop, StopReason
from service.engine.workers.report import Report


class Assignment:
    """An attempt that a worker was given. `answer` is what the worker says of it in the end, or that it is lost.

    `worker` is None while it is none of this process, or none at all: another process gave it to one, which may come
    back anywhere, and `command` is None then. `reason` is why it was told to stop. `is_discarded`: the answer is of no
    use, because the attempt was told to stop before it came.
    """

    __slots__ = (
        "answer",
        "attempt",
        "command",
        "context",
        "has_come",
        "heard",
        "is_discarded",
        "percent",
        "reason",
        "silence",
        "worker",
    )

    def __init__(self, attempt: AttemptId, context: StepContext, worker: Worker | None, command: Assign | None) -> None:
        self.attempt = attempt
        self.context = context
        self.worker = worker
        self.command = command
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.reason: StopReason | None = None
        self.is_discarded = False
        self.percent = 0
        """How much of it is done, as it last said."""
        self.has_come = worker is not None
        """Whether its worker was heard of, here or elsewhere, since this process drives the execution."""
        self.silence = 0
        """The looks since another process last held it, while it has no worker here."""
        self.heard = Report()
        """What another process has said of it."""

    def stop(self, reason: StopReason) -> None:
        """Tell the worker to stop it, once; whatever it says from now on is discarded."""
        self.is_discarded = True
        if self.reason is None and not self.answer.done():
            self.reason = reason
            if self.worker is not None:
                self.worker.tell(Stop(self.attempt, reason))

    def came(self, worker: Worker) -> None:
        """Take note that a worker of this process runs it."""
        self.worker, self.has_come = worker, True
        self.percent = self.heard.percent
        inputs, outputs, cost = self.heard.usage
        self.context.add_usage(input_tokens=inputs, output_tokens=outputs, cost_micros=cost)
        if self.reason is not None:
            worker.tell(Stop(self.attempt, self.reason))


class Relayed:
    """An attempt that a worker of this process runs, and whose execution another process drives, or nobody just now.

    `context` gathers what the worker says of it, and `is_news` is whether that has not been written. `is_told`: it was
    told to stop.
    """

    __slots__ = ("attempt", "context", "is_news", "is_told", "percent", "worker")

    def __init__(self, worker: Worker, attempt: AttemptId, context: Report) -> None:
        self.worker = worker
        self.attempt = attempt
        self.context = context
        self.is_news = context.answer is not None
        self.percent = context.percent
        self.is_told = False

    def stop(self, reason: StopReason) -> None:
        """Tell the worker to stop it, once."""
        if not self.is_told:
            self.is_told = True
            self.worker.tell(Stop(self.attempt, reason))


class Worker:
    """A worker that is connected to this process, or was a moment ago.

    `assigned` are the attempts that it runs, as far as it has said, and `relayed` those of executions that are driven
    elsewhere; `reserved` is how many more it has been promised. `silence` counts the looks since it was last heard of.
    """

    __slots__ = (
        "assigned",
        "connect_time",
        "handlers",
        "heard_time",
        "is_draining",
        "link",
        "registration",
        "relayed",
        "reserved",
        "silence",
        "unsettled",
    )

    def __init__(self, registration: Registration, link: Link, now: datetime) -> None:
        self.registration = registration
        self.link: Link | None = link
        self.handlers: Mapping[str, Handler] = {}
        """What it has, by name, each with the schema that it declared."""
        self.assigned: dict[AttemptId, Assignment] = {}
        self.relayed: dict[AttemptId, Relayed] = {}
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
    def running(self) -> int:
        """How many attempts it runs."""
        return len(self.assigned) + sum(each.context.answer is None for each in self.relayed.values())

    @property
    def room(self) -> int:
        """How many attempts it may be given now."""
        return self.registration.capacity - self.running - self.reserved if self.is_available else 0

    @property
    def is_idle(self) -> bool:
        """Whether it runs nothing, and has no result that is not settled."""
        return not (self.assigned or self.relayed or self.unsettled)

    @property
    def known(self) -> Mapping[AttemptId, Assignment]:
        """All attempts that it may speak of."""
        return {**self.assigned, **self.unsettled}

    def meets(self, wishes: Wishes) -> bool:
        """Whether it is what a step wishes of its worker."""
        return wishes.are_met_by(self.registration.labels, self.registration.version)

    def is_like(self, other: Worker) -> bool:
        """Whether there is nothing that another worker could be wished for, and this one not."""
        mine, its = self.registration, other.registration
        return (mine.labels, mine.version) == (its.labels, its.version)

    def tell(self, command: Assign | Stop) -> None:
        """Send a command, unless its stream is broken: what it runs is looked through when it comes back."""
        if self.link is not None:
            self.link.tell(command)
