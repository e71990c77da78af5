"""What executions that nobody drives wish of the workers that they wait for, as all processes know it."""

from __future__ import annotations

import asyncio

import structlog

from persistence.errors import PersistenceError
from persistence.workers import AwaitedWorker, WorkerRepository
from service.engine.handlers.registry import of_workers
from service.engine.wishes import Wishes, awaited
from service.engine.workers.pool import Workers

log = structlog.get_logger(__name__)

REFRESHED = 3_600.0
"""Seconds after which it is written again that a wish is waited for."""

AGAIN = 1.0
"""Seconds until it is tried again when the database could not be reached."""

_MOST_KEPT = 10_000


class AwaitedWishes:
    """Keeps which wishes steps wait with, so that a process whose workers meet them can claim by their names.

    There are few: each is written in a definition. To find them among the executions themselves would take a look at
    all that wait.
    """

    def __init__(self, repository: WorkerRepository, workers: Workers) -> None:
        self._repository = repository
        self._workers = workers
        # When each was written by this process, by its clock that goes only forward.
        self._written: dict[AwaitedWorker, float] = {}

    async def keep(self, org: str, handler: str, wishes: str) -> None:
        """Let all processes know of wishes, before an execution is released that waits with them.

        Raises PersistenceError.
        """
        row, now = AwaitedWorker(org, handler, wishes), asyncio.get_running_loop().time()
        if not wishes or now - self._written.get(row, now - REFRESHED) < REFRESHED:
            return
        await self._repository.keep_awaited_worker(row)
        if len(self._written) >= _MOST_KEPT:
            self._written.clear()
        self._written[row] = now

    async def told(self, org: str, handler: str, wishes: Wishes) -> None:
        """Let all processes know of wishes, as soon as the database can be reached."""
        while True:
            try:
                return await self.keep(org, handler, wishes.text)
            except PersistenceError as error:
                log.warning("wishes not kept", handler=handler, error=str(error))
                await asyncio.sleep(AGAIN)

    async def met(self) -> list[str]:
        """Return by what claims find executions whose wishes the workers of this process meet.

        Raises PersistenceError.
        """
        names = self._workers.names()
        if not names:
            return []
        rows = await self._repository.list_awaited_workers(names)
        return [of_workers(row.org, awaited(row.handler, row.wishes)) for row in rows if self._is_met(row)]

    def _is_met(self, row: AwaitedWorker) -> bool:
        try:
            return self._workers.get(row.org, row.handler, Wishes.of(row.wishes)) is not None
        except ValueError:  # of a release that writes them otherwise
            return False
