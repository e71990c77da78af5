"""What a running attempt shows to watchers, and nobody keeps."""

from __future__ import annotations

import asyncio
from threading import Lock
from uuid import UUID

from persistence.transition import CommitResult
from service.engine.failure import storable
from service.engine.planning.effects import AttemptKey
from service.engine.watch import Output, WatchHub

MAX_OUTPUT = 16_384
"""Characters of one output; of more in one turn of the loop the end is sent."""


class Emitter:
    """Takes text from a handler, also one in a thread, and shows what came in one turn of the loop as one output.

    `start` is the commit of the attempt's start where it began before that: until then nothing is shown.
    """

    def __init__(
        self, hub: WatchHub, execution_id: UUID, attempt: AttemptKey, start: asyncio.Future[CommitResult] | None = None
    ) -> None:
        self._start = start
        self._hub = hub
        self._execution_id = execution_id
        self._path, self._iteration, self._attempt = attempt
        self._loop = asyncio.get_running_loop()
        self._lock = Lock()
        self._pending = ""

    def __call__(self, text: str) -> None:
        """Show text to whoever watches at this moment."""
        if not self._hub.is_watched(self._execution_id):
            return
        with self._lock:
            is_first = not self._pending
            self._pending = (self._pending + str(text))[-MAX_OUTPUT:]
        if is_first:
            self._loop.call_soon_threadsafe(self._show)

    def _show(self) -> None:
        if self._start is None:
            self._send()
        elif self._start.done():
            self._show_if_started(self._start)
        else:  # what comes meanwhile is added to what is pending
            self._start.add_done_callback(self._show_if_started)

    def _show_if_started(self, start: asyncio.Future[CommitResult]) -> None:
        if not start.cancelled() and start.exception() is None and start.result() is CommitResult.COMMITTED:
            self._start = None
            self._send()

    def _send(self) -> None:
        with self._lock:
            text, self._pending = self._pending, ""
        if text:
            output = Output(self._path, self._attempt, storable(text, MAX_OUTPUT), self._iteration)
            self._hub.show(self._execution_id, output)
