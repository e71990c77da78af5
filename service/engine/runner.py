"""Drives executions: takes them, hands happenings to their runs, and gives them back."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

import structlog

from persistence import failpoints
from persistence.errors import NotFoundError, PersistenceError, UnavailableError
from persistence.model import CommitResult, Event, Execution, ExecutionDetail, News, Transition
from persistence.repository import Repository
from service.engine import events, happenings
from service.engine.clock import StoreClock
from service.engine.definition import Definition
from service.engine.effects import CancelAttempt
from service.engine.failure import INTERNAL, Failure
from service.engine.handlers.registry import Registry
from service.engine.planner import Plan
from service.engine.probation import Probation
from service.engine.run import Run
from service.engine.state import restore
from service.engine.tasks import TaskRegistry
from service.engine.violations import ValidationError
from service.engine.waiting import flagged, within
from service.engine.watch import WatchHub

log = structlog.get_logger(__name__)

REAP_BATCH = 500

Encoder = Callable[[events.Event], Event]


class Definitions(Protocol):
    """Where the definition that an execution runs comes from."""

    async def of(self, execution: Execution) -> Definition:
        """Return it. Raises NotFoundError."""
        ...


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """How a process takes and keeps executions; times in seconds.

    `cancel_grace` is how long an attempt that was told to stop may take before it counts as stopped. `probation` is how
    long a process must have driven an execution for its predecessors' deaths to count no more against it.
    """

    max_running: int = 2_000
    park_after: float = 10.0
    claim_interval: float = 1.0
    claim_batch: int = 100
    cancel_grace: float = 5.0
    progress_interval: float = 0.25
    probation: float = 10.0
    reap_interval: float = 5.0


class Runner:
    """All executions that this process drives."""

    def __init__(
        self,
        repository: Repository,
        definitions: Definitions,
        registry: Registry,
        hub: WatchHub,
        encode: Encoder,
        incarnation: UUID,
        settings: RunnerSettings,
        clock: StoreClock,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.journal = repository
        self.definitions = definitions
        self.registry = registry
        self.hub = hub
        self.incarnation = incarnation
        self.settings = settings
        self.now = clock.now
        self._monotonic = clock.monotonic
        self.draw = draw
        self.tasks = TaskRegistry()
        self.runs: dict[UUID, Run] = {}
        self._encode = encode
        self._poked = asyncio.Event()
        self._asked = asyncio.Event()
        self._left_something = asyncio.Event()
        self._is_stopping = False
        self._is_fenced = False
        self._held_until = math.inf
        # Owned but not driven at the last sweep; and those that a task is finding out about.
        self._missed: set[UUID] = set()
        self._reconciling: set[UUID] = set()
        self._probation = Probation(settings.probation)

    # --- life cycle

    def start(self) -> None:
        """Begin to claim executions, first of all those that a dead process left."""
        self.tasks.keep(self._claim_loop, "claim loop")
        self.tasks.keep(self._sweep_loop, "sweep loop")
        self.tasks.keep(self._reap_loop, "reap loop")
        self.tasks.keep(self._listen_loop, "listen loop")

    async def stop(self) -> None:
        """Stop all runs where they are and give their executions back; what was recorded stays."""
        self._is_stopping = True
        runs = list(self.runs.values())
        for run in runs:
            run.stop()
        self.runs.clear()
        await self.tasks.cancel_all(self.settings.cancel_grace)
        # Not for as long as the database may be away.
        await within(self.settings.cancel_grace, asyncio.gather(*(run.settled() for run in runs)))
        try:
            await self.journal.release(self.incarnation)
        except UnavailableError:
            log.warning("executions were not given back; they are taken over when the lease ends")

    def hold_until(self, moment: float) -> None:
        """Begin nothing after this monotonic time, unless it is moved: then others may drive what is driven here."""
        self._held_until = moment

    @property
    def may_begin(self) -> bool:
        """Whether the lease lets this process begin an attempt at this moment."""
        return not self._is_fenced and self._monotonic() < self._held_until

    def fence(self) -> None:
        """Drop every run and start nothing more, because the lease is lost or may be."""
        self._is_fenced = True
        runs, self.runs = list(self.runs.values()), {}
        self._probation = Probation(self.settings.probation)
        for run in runs:
            run.stop()

    def resume(self, incarnation: UUID) -> None:
        """Go on under another incarnation, which has a lease."""
        self.incarnation = incarnation
        self._is_fenced = False
        self.poke()

    # --- taking

    @property
    def room(self) -> int:
        """How many more executions this process takes."""
        if not self._may_take or self._probation.is_exclusive:
            return 0
        return max(0, self.settings.max_running - len(self.runs))

    @property
    def _may_take(self) -> bool:
        return self.may_begin and not self._is_stopping

    def encode_all(self, recorded: Sequence[events.Event]) -> list[Event]:
        """Return the events as they are stored and sent."""
        return [self._encode(event) for event in recorded]

    def keep(self, execution: Execution, definition: Definition, plan: Plan) -> None:
        """Drive an execution that was just created with this process as its owner."""
        if self._is_stopping or execution.incarnation != self.incarnation or execution.id in self.runs:
            return
        run = Run(self, execution, self.incarnation, definition, plan.state)
        self.runs[execution.id] = run
        run.begin(plan)

    def look_for(self, execution_id: UUID) -> None:
        """Drive an execution if it exists and this process owns it: what became of its creation is unknown."""
        if not self._is_stopping:
            self.tasks.spawn(self._reconcile(execution_id), f"look for {execution_id}")

    def poke(self) -> None:
        """Look for executions to claim now."""
        self._poked.set()

    def poke_at(self, moment: datetime) -> None:
        """Look for executions to claim at a moment, if it comes before the next regular look or soon after."""
        delay = (moment - self.now()).total_seconds()
        if delay <= 60 * self.settings.claim_interval:
            asyncio.get_running_loop().call_later(max(0.0, delay), self.poke)

    async def deliver_cancel(self, execution: Execution) -> None:
        """Let a kept cancel request take effect here, if this process owns the execution or nobody does."""
        if (run := self.runs.get(execution.id)) is not None:
            if execution.cancel is not None:
                run.apply(happenings.CancelAsked(self.now(), execution.cancel))
            await within(1.0, run.settled())
        if execution.id not in self.runs and not self._is_stopping:
            try:
                detail = await self.journal.claim_one(self.incarnation, execution.org, execution.id)
                if detail is not None:
                    await self._adopt(detail)
            except UnavailableError as error:  # the wish is kept, and whoever takes the execution sees it
                log.warning("cancel not carried out yet", execution_id=str(execution.id), error=str(error))
        if (run := self.runs.get(execution.id)) is not None:
            await within(1.0, run.settled())
            await within(1.0, run.closed.wait())

    async def clear_away(self, workflow_id: UUID) -> None:
        """Let the cancel requests that a deleted workflow left take effect here, and remove what has ended."""
        if any(run.execution.workflow_id == workflow_id for run in self.runs.values()):
            await self._sweep()
        self.poke()
        self._left_something.set()

    async def _listen_loop(self) -> None:
        while True:
            try:
                await self.journal.listen(self._hear)
            except PersistenceError as error:
                log.warning("not listening", error=str(error))
            await asyncio.sleep(self._interval())

    def _hear(self, news: News) -> None:
        """Look where another process did something; whatever it is, the store says it."""
        if news.executions is None:
            self.hub.wake_all()
        else:
            self.hub.wake(news.executions)
        if news.has_work:
            self.poke()
        if news.has_cancel and (news.executions is None or not self.runs.keys().isdisjoint(news.executions)):
            self._asked.set()

    def _interval(self) -> float:
        return self.settings.claim_interval * (0.7 + 0.6 * self.draw())

    async def _sweep_loop(self) -> None:
        while True:
            await flagged(self._asked, self._interval())
            try:
                await self._sweep()
            except PersistenceError as error:
                log.warning("sweep failed", error=str(error))

    async def _sweep(self) -> None:
        """Heed cancel requests that came by another process, and take up what this one owns without driving it."""
        strays = await self.journal.strays(self.incarnation, list(self.runs))
        missed = {stray.id for stray in strays} - self.runs.keys() - self._reconciling
        for stray in strays:
            if (run := self.runs.get(stray.id)) is not None:
                if stray.cancel is not None:
                    run.apply(happenings.CancelAsked(self.now(), stray.cancel))
            # Missed once may mean that its creation is just being answered.
            elif stray.id in missed & self._missed:
                self.look_for(stray.id)
        self._missed = missed

    async def _claim_loop(self) -> None:
        while True:
            try:
                while await self._claim(min(self.room, self.settings.claim_batch)):
                    pass
            except PersistenceError as error:
                log.warning("claim failed", error=str(error))
            await flagged(self._poked, self._interval())

    async def _reap_loop(self) -> None:
        """Remove what deleted workflows left, batch by batch."""
        while True:
            try:
                removed = await self.journal.reap(REAP_BATCH)
                if removed:
                    await failpoints.reach("purge.between_batches")
            except PersistenceError as error:
                removed = 0
                log.warning("reaping failed", error=str(error))
            if removed < REAP_BATCH:
                await flagged(self._left_something, self.settings.reap_interval)

    async def _claim(self, limit: int) -> bool:
        """Claim once. True when there may be more to claim."""
        suspects = self._probation.room(self.runs.values()) if self._may_take else 0
        if not (limit or (suspects and self._probation.is_exclusive)):
            return False
        taken = await self.journal.claim(self.incarnation, limit, suspects=suspects)
        self._probation.conclude(self.runs.values())
        for detail in taken:
            try:
                if self._probation.defers(detail.execution, self.runs.values()):
                    await self.journal.release(self.incarnation, [detail.execution.id])
                    asyncio.get_running_loop().call_later(self.settings.probation, self.poke)
                else:
                    await self._adopt(detail)
            except UnavailableError as error:  # a sweep finds it again
                log.warning("execution not taken up yet", execution_id=str(detail.execution.id), error=str(error))
            except Exception as error:  # the others go on, whatever is wrong with this one
                log.error("execution not taken up", execution_id=str(detail.execution.id), exc_info=error)
        return 0 < limit <= len(taken)

    async def _adopt(self, detail: ExecutionDetail, verdict: Failure | None = None) -> None:
        """Go on with an execution from what was recorded, or end it by a verdict."""
        execution = detail.execution
        if execution.id in self.runs or execution.incarnation != self.incarnation:
            return
        try:
            definition = await self.definitions.of(execution)
        except (NotFoundError, ValidationError) as error:
            log.error("execution without definition", execution_id=str(execution.id), error=str(error))
            definition = Definition(execution.workflow_name, (), execution.timeout)
            verdict = verdict or Failure(INTERNAL, "the definition that the execution runs can no longer be read")
        if execution.id in self.runs:
            return
        run = Run(self, execution, self.incarnation, definition, restore(definition, detail))
        self.runs[execution.id] = run
        verdict = verdict or self._probation.admit(run)
        if execution.cancel is not None and run.state.cancel is None:
            run.apply(happenings.CancelAsked(self.now(), execution.cancel))
        if verdict is None:
            run.apply(happenings.Recovered(self.now()))
            failpoints.hit("timer.after_due_select")
            run.apply(happenings.TimerFired(self.now()))
            run.inherit()
            run.resume_timer()
        else:
            run.apply(happenings.Condemned(self.now(), verdict))

    # --- what runs report

    def cleared(self, run: Run) -> None:
        """Take an execution off probation."""
        if self._probation.discharge(run):
            self.poke()

    def finished(self, run: Run, transition: Transition) -> None:
        """Forget a run that ended or was parked."""
        self._forget(run)
        if transition.state.is_end:
            log.info("execution finished", execution_id=str(run.id), state=transition.state.value)
        if transition.wake_time is not None:
            self.poke_at(transition.wake_time)
        if transition.state.is_end and len(self.runs) + 1 >= self.settings.max_running:
            self.poke()  # a place is free

    def lost(self, run: Run, result: CommitResult) -> None:
        """Stop a run whose write was not accepted, and find out where its execution stands."""
        log.warning("transition not committed", execution_id=str(run.id), result=result.value)
        attempts = run.stop()
        self._forget(run)
        if not self._is_stopping:
            self.tasks.spawn(self._reconcile(run.id, attempts), f"reconcile {run.id}")

    def broken(self, run: Run, error: BaseException) -> None:
        """Stop a run that can neither go on nor be stored, and end its execution as failed."""
        log.error("execution cannot go on", execution_id=str(run.id), exc_info=error)
        attempts = run.stop()
        self._forget(run)
        failure = None
        if not isinstance(error, UnavailableError):
            failure = Failure(INTERNAL, "the server could not go on with the execution; its log says why")
        if not self._is_stopping:
            self.tasks.spawn(self._reconcile(run.id, attempts, failure), f"reconcile {run.id}")

    def expect_stop(self, run: Run, effect: CancelAttempt) -> None:
        """Take an attempt as stopped when it has not answered within the grace: a thread cannot be stopped."""
        stopped = happenings.StepStopped
        asyncio.get_running_loop().call_later(
            self.settings.cancel_grace, lambda: run.apply(stopped(self.now(), effect.path, effect.attempt))
        )

    def _forget(self, run: Run) -> None:
        if self.runs.get(run.id) is run:
            del self.runs[run.id]
        self.cleared(run)

    async def _reconcile(
        self, execution_id: UUID, attempts: Sequence[asyncio.Task[None]] = (), verdict: Failure | None = None
    ) -> None:
        self._reconciling.add(execution_id)
        try:
            if attempts:
                await asyncio.wait(attempts, timeout=self.settings.cancel_grace)
            detail = await self._load(execution_id)
            if detail is not None:
                await self._adopt(detail, verdict)
        except UnavailableError as error:  # a sweep finds it again
            log.warning("execution not taken up yet", execution_id=str(execution_id), error=str(error))
        finally:
            self._reconciling.discard(execution_id)

    async def _load(self, execution_id: UUID) -> ExecutionDetail | None:
        """Return the execution if it is still ours, asking until the store answers."""
        pause = 0.05
        while True:
            try:
                return await self.journal.load(self.incarnation, execution_id)
            except UnavailableError:
                await asyncio.sleep(pause * (0.5 + self.draw()))
                pause = min(2 * pause, 1.0)
