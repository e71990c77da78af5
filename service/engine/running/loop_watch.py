"""Tells who holds up the event loop, by which executions and watchers live: in the log, while it does."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import time
from contextvars import Context
from dataclasses import dataclass

import structlog

from service.engine.handlers.attempt import CURRENT, Attempt
from service.engine.handlers.threads import stack_of

log = structlog.get_logger(__name__)

LOOK = 0.1
"""Seconds between looks, and between signs of life of the loop."""

LARGEST = 0.25
"""Seconds of lateness that go without a word; a busy machine makes some by itself."""

REPORT = 10.0
"""Least seconds between reports of what is over; each tells of the worst since the last."""

BLOCKED = 1.0
"""Seconds after which what holds the loop is named while it does; then again, each time after twice as long."""

STANDSTILL = 0.5
"""Seconds between two looks from which on no other thread can have run: the process stood still, for which nothing in
it is to blame; or, if the loop's thread worked meanwhile, what it did let no other one run."""

WORK = 0.1
"""Share of such a gap for which the loop's thread must have worked to be to blame; others want the processor, too."""


@dataclass(slots=True, eq=False)
class Hold:
    """The event loop gives no sign of life. `seconds` are those in which the process ran.

    `attempt` is what holds it, as seen at the last look, None when that is no attempt; `of_attempt` are the seconds in
    which each look saw the same.
    """

    beat: float
    attempt: Attempt | None
    seconds: float = 0.0
    of_attempt: float = 0.0
    report_after: float = BLOCKED

    @property
    def culprit(self) -> Attempt | None:
        """The attempt that has held it long enough to be to blame."""
        return self.attempt if self.of_attempt >= STANDSTILL else None


class LoopWatch:
    """Watches one event loop: signs of life from inside, looks from another thread. Made in the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        # None where one thread cannot be told how long another one has worked.
        self._cpu = time.pthread_getcpuclockid(self._thread) if hasattr(time, "pthread_getcpuclockid") else None
        self._beat = self._last_look = time.monotonic()
        self._worked = self._work()
        self._hold: Hold | None = None
        self._culprit: Attempt | None = None

    async def live(self) -> None:
        """Give signs of life, and log from time to time by how much the loop was late at worst, until cancelled."""
        worst, reported = 0.0, -REPORT
        while True:
            self._beat = due = time.monotonic()
            await asyncio.sleep(LOOK)
            now = time.monotonic()
            worst = max(worst, now - due - LOOK)
            if worst >= LARGEST and now - reported >= REPORT:
                culprit, self._culprit = self._culprit, None
                log.warning("the event loop was held up", seconds=round(worst, 3), **(culprit.facts if culprit else {}))
                worst, reported = 0.0, now

    async def look_from_a_thread(self) -> None:
        """Have a thread look, until cancelled; for a process without a lease thread."""
        is_over = threading.Event()

        def look() -> None:
            while not is_over.wait(LOOK):
                self.look()

        threading.Thread(target=look, name="flowkeep-loop-watch", daemon=True).start()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            is_over.set()

    @property
    def held(self) -> float:
        """For how many seconds the loop has been held at the last look."""
        hold = self._hold
        return hold.seconds if hold is not None else 0.0

    def culprit(self) -> Attempt | None:
        """Return the attempt that holds the loop, if it is known."""
        hold = self.look()
        return hold.culprit if hold is not None else None

    def look(self) -> Hold | None:
        """Return what holds the loop, if something does; to be called by another thread, every LOOK seconds."""
        # Not the time of a suspended machine, in which nothing held the loop up.
        now = time.monotonic()
        passed = self._passed(now)
        beat = self._beat
        if now - beat < LOOK + LARGEST:
            self._hold = None
            return None
        attempt, hold = self.running(), self._hold
        if hold is None or hold.beat != beat:
            hold = self._hold = Hold(beat, attempt)
        elif hold.attempt is not attempt:
            hold.attempt, hold.of_attempt = attempt, 0.0
        hold.seconds += passed
        hold.of_attempt += passed
        if hold.of_attempt >= LARGEST:
            self._culprit = hold.attempt or self._culprit
        if hold.seconds >= hold.report_after:
            hold.report_after *= 2
            self._report(hold)
        return hold

    def _passed(self, now: float) -> float:
        """Return the seconds since the last look in which the process ran."""
        passed, self._last_look = now - self._last_look, now
        worked, self._worked = self._worked, self._work()
        is_standstill = passed >= STANDSTILL and self._worked - worked < WORK * passed
        return 0.0 if is_standstill else passed

    def _work(self) -> float:
        """Return for how many seconds the loop's thread has worked."""
        return time.clock_gettime(self._cpu) if self._cpu is not None else 0.0

    def running(self) -> Attempt | None:
        """Return the attempt to which belongs what the loop does at this moment."""
        task = asyncio.current_task(self._loop)
        context = _context_of(task) if task is not None else None
        return context.get(CURRENT) if context is not None else None

    def _report(self, hold: Hold) -> None:
        culprit = hold.culprit
        facts = culprit.facts if culprit is not None else {}
        stack = stack_of(sys._current_frames().get(self._thread))
        level = logging.ERROR if facts else logging.WARNING
        log.log(level, "the event loop is blocked", seconds=round(hold.seconds, 1), **facts, stack=stack)


def _context_of(task: asyncio.Task[object]) -> Context | None:
    if sys.version_info >= (3, 12):
        return task.get_context()
    # It has one, and does not tell; the first of what it refers to.
    return next((each for each in gc.get_referents(task) if isinstance(each, Context)), None)
