"""Who waits for a worker of a handler: a line for each org, handler and what is wished of it, and the seats in it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from itertools import count
from types import TracebackType

from service.engine.wishes import NONE, Wishes
from service.engine.workers.worker import Worker

WORKERS = "workers"
"""What a step waits for whose handler only workers have that are all busy."""

_numbers = count()


class Seat:
    """A place in the line for a worker with room, and then that room until an attempt takes it. See `handlers.queues`.

    Granted without a worker, there is none left to wait for.
    """

    resource = WORKERS

    def __init__(self, line: Line) -> None:
        self.line = line
        self.number = next(_numbers)
        self.worker: Worker | None = None
        self.is_closed = False
        self._granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __enter__(self) -> Seat:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def complaint(self) -> str:
        """Why an attempt does not begin."""
        busy, wishes = sum(worker.is_available for worker in self.line.workers), self.line.wishes
        more = "" if wishes == NONE else f", with {wishes}"
        them = "the worker that has it is" if busy == 1 else f"all {busy} workers that have it are"
        return f"waits for a worker with the handler {self.line.handler!r}{more}: {them} busy"

    def bind(self) -> None:
        """Let the attempt that this task runs have the room."""
        CURRENT_SEAT.set(self)

    async def granted(self, within: float) -> bool:
        """Return whether there is room, or nobody left to wait for, after so many seconds at most."""
        if not self._granted.done():
            await asyncio.wait((self._granted,), timeout=within)
        return self._granted.done()

    def when_granted(self, call: Callable[[], None]) -> None:
        """Call when the seat is granted, unless it is closed before."""
        self._granted.add_done_callback(lambda granted: None if granted.cancelled() else call())

    def grant(self, worker: Worker | None) -> None:
        """Keep room at a worker."""
        self.worker = worker
        if worker is not None:
            worker.reserved += 1
        self._granted.set_result(None)

    def take(self) -> Worker | None:
        """Return the worker and give the room to the caller; None if it may not be given the attempt any more."""
        worker, self.worker = self.worker, None
        if worker is None:
            return None
        worker.reserved -= 1
        line = self.line
        if worker.is_available and line.handler in worker.handlers and worker.meets(line.wishes):
            return worker
        line.freed(worker)
        return None

    def close(self) -> None:
        """Leave the line, or give the room back if it was not taken."""
        if self.is_closed:
            return
        self.is_closed = True
        if not self._granted.done():
            self._granted.cancel()
            with suppress(ValueError):
                self.line.seats.remove(self)
        elif (worker := self.take()) is not None:
            self.line.freed(worker)


class Line:
    """The seats that wait for one handler of an org with the same wishes, in the order in which they came.

    `workers` are those that have the handler and meet the wishes.
    """

    __slots__ = ("freed", "handler", "org", "seats", "wishes", "workers")

    def __init__(self, org: str, handler: str, freed: Callable[[Worker], None], wishes: Wishes = NONE) -> None:
        self.org = org
        self.handler = handler
        self.wishes = wishes
        self.freed = freed
        """What is to be done when room at a worker was given back."""
        self.seats: deque[Seat] = deque()
        self.workers: dict[Worker, None] = {}

    def queue_up(self) -> Seat:
        """Return a seat, with room if a worker has some."""
        seat = Seat(self)
        worker = max(self.workers, key=lambda each: each.room, default=None)
        if worker is not None and worker.room > 0 and not self.seats:
            seat.grant(worker)
        elif self.is_served:
            self.seats.append(seat)
        else:
            seat.grant(None)
        return seat

    def take_in(self, worker: Worker) -> None:
        """Add a worker that has the handler, if it meets the wishes."""
        if worker.meets(self.wishes):
            self.workers[worker] = None

    @property
    def is_served(self) -> bool:
        """Whether there is a worker to wait for."""
        return any(worker.is_available for worker in self.workers)

    def give_up(self) -> None:
        """Let all go on that wait, if there is nobody left to wait for."""
        if not self.is_served:
            while self.seats:
                self.seats.popleft().grant(None)


class Lines:
    """All lines for one handler of an org: that for any worker, and those for some."""

    __slots__ = ("any", "chosen")

    def __init__(self, org: str, handler: str, freed: Callable[[Worker], None]) -> None:
        self.any = Line(org, handler, freed)
        self.chosen: dict[Wishes, Line] = {}
        """Those with seats, and those that had some and were not cleared away yet."""

    @property
    def all(self) -> list[Line]:
        """Each line."""
        return [self.any, *self.chosen.values()]

    def enter(self, worker: Worker) -> None:
        """Let a worker serve the lines whose wishes it meets."""
        for line in self.all:
            line.take_in(worker)

    def leave(self, worker: Worker) -> None:
        """Let a worker serve no line. What waits in those that nobody else serves is not let go yet."""
        for line in self.all:
            line.workers.pop(worker, None)

    def newest(self, wishes: Wishes) -> Worker | None:
        """Return the worker that came last of those that meet these wishes, busy or not."""
        return next((each for each in reversed(self.any.workers) if each.is_available and each.meets(wishes)), None)

    def queue_up(self, wishes: Wishes) -> Seat:
        """Return a seat in the line for workers that meet these wishes."""
        line = self.any if wishes == NONE else self.chosen.get(wishes)
        if line is not None:
            return line.queue_up()
        line = Line(self.any.org, self.any.handler, self.any.freed, wishes)
        for worker in self.any.workers:
            line.take_in(worker)
        seat = line.queue_up()
        if line.seats:
            self.chosen = {each: old for each, old in self.chosen.items() if old.seats}
            self.chosen[wishes] = line
        return seat


def serve(worker: Worker, lines: list[Line]) -> None:
    """Give the room of a worker to those that have waited longest for one of its handlers."""
    while worker.room > 0:
        waiting = [line for line in lines if line.seats]
        if not waiting:
            return
        min(waiting, key=lambda line: line.seats[0].number).seats.popleft().grant(worker)


CURRENT_SEAT: ContextVar[Seat] = ContextVar("seat")
