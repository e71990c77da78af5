"""Threads for work that may hang: as many as are needed at a time, and none that holds up the end of the process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

IDLE = 60.0
"""Seconds after which a thread ends that has nothing to do."""


class DaemonThreads:
    """Runs each piece of work at once. How many may run at a time is for its user to bound."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._idle = threading.Semaphore(0)

    def do(self, work: Callable[[], None]) -> None:
        """Let a thread do it now."""
        self._work.put(work)
        if not self._idle.acquire(blocking=False):
            threading.Thread(target=self._live, name=self._name, daemon=True).start()

    def _live(self) -> None:
        while True:
            try:
                work = self._work.get(timeout=IDLE)
            except Empty:
                if self._idle.acquire(blocking=False):
                    return
                continue  # work is coming, which counts on this thread
            work()
            del work  # or it would be kept until there is more
            self._idle.release()
