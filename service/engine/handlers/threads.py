"""The threads that sync handlers run in: a bounded number, each taken until what runs in it has really ended."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from types import FrameType, TracebackType
from typing import Any
from weakref import WeakKeyDictionary

import structlog

from service.engine.daemon_threads import DaemonThreads
from service.engine.handlers.attempt import CURRENT, Attempt

log = structlog.get_logger(__name__)

THREADS = 32
"""Sync handlers that run at a time in one process."""

MOMENT = 1.0
"""Seconds that an attempt waits for a thread before its step is shown as waiting."""

STUCK = 5.0
"""Seconds after which a thread is stuck whose attempt is over, by its timeout, a cancel or the end of its execution."""

LOOK = 1.0
"""Seconds between looks for stuck threads."""

LONGEST_SILENCE = 600.0
"""Seconds at most between two reports of the same stuck thread; each waits twice as long as the one before."""

DEEPEST = 30
"""Frames of a stack that a report shows, the innermost."""


class Place:
    """A place in the queue for a thread, and then the thread. Closed, it is given back: when what runs in it ends.

    Of slots that are no threads it is the right to what there is a bounded number of, given back when it is closed.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_closed = False
        self.attempt: Attempt | None = None
        self.ident: int | None = None
        self.reports = 0
        """How often it was reported as stuck."""
        self.report_at = 0.0

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def bind(self) -> None:
        """Let what this task calls run in the thread."""
        _PLACE.set(self)

    async def granted(self, within: float) -> bool:
        """Return whether the thread is there, after so many seconds at most."""
        if not self._granted.done():
            await asyncio.wait((self._granted,), timeout=within)
        return self._granted.done()

    def when_granted(self, call: Callable[[], None]) -> None:
        """Call when the thread is there, unless the place is closed before."""
        self._granted.add_done_callback(lambda granted: None if granted.cancelled() else call())

    def close(self) -> None:
        """Give it back, or leave the queue."""
        if self.is_closed:
            return
        self.is_closed = True
        if not self._granted.done():
            self._granted.cancel()
            self._slots.leave(self)
        elif self not in self._slots.running:
            self._slots.give_back()

    @property
    def complaint(self) -> str:
        """Why what waits for it does not begin."""
        return self._slots.complaint

    @property
    def resource(self) -> str:
        """What it is a place among."""
        return self._slots.resource

    async def run(self, call: Callable[[], Any]) -> Any:
        """Return what `call` returns, with the caller's context variables, while the event loop goes on."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
        inside = contextvars.copy_context()

        def work() -> None:
            self.ident = threading.get_ident()
            # A future can hold neither StopIteration nor what is meant to end the process.
            outcome: tuple[Any, BaseException | None]
            try:
                outcome = inside.run(call), None
            except BaseException as error:
                outcome = None, error
            with suppress(RuntimeError):  # of a loop that has been closed meanwhile
                loop.call_soon_threadsafe(self._ended, future, outcome)

        self.attempt = CURRENT.get(None)
        if self.attempt is not None:
            self.attempt.is_in_thread = True
        self._slots.running[self] = None
        self._slots.workers.do(work)
        result, error = await future
        if error is not None:
            raise error
        return result

    def _ended(self, future: asyncio.Future[Any], outcome: tuple[Any, BaseException | None]) -> None:
        del self._slots.running[self]
        if self.attempt is not None:
            self.attempt.is_in_thread = False
        if self.reports and self.attempt is not None:
            log.warning("stuck thread ended", **self.attempt.facts, late=round(self.late, 1))
        if not future.done():
            future.set_result(outcome)
        if self.is_closed:
            self._slots.give_back()

    @property
    def late(self) -> float:
        """For how many seconds what runs in it should have ended."""
        return self.attempt.late if self.attempt is not None else 0.0


class Slots(ABC):
    """A bounded number of what attempts must have before they begin, and the queue for them."""

    resource: str
    """What they are."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running: dict[Place, None] = {}
        # Not the loop's own executor: handlers that hang would stop name resolution and file access with them.
        self.workers = DaemonThreads("flowkeep-handler")
        self._free = limit
        self._queue: deque[Place] = deque()

    def queue_up(self) -> Place:
        """Return a place, with a thread if one is free."""
        place = Place(self)
        self._queue.append(place)
        self._admit()
        return place

    def allow(self, limit: int) -> None:
        """Have another number of them from now on."""
        self._free += limit - self.limit
        self.limit = limit
        self._admit()

    def leave(self, place: Place) -> None:
        """Take a place out of the queue."""
        with suppress(ValueError):
            self._queue.remove(place)

    def give_back(self) -> None:
        """Let the next one have a thread."""
        self._free += 1
        self._admit()

    def _admit(self) -> None:
        while self._free > 0 and self._queue:
            self._free -= 1
            self._queue.popleft()._granted.set_result(None)

    @property
    @abstractmethod
    def complaint(self) -> str:
        """Why an attempt does not begin."""


class Threads(Slots):
    """The threads of one event loop."""

    resource = "threads"

    def __init__(self, limit: int = THREADS) -> None:
        super().__init__(limit)

    @property
    def are_all_stuck(self) -> bool:
        """Whether no sync handler can begin, for stuck threads alone."""
        return len(self._stuck()) >= self.limit

    @property
    def complaint(self) -> str:
        """Why an attempt does not begin."""
        stuck = len(self._stuck())
        text = f"waits for a free thread: other handlers hold all {self.limit} of the server"
        return f"{text}, {stuck} of them beyond their time" if stuck else text

    def report(self) -> None:
        """Name the stuck threads in the log, each again and again with growing pauses."""
        now = time.monotonic()
        stuck = [place for place in self._stuck() if now >= place.report_at]
        frames = sys._current_frames() if stuck else {}
        for place in stuck:
            assert place.attempt is not None  # noqa: S101 - else it is not stuck
            place.reports += 1
            place.report_at = now + pause_after(place.reports)
            log.error(
                "thread is stuck",
                **place.attempt.facts,
                late=round(place.late, 1),
                threads=f"{len(self._stuck())} of {self.limit} stuck",
                stack=stack_of(frames.get(place.ident or 0)),
            )

    def _stuck(self) -> list[Place]:
        return [place for place in self.running if place.late >= STUCK]


_PLACE: ContextVar[Place] = ContextVar("place")
_threads: WeakKeyDictionary[asyncio.AbstractEventLoop, Threads] = WeakKeyDictionary()


def threads() -> Threads:
    """Return the threads of the running event loop."""
    loop = asyncio.get_running_loop()
    found = _threads.get(loop)
    if found is None:
        found = _threads[loop] = Threads()
    return found


async def in_thread(call: Callable[[], Any]) -> Any:
    """Return what `call` returns, run in the thread that the attempt was given, or in the next that is free."""
    bound = _PLACE.get(None)
    if bound is not None and not bound.is_closed:
        return await bound.run(call)
    with threads().queue_up() as place:
        while not await place.granted(MOMENT):
            pass
        return await place.run(call)


async def watch_threads() -> None:
    """Report stuck threads until cancelled."""
    while True:
        await asyncio.sleep(LOOK)
        threads().report()


def pause_after(reports: int) -> float:
    """Return the seconds until what is stuck is reported again."""
    return min(STUCK * 2.0 ** min(reports, 16), LONGEST_SILENCE)


def stack_of(frame: FrameType | None) -> str:
    """Return the innermost frames of a stack as text, the innermost last."""
    if frame is None:
        return ""
    return "".join(traceback.format_list(traceback.extract_stack(frame)[-DEEPEST:]))
