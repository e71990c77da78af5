"""What a process looks after again and again beside its runs: hints of others, cancel requests, what was left over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from persistence import failpoints
from persistence.errors import PersistenceError
from persistence.model import News
from service.engine.planning import happenings
from service.engine.waiting import flagged

if TYPE_CHECKING:
    from service.engine.running.runner import Runner

log = structlog.get_logger(__name__)

REAP_BATCH = 500

SWEEP_INTERVAL = 0.8
"""Seconds between sweeps at most, so that a cancel request is heeded within one also without a hint (CONTRACT CA4)."""


class Sweeper:
    """The loops of a runner that neither claim nor renew."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._asked = asyncio.Event()
        self._left_something = asyncio.Event()
        # Owned but not driven at the last sweep.
        self._missed: set[UUID] = set()

    def begin(self) -> None:
        """Go on the rounds from now on."""
        self._runner.tasks.keep(self._sweep_loop, "sweep loop")
        self._runner.tasks.keep(self._reap_loop, "reap loop")
        self._runner.tasks.keep(self._listen_loop, "listen loop")

    def leave(self) -> None:
        """Say that there may be something to remove."""
        self._left_something.set()

    async def sweep(self) -> None:
        """Heed cancel requests that came by another process, and take up what this one owns without driving it."""
        runner = self._runner
        strays = await runner.journal.strays(runner.incarnation, list(runner.runs))
        missed = {stray.id for stray in strays} - runner.runs.keys() - runner.recovery.under_way - runner.claimer.coming
        for stray in strays:
            if (run := runner.runs.get(stray.id)) is not None:
                if stray.cancel is not None:
                    run.apply(happenings.CancelAsked(runner.now(), stray.cancel))
            # Missed once may mean that its creation is just being answered.
            elif stray.id in missed & self._missed and runner.may_take:
                runner.recovery.look_for(stray.id)
        self._missed = missed

    async def _sweep_loop(self) -> None:
        while True:
            await flagged(self._asked, min(self._runner.interval(), SWEEP_INTERVAL))
            try:
                await self.sweep()
            except PersistenceError as error:
                log.warning("sweep failed", error=str(error))

    async def _reap_loop(self) -> None:
        """Remove what deleted workflows left, batch by batch."""
        while True:
            try:
                removed = await self._runner.journal.reap(REAP_BATCH)
                if removed:
                    await failpoints.reach("purge.between_batches")
            except PersistenceError as error:
                removed = 0
                log.warning("reaping failed", error=str(error))
            if removed < REAP_BATCH:
                await flagged(self._left_something, self._runner.settings.reap_interval)

    async def _listen_loop(self) -> None:
        while True:
            try:
                await self._runner.journal.listen(self._hear)
            except PersistenceError as error:
                log.warning("not listening", error=str(error))
            await asyncio.sleep(self._runner.interval())

    def _hear(self, news: News) -> None:
        """Look where another process did something; whatever it is, the store says it."""
        runner = self._runner
        if news.executions is None:
            runner.hub.wake_all()
        else:
            runner.hub.wake(news.executions)
        if news.has_work:
            runner.claimer.poke()
        if news.has_cancel and (news.executions is None or not runner.runs.keys().isdisjoint(news.executions)):
            self._asked.set()
