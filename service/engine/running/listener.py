"""Hears what other processes did, and wakes what that concerns."""

from __future__ import annotations

import asyncio

import structlog

from persistence.errors import PersistenceError
from persistence.processes import News
from service.engine.running.active_runs import ActiveRuns
from service.engine.running.context import Context

log = structlog.get_logger(__name__)


class Listener:
    """Turns news into wake-ups: of watchers, claims and sweeps. The store says the rest."""

    def __init__(self, context: Context, runs: ActiveRuns) -> None:
        self._context = context
        self._runs = runs

    async def keep(self) -> None:
        """Listen until cancelled."""
        while True:
            try:
                await self._context.journal.listen(self._hear)
            except PersistenceError as error:
                log.warning("not listening", error=str(error))
            await asyncio.sleep(self._context.interval())

    def _hear(self, news: News) -> None:
        if news.executions is None:
            self._context.hub.wake_all()
        else:
            self._context.hub.wake(news.executions)
        if news.has_work:
            self._context.work.poke()
        if news.has_mail:
            self._runs.hear(news.executions)
            if news.executions is None or not self._runs.ids.isdisjoint(news.executions):
                self._context.mail.poke()
            else:  # a sweep may have found it before, and ended by it what it was for
                self._context.mail.tell()
