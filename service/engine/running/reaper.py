"""Removes what deleted workflows left, and request ids that are old enough to be forgotten."""

from __future__ import annotations

import structlog

from persistence import failpoints
from persistence.errors import PersistenceError
from persistence.repository import WorkflowRepository
from service.engine.running.wakeups import Wakeup

log = structlog.get_logger(__name__)

BATCH = 500


class Reaper:
    """Removes both batch by batch, every `interval` seconds and when it is woken."""

    def __init__(self, workflows: WorkflowRepository, interval: float) -> None:
        self._workflows = workflows
        self._interval = interval
        self.leftovers = Wakeup()
        """Wakes it: there may be something to remove."""

    async def keep(self) -> None:
        """Remove until cancelled."""
        while True:
            try:
                removed, forgotten = await self._workflows.reap(BATCH), await self._workflows.forget(BATCH)
                if removed or forgotten:
                    await failpoints.reach("purge.between_batches")
            except PersistenceError as error:
                removed = forgotten = 0
                log.warning("reaping failed", error=str(error))
            # Those that are old lie between some that are still remembered for an execution.
            if removed < BATCH and not forgotten:
                await self.leftovers.wait(self._interval)
