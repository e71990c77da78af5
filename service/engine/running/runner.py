"""Wires what drives executions, and offers what use cases ask of it."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

import structlog

from persistence.errors import UnavailableError
from persistence.model import Mail, Posted
from persistence.repository import Repository
from persistence.transition import Created, NewExecution
from service.engine.clock import StoreClock
from service.engine.definition import Definition
from service.engine.handlers.registry import Registry
from service.engine.planning.planner import Plan
from service.engine.running.active_runs import ActiveRuns
from service.engine.running.claimer import Claimer
from service.engine.running.context import Context, Encoder, RunnerSettings
from service.engine.running.driver import Definitions, Driver
from service.engine.running.listener import Listener
from service.engine.running.ownership import Ownership
from service.engine.running.quarantine import Quarantine
from service.engine.running.reaper import Reaper
from service.engine.running.run import Run
from service.engine.running.stuck_attempts import StuckAttempts
from service.engine.running.sweeper import Sweeper
from service.engine.running.tenure import Tenure
from service.engine.running.wakeups import Wakeup
from service.engine.secrets import Secrets
from service.engine.tasks import TaskRegistry
from service.engine.turns import Turns
from service.engine.waiting import within
from service.engine.watch import WatchHub
from service.engine.workers.awaited import AwaitedWishes
from service.engine.workers.pool import Workers

log = structlog.get_logger(__name__)

EFFECT = 1.0
"""Seconds that a caller waits at most for each part of what was sent to take effect; then the answer says so far."""


_AT_ONCE = 10
"""Executions that are told something in one turn of the loop."""


class Runner:
    """All that drives executions in this process. The lease is kept for its `tenure`."""

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
        name: str = "",
        secrets: Secrets | None = None,
        workers: Workers | None = None,
    ) -> None:
        work, mail, workers = Wakeup(), Wakeup(), workers or Workers()
        self.ownership = Ownership(incarnation, clock.monotonic)
        self.tasks, self.turns = TaskRegistry(), Turns()
        self.context = context = Context(
            repository,
            registry,
            secrets or Secrets(),
            hub,
            encode,
            self.ownership,
            settings,
            clock,
            draw,
            name,
            self.tasks,
            self.turns,
            work,
            mail,
            StuckAttempts(work.poke),
            contextvars.copy_context(),
            workers,
            AwaitedWishes(repository, workers),
        )
        quarantine = Quarantine(settings.probation)
        self.runs = runs = ActiveRuns(context, quarantine, definitions.held)
        self._driver = driver = Driver(context, runs, quarantine, definitions)
        context.workers.came = driver.workers_came
        self._claimer = Claimer(context, runs, quarantine, driver.adopt)
        self._sweeper = Sweeper(context, runs, driver)
        self._reaper = Reaper(repository, settings.reap_interval)
        self._listener = Listener(context, runs)
        self.tenure = Tenure(context, runs, quarantine, driver, self._claimer.rest)

    # --- life cycle

    def start(self) -> None:
        """Begin to claim executions, first of all those that a dead process left."""
        self.tasks.keep(self._claimer.keep, "claim loop")
        self.tasks.keep(self._sweeper.keep, "sweep loop")
        self.tasks.keep(self._reaper.keep, "reap loop")
        self.tasks.keep(self._listener.keep, "listen loop")

    async def hand_over(self) -> None:
        """Take nothing more, and give back what is driven; see Tenure."""
        await self.tenure.hand_over()

    async def stop(self) -> None:
        """Hand over what is driven and end every task."""
        await self.hand_over()
        await self.tasks.cancel_all(self.context.settings.cancel_grace)

    # --- what use cases ask for

    @property
    def name(self) -> str:
        """What people know this process by."""
        return self.context.name

    @property
    def incarnation(self) -> UUID:
        """The incarnation that this process drives executions under."""
        return self.ownership.incarnation

    def now(self) -> datetime:
        """Return the store's time."""
        return self.context.now()

    def has_place(self, org: str, owner: str) -> bool:
        """Whether this process takes one more execution of an owner, rather than leave it to whoever claims it."""
        return self.runs.has_place(org, owner)

    def create(self, new: NewExecution, definition: Definition, plan: Plan) -> asyncio.Future[Created]:
        """Hand a new execution to the store, and drive it if this process is its owner; the future is the store's.

        What was kept is driven, also when nobody waits for the future any more.
        """
        future, generation = self.context.journal.create(new), self.ownership.generation
        future.add_done_callback(lambda kept: self._created(kept, new, definition, plan, generation))
        if new.execution.incarnation is not None:
            self.runs.expect(new.execution, future)
        return future

    def _created(
        self, kept: asyncio.Future[Created], new: NewExecution, definition: Definition, plan: Plan, generation: int
    ) -> None:
        execution = new.execution
        if kept.cancelled() or isinstance(kept.exception(), UnavailableError):
            # It may have been kept, with this process as its owner.
            self._driver.recovery.look_for(execution.id)
            return
        if kept.exception() is not None or not kept.result().created:
            return
        row = kept.result().execution
        if row.held_back:
            self.context.hub.publish(execution.id, new.held_back().events)  # the resume of its workflow wakes it
        elif (row.incarnation, row.epoch) != (execution.incarnation, execution.epoch):
            # It was held back, and its workflow resumed, before that was known here; this process may have it anew.
            self._driver.recovery.look_for(execution.id)
        else:
            self.context.hub.publish(execution.id, new.events)
            if new.tasks:
                self.context.hub.people.tell()
            if execution.incarnation is not None:
                self._driver.keep(execution, definition, plan, generation)
            elif execution.wake_time is not None:
                self._driver.look_at(execution.wake_time)  # others are told by the store, if they are to take it now

    def run_of(self, execution_id: UUID) -> Run | None:
        """Return the run of an execution that is driven here."""
        return self.runs.get(execution_id)

    async def hand_in(self, posted: Posted, *, to_the_end: bool = True) -> None:
        """Let what was sent to an execution take effect here, if this process owns the execution or nobody does.

        `to_the_end`: it is meant to end it, which is waited for a little.
        """
        runs, execution = self.runs, posted.execution
        # A look may have found it between its commit and now.
        self.context.mail.tell()
        self.context.work.tell()
        if posted.message is not None:
            await self._deliver([Mail(execution.id, execution.epoch, (posted.message,), execution.mail)])
        if (run := runs.get(execution.id)) is not None:
            await within(EFFECT, run.settled())
        if execution.id not in runs and self.ownership.may_take:
            try:
                with runs.looking() as look:
                    detail = await self.context.journal.claim_one(self.incarnation, execution.org, execution.id)
                    self.context.work.tell()  # a look may have been quicker than this call
                    if detail is not None:
                        await self._driver.adopt(detail, look)
            except UnavailableError as error:  # the message is kept, and whoever takes the execution sees it
                log.warning("message not seen yet", execution_id=str(execution.id), error=str(error))
        if (run := runs.get(execution.id)) is not None:
            await within(EFFECT, run.settled())
            if to_the_end:
                await within(EFFECT, run.closed.wait())

    async def _sweep(self) -> None:
        try:
            await self._sweeper.sweep()
        except UnavailableError as error:  # what was sent is kept, and comes with a later look
            log.warning("messages not seen yet", error=str(error))

    async def hand_in_all(self, mail: Sequence[Mail], unowned: int) -> None:
        """Let take effect here what many executions were sent, of which so many have no owner; waits for none."""
        self.context.mail.tell()
        await self._deliver(mail)
        if unowned:
            self.context.work.poke()

    async def _deliver(self, mail: Sequence[Mail]) -> None:
        """Give the runs of this process what they were sent; what was sent to one before it comes first."""
        lacking = False
        for start in range(0, len(mail), _AT_ONCE):
            if start:
                await asyncio.sleep(0)
            for each in mail[start : start + _AT_ONCE]:
                if self.runs.lacks(each):
                    lacking = True
                else:
                    self.runs.deliver(each)
        if lacking:
            await self._sweep()

    async def take_up(self, workflow_id: UUID) -> None:
        """Let take effect here what all executions of a workflow were sent, and what of them may start."""
        if any(run.execution.workflow_id == workflow_id for run in self.runs.all):
            await self._sweeper.sweep()
        self.context.work.poke()

    async def clear_away(self, workflow_id: UUID) -> None:
        """Let the messages that the deletion of a workflow left take effect here, and remove what has ended."""
        await self.take_up(workflow_id)
        self._reaper.leftovers.poke()
