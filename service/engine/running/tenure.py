"""What becomes of all that this process drives when its lease is lost, taken up again or given back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from uuid import UUID

import structlog

from persistence.errors import UnavailableError
from persistence.transition import CommitResult
from service.engine.running.active_runs import ActiveRuns
from service.engine.running.context import Context
from service.engine.running.driver import Driver
from service.engine.running.quarantine import Quarantine
from service.engine.running.run import Run

log = structlog.get_logger(__name__)

HAND_OVER = 0.5
"""Seconds that executions get to come to rest before those that have are given back; the others get the whole grace."""


class Tenure:
    """The `Owner` for which a lease is kept: carries out for all runs what the lease says."""

    def __init__(
        self,
        context: Context,
        runs: ActiveRuns,
        quarantine: Quarantine,
        driver: Driver,
        rest: Callable[[float], None],
    ) -> None:
        self._context = context
        self._runs = runs
        self._quarantine = quarantine
        self._driver = driver
        self.ownership = context.ownership
        self.draw = context.draw
        self.rest = rest

    @property
    def incarnation(self) -> UUID:
        """The incarnation that the process drives executions under."""
        return self.ownership.incarnation

    @property
    def may_begin(self) -> bool:
        """Whether the lease lets this process begin an attempt at this moment."""
        return self.ownership.may_begin

    def hold_until(self, moment: float) -> None:
        """Begin nothing after this monotonic time, unless it is moved: then others may drive what is driven here."""
        self.ownership.hold_until(moment)
        self.ownership.tell()

    def fence(self) -> None:
        """Drop every run and start nothing more, because others may have taken over all of them."""
        self.ownership.forbid()
        self._quarantine.clear()
        for run in self._runs.remove_all():
            run.stop()
            self._context.workers.results.dropped(run.id)

    def resume(self, incarnation: UUID) -> None:
        """Go on under another incarnation, which has a lease."""
        self.ownership.resume(incarnation)
        self._context.work.poke()

    def withhold(self, execution_id: UUID, epoch: int) -> None:
        """Let nothing more of an execution begin that is to be released at this epoch; any thread may say so."""
        if (run := self._at(execution_id, epoch)) is not None:
            run.is_withheld = True

    def drop(self, execution_id: UUID, epoch: int) -> None:
        """Stop the run of an execution that was released at this epoch; it may be claimed again, here too."""
        if (run := self._at(execution_id, epoch)) is not None:
            run.stop()
            self._driver.forget(run)
        self._context.work.poke()

    def _at(self, execution_id: UUID, epoch: int) -> Run | None:
        run = self._runs.get(execution_id)
        return run if run is not None and run.execution.epoch == epoch else None

    async def reclaim(self) -> None:
        """Drop what others took over while this process was cut off from the store. Raises UnavailableError."""
        self.ownership.generation += 1
        # Also what has a write on its way: that may have been committed before the others came.
        driven = list(self._runs.all)
        owned = frozenset(await self._context.journal.undriven(self.incarnation, []))
        for run in driven:
            if run.id not in owned and not run.is_closing:
                self._driver.lost(run, CommitResult.FENCED)

    async def hand_over(self) -> None:
        """Take nothing more, stop all runs where they are and give their executions back; what was recorded stays.

        What has come to rest does not wait for what has not.
        """
        if self.ownership.is_stopping:
            return
        self.ownership.is_stopping = True
        tasks, grace = self._context.tasks, self._context.settings.cancel_grace
        resting = {tasks.spawn(_rest(run), f"rest {run.id}"): run.id for run in self._runs.remove_all()}
        if resting:
            done, _ = await asyncio.wait(resting, timeout=min(HAND_OVER, grace))
            await self._give_back([resting[task] for task in done])
            # Not for as long as the database may be away.
            await asyncio.wait(resting, timeout=grace)
        await self._give_back()

    async def _give_back(self, execution_ids: Sequence[UUID] | None = None) -> None:
        try:
            await self._context.journal.release(self.incarnation, execution_ids)
        except UnavailableError:
            log.warning("executions were not given back; they are taken over when the lease ends")


async def _rest(run: Run) -> None:
    """Stop a run; return when nothing of it goes on, and what has ended of it is in the store."""
    attempts = run.stop()
    await run.record_ends()
    if attempts:
        await asyncio.wait(attempts)
        await run.record_ends()
    await run.settled()
