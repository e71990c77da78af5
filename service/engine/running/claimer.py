"""Takes executions that nobody drives, in the order that the store gives them, while there is room."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog

from persistence.errors import PersistenceError, UnavailableError
from persistence.model import Execution, ExecutionDetail
from persistence.shares import Shares
from service.engine.failure import Failure
from service.engine.running.quarantine import Quarantine
from service.engine.waiting import flagged

if TYPE_CHECKING:
    from service.engine.running.run import Run
    from service.engine.running.runner import Runner

log = structlog.get_logger(__name__)


class Claimer:
    """Claims executions for a runner, batch by batch."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._settings = runner.settings
        self._poked = asyncio.Event()
        self.coming: set[UUID] = set()
        """Executions that are being created with this process as their owner; none else may take them up."""
        self.shares = Shares(self._settings.max_running)
        """Who has how many of the executions that run or are coming."""
        self._places = 0
        """How many executions a claim on its way may still bring."""
        self._is_held_back = False
        """Whether there may be executions that the last claim had no place for."""
        self._wake: datetime | None = None
        self._ask_again = 0.0
        self._rests_until = 0.0
        self._quarantine = Quarantine(self._settings.probation)
        self._batch = self._settings.claim_batch
        """How many are claimed at a time: fewer after a failure, of which too much at a time may be the reason."""

    @property
    def room(self) -> int:
        """How many more executions the process takes."""
        if not self._runner.may_take or self._quarantine.is_exclusive:
            return 0
        taken = self.shares.held + len(self._runner.stuck) + self._places
        return max(0, self._settings.max_running - taken)

    def has_place(self, org: str, owner: str) -> bool:
        """Whether the process takes one more execution of an owner, rather than leave it to whoever claims it."""
        if self._runner.definitions.held.is_full(org):
            return False
        return self.room > 0 and self.shares.has_place(org, owner, aside=self._places)

    def expect(self, execution: Execution, creation: asyncio.Future[Any]) -> None:
        """Keep a place for an execution that is being created with this process as its owner."""

        def has_come(_: object) -> None:
            self.coming.discard(execution.id)
            self.shares.give_back(execution.org, execution.owner)

        self.coming.add(execution.id)
        self.shares.take(execution.org, execution.owner)
        creation.add_done_callback(has_come)

    def freed(self) -> None:
        """Take note that an execution has ended: what waited for its place may be claimed."""
        if self._is_held_back:
            self.poke()

    def poke(self) -> None:
        """Look for executions to claim now."""
        self._poked.set()

    def poke_at(self, moment: datetime) -> None:
        """Look for executions to claim at a moment, if it comes before the next regular look or soon after."""
        delay = (moment - self._runner.now()).total_seconds()
        if delay <= 60 * self._settings.claim_interval:
            asyncio.get_running_loop().call_later(max(0.0, delay), self.poke)

    def admit(self, run: Run) -> Failure | None:
        """Watch over a run that begins; return why it must not go on, if it must not."""
        return self._quarantine.admit(run)

    def discharge(self, run: Run) -> None:
        """Watch over a run no longer."""
        if self._quarantine.discharge(run):
            self.poke()

    def begin_anew(self) -> None:
        """Forget what was watched over, because the process drops it all."""
        self._quarantine = Quarantine(self._settings.probation)

    def rest(self, seconds: float) -> None:
        """Claim nothing for so long: others that were cut off too get the chance to renew what seems left behind."""
        self._rests_until = asyncio.get_running_loop().time() + seconds

    async def keep(self) -> None:
        """Claim until cancelled."""
        while True:
            await asyncio.sleep(max(0.0, self._rests_until - asyncio.get_running_loop().time()))
            try:
                while await self._claim(min(self.room, self._batch)):
                    self._batch = min(2 * self._batch, self._settings.claim_batch)
                pause = await self._pause()
            except PersistenceError as error:
                log.warning("claim failed", error=str(error), batch=self._batch)
                self._take_less()
            except Exception as error:  # of ours, which one of them may have met with
                log.error("claim failed", exc_info=error, batch=self._batch)
                self._take_less()
            else:
                await flagged(self._poked, pause)

    def _take_less(self) -> None:
        self._batch = max(1, self._batch // 2)
        self.rest(self._runner.interval())

    async def _pause(self) -> float:
        """Return the seconds until the next look: a parked timer that is due before it is not to wait for it."""
        now, interval = asyncio.get_running_loop().time(), self._runner.interval()
        if self.room and now >= self._ask_again:  # however often it is poked
            self._ask_again = now + interval / 2
            self._wake = await self._runner.journal.next_wake_time()
        delay = interval if self._wake is None else (self._wake - self._runner.now()).total_seconds()
        return delay if 0 < delay < interval else interval

    async def _claim(self, limit: int) -> bool:
        """Claim once. True when there may be more to claim."""
        runs, journal = self._runner.runs.values(), self._runner.journal
        suspects = self._quarantine.room(runs) if self._runner.may_take else 0
        # No more than any org may take by its share: nobody knows whose those are that a claim brings.
        rooms = {org: self.shares.room(org) for org in self.shares.orgs} if limit else {}
        sated = sorted({org for org, room in rooms.items() if not room}.union(self._runner.definitions.held.full))
        limit = min(limit, self.shares.room(""), *(room for room in rooms.values() if room))
        self._is_held_back = not limit or bool(sated)
        if not (limit or (suspects and self._quarantine.is_exclusive)):
            return False
        self._places = limit
        try:
            taken = await journal.claim(self._runner.incarnation, limit, suspects=suspects, without=sated)
            self._quarantine.conclude(runs)
            self._places = len(taken)
            for detail in taken:
                await self._take(detail)
                self._places -= 1
        finally:
            self._places = 0
        return 0 < limit <= len(taken)

    async def _take(self, detail: ExecutionDetail) -> None:
        execution = detail.execution
        try:
            if self._quarantine.defers(execution, self._runner.runs.values()):
                await self._defer(execution)
            else:
                await self._runner.adopt(detail)
        except UnavailableError as error:  # a sweep finds it again
            log.warning("execution not taken up yet", execution_id=str(execution.id), error=str(error))
        except Exception as error:  # the others go on, whatever is wrong with this one
            log.error("execution not taken up", execution_id=str(execution.id), exc_info=error)

    async def _defer(self, execution: Execution) -> None:
        await self._runner.journal.release(self._runner.incarnation, [execution.id])
        asyncio.get_running_loop().call_later(self._settings.probation, self.poke)
