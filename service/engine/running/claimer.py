"""Takes executions that nobody drives, in the order that the store gives them, while there is room."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import structlog

from persistence.errors import PersistenceError, UnavailableError
from persistence.model import ExecutionDetail
from service.engine.running.active_runs import ActiveRuns
from service.engine.running.context import Context
from service.engine.running.ownership import Look
from service.engine.running.quarantine import Quarantine

log = structlog.get_logger(__name__)

SKEW = timedelta(seconds=0.05)
"""By how much the store's time and what a process takes for it may differ at a look for a timer that is due."""

SOON = 0.02
"""Seconds before the next look for such a timer, at least."""

LATE = timedelta(seconds=0.5)
"""Time after which a parked timer should have been seen to by whoever knew of it."""


class Claimer:
    """Claims executions, batch by batch, and hands each to `adopt`."""

    def __init__(
        self,
        context: Context,
        runs: ActiveRuns,
        quarantine: Quarantine,
        adopt: Callable[[ExecutionDetail, Look], Awaitable[None]],
    ) -> None:
        self._context = context
        self._journal, self._ownership, self._settings = context.journal, context.ownership, context.settings
        self._runs = runs
        self._quarantine = quarantine
        self._adopt = adopt
        self._wake: datetime | None = None
        """When the next parked timer is due, as the store said."""
        self._looked: datetime | None = None
        """When the last claim began."""
        self._ask_again = 0.0
        self._taken: Counter[str] = Counter()
        """What the claims of a round have taken, of all that something should have told of."""
        self._rests_until = 0.0
        self._batch = self._settings.claim_batch
        """How many are claimed at a time: fewer after a failure, of which too much at a time may be the reason."""

    def rest(self, seconds: float) -> None:
        """Claim nothing for so long: others that were cut off too get the chance to renew what seems left behind."""
        self._rests_until = asyncio.get_running_loop().time() + seconds

    async def keep(self) -> None:
        """Claim until cancelled."""
        # What is there at the start was left by others, as is what comes while nothing can be claimed.
        is_told = True
        while True:
            self._taken.clear()
            told_since = self._context.work.since()
            await asyncio.sleep(max(0.0, self._rests_until - asyncio.get_running_loop().time()))
            try:
                while await self._claim(min(self._runs.room, self._batch)):
                    self._batch = min(2 * self._batch, self._settings.claim_batch)
                if not is_told:
                    for what, count in self._taken.items():
                        self._context.finds.note(what, count, told_since)
                pause, is_planned = await self._pause()
            except PersistenceError as error:
                log.warning("claim failed", error=str(error), batch=self._batch)
                is_told = True
                self._take_less()
            except Exception as error:  # of ours, which one of them may have met with
                log.error("claim failed", exc_info=error, batch=self._batch)
                is_told = True
                self._take_less()
            else:
                is_told = await self._context.work.wait(pause) or is_planned

    def _take_less(self) -> None:
        self._batch = max(1, self._batch // 2)
        self.rest(self._context.interval())

    async def _pause(self) -> tuple[float, bool]:
        """Return the seconds until the next look, and whether that is when a parked timer is due."""
        now, interval = asyncio.get_running_loop().time(), self._context.interval()
        if self._runs.room and now >= self._ask_again:  # however often it is poked
            self._ask_again = now + interval / 2
            self._wake = await self._journal.next_wake_time()
        if self._wake is None or (self._looked is not None and self._wake <= self._looked - SKEW):
            return interval, False  # it was due at the last look, which had no place for it
        delay = max(SOON, (self._wake - self._context.now()).total_seconds())
        return (delay, True) if delay < interval else (interval, False)

    async def _claim(self, limit: int) -> bool:
        """Claim once. True when there may be more to claim."""
        runs, shares = self._runs, self._runs.shares
        suspects = self._quarantine.room(runs.all) if self._ownership.may_take else 0
        # A claim may bring executions of any org: it asks for no more than the org with the least room may take.
        rooms = {org: shares.room(org) for org in shares.orgs} if limit else {}
        sated = sorted({org for org, room in rooms.items() if not room}.union(runs.full))
        limit = min(limit, shares.room(""), *(room for room in rooms.values() if room))
        runs.is_short = not limit or bool(sated)
        self._looked = self._context.now()
        if not (limit or (suspects and self._quarantine.is_exclusive)):
            return False
        with runs.claiming(limit), runs.looking() as look:
            taken = await self._journal.claim(
                self._ownership.incarnation,
                limit,
                suspects=suspects,
                without=sated,
                handlers=[*self._context.registry.claimable(), *await self._context.wishes.met()],
            )
            self._taken.update(filter(None, (_reason(detail, self._context.clock.latest()) for detail in taken)))
            runs.announce(detail.execution.id for detail in taken)
            self._quarantine.conclude(runs.all)
            for left, detail in zip(range(len(taken), 0, -1), taken, strict=True):
                runs.claimed(left)
                await self._take(detail, look)
        return 0 < limit <= len(taken)

    async def _take(self, detail: ExecutionDetail, look: Look) -> None:
        execution = detail.execution
        try:
            if self._quarantine.defers(execution, self._runs.all):
                # Given up again until its trial can begin here.
                await self._journal.release(self._ownership.incarnation, [execution.id])
                self._context.work.poke_after(self._settings.probation)
            else:
                await self._adopt(detail, look)
        except UnavailableError as error:  # a sweep finds it again
            log.warning("execution not taken up yet", execution_id=str(execution.id), error=str(error))
        except Exception as error:  # the others go on, whatever is wrong with this one
            log.error("execution not taken up", execution_id=str(execution.id), exc_info=error)
        finally:
            self._runs.arrived(execution.id)


def _reason(detail: ExecutionDetail, now: datetime) -> str | None:
    """Return what should have told of an execution that was claimed, by its name among the finds; None: nothing.

    Nothing tells of the death of an owner, nor others of a timer that has only just come.
    """
    execution = detail.execution
    if execution.deaths:
        return None
    times = [execution.deadline_time, *(step.wait.wake_time for step in detail.steps if step.wait)]
    if execution.start_time is None:
        times = [execution.scheduled_time]
    due = min((time for time in times if time is not None and time <= now), default=None)
    if due is None:
        return "executions to claim"
    return "timers" if now - due > LATE else None
