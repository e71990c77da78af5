"""The stream to one worker: what is to be sent, in order, until it ends."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import datetime

from flowkeep.v1.worker_service_pb2 import WorkResponse
from service.api.workers import heartbeat, response
from service.engine.workers.model import Command

MOST_WAITING = 4_000
"""Commands that wait to be read by a worker, and beyond which nothing more is read from it: each thing that it says is
answered, and at most its capacity of attempts comes beside."""


class WorkerStream:
    """A `Link` over gRPC; gives the responses one by one, and at the end ends as it was told to."""

    def __init__(self) -> None:
        self._waiting: deque[Command] = deque()
        self._heartbeat: datetime | None = None
        self._is_ended = False
        self._error: Exception | None = None
        self._told = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()

    def tell(self, command: Command) -> None:
        """See Link."""
        self._waiting.append(command)
        self._told.set()
        if len(self._waiting) >= MOST_WAITING:
            self._has_room.clear()

    def live(self, time: datetime) -> None:
        """Answer heartbeats, of which there may have been several."""
        self._heartbeat = time
        self._told.set()

    def end(self, error: Exception | None = None) -> None:
        """See Link."""
        if not self._is_ended:
            self._is_ended, self._error = True, error
            self._told.set()

    async def room(self) -> None:
        """Return when the worker has read enough of what it was told."""
        await self._has_room.wait()

    def __aiter__(self) -> WorkerStream:
        return self

    async def __anext__(self) -> WorkResponse:
        while True:
            if self._waiting:
                command = self._waiting.popleft()
                if len(self._waiting) < MOST_WAITING:
                    self._has_room.set()
                return response(command)
            if self._heartbeat is not None:
                time, self._heartbeat = self._heartbeat, None
                return heartbeat(time)
            if self._error is not None:
                raise self._error
            if self._is_ended:
                raise StopAsyncIteration
            self._told.clear()
            await self._told.wait()
