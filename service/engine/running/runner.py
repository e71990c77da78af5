"""Drives executions: takes them, hands happenings to their runs, and gives them back."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import structlog

from persistence import failpoints
from persistence.errors import NotFoundError, PersistenceError, UnavailableError, UnreadableError
from persistence.model import Event, Execution, ExecutionDetail, ExecutionState
from persistence.repository import Repository
from persistence.transition import CommitResult, Transition
from service.engine.clock import StoreClock
from service.engine.definition import Definition
from service.engine.failure import INTERNAL, UNREADABLE_RECORD, Failure
from service.engine.handlers.registry import Registry
from service.engine.held import Held
from service.engine.planning import events, happenings
from service.engine.planning.outline import outline
from service.engine.planning.planner import Plan
from service.engine.planning.state import State, restore
from service.engine.running.claimer import Claimer
from service.engine.running.recovery import Recovery
from service.engine.running.run import Run
from service.engine.running.soundness import contradictions, ending, unreadable
from service.engine.running.stuck_attempts import StuckAttempts
from service.engine.running.sweeper import Sweeper
from service.engine.tasks import TaskRegistry
from service.engine.turns import Turns
from service.engine.waiting import within
from service.engine.watch import WatchHub

log = structlog.get_logger(__name__)

HAND_OVER = 0.5
"""Seconds that executions get to come to rest before those that have are given back; the others get the whole grace."""

_MISTAKE = Failure(INTERNAL, "the server could not go on with the execution; its log says why")

Encoder = Callable[[events.Event], Event]


class Definitions(Protocol):
    """Where the definition that an execution runs comes from. `held` counts those that are in use."""

    held: Held

    async def of(self, execution: Execution) -> Definition:
        """Return it. Raises NotFoundError, UnreadableError."""
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
        name: str = "",
    ) -> None:
        self.journal = repository
        self.definitions = definitions
        self.registry = registry
        self.hub = hub
        self.incarnation = incarnation
        self.settings = settings
        self.now = clock.now
        self.latest = clock.latest
        self.monotonic = clock.monotonic
        self.draw = draw
        self.name = name
        self.tasks = TaskRegistry()
        self.turns = Turns()
        self.runs: dict[UUID, Run] = {}
        self.is_stopping = False
        self.lapses = 0
        """How often the lease had run out and was taken up again: who was an owner before may be none since."""
        self._encode = encode
        # Another thread may set these two.
        self.is_fenced = False
        self.held_until = math.inf
        self._renewed = asyncio.Event()
        self.claimer = Claimer(self)
        self.recovery = Recovery(self)
        self.stuck = StuckAttempts(self.claimer.poke)
        self._sweeper = Sweeper(self)

    # --- life cycle

    def start(self) -> None:
        """Begin to claim executions, first of all those that a dead process left."""
        self.tasks.keep(self.claimer.keep, "claim loop")
        self._sweeper.begin()

    async def hand_over(self) -> None:
        """Take nothing more, stop all runs where they are and give their executions back; what was recorded stays.

        What has come to rest does not wait for what has not.
        """
        if self.is_stopping:
            return
        self.is_stopping = True
        runs = self._let_go()
        resting = {self.tasks.spawn(_rest(run), f"rest {run.id}"): run.id for run in runs}
        if resting:
            done, _ = await asyncio.wait(resting, timeout=min(HAND_OVER, self.settings.cancel_grace))
            await self._give_back([resting[task] for task in done])
            # Not for as long as the database may be away.
            await asyncio.wait(resting, timeout=self.settings.cancel_grace)
        await self._give_back()

    async def stop(self) -> None:
        """Hand over what is driven and end every task."""
        await self.hand_over()
        await self.tasks.cancel_all(self.settings.cancel_grace)

    async def _give_back(self, execution_ids: Sequence[UUID] | None = None) -> None:
        try:
            await self.journal.release(self.incarnation, execution_ids)
        except UnavailableError:
            log.warning("executions were not given back; they are taken over when the lease ends")

    def hold_until(self, moment: float) -> None:
        """Begin nothing after this monotonic time, unless it is moved: then others may drive what is driven here."""
        self.held_until = moment
        self.tell_held()

    def tell_held(self) -> None:
        """Let what waits for permission look again."""
        self._renewed.set()
        self._renewed = asyncio.Event()

    @property
    def may_begin(self) -> bool:
        """Whether the lease lets this process begin an attempt at this moment."""
        return not self.is_fenced and self.monotonic() < self.held_until

    @property
    def may_take(self) -> bool:
        """Whether this process may begin to drive an execution at this moment."""
        return self.may_begin and not self.is_stopping

    async def permission(self, run: Run) -> None:
        """Return as soon as an attempt of a run may begin (CONTRACT ST11)."""
        while run.is_withheld or not self.may_begin:
            await self._renewed.wait()

    def fence(self) -> None:
        """Drop every run and start nothing more, because others may have taken over all of them."""
        self.is_fenced = True
        runs = self._let_go()
        self.claimer.begin_anew()
        for run in runs:
            run.stop()

    def resume(self, incarnation: UUID) -> None:
        """Go on under another incarnation, which has a lease."""
        self.incarnation = incarnation
        self.is_fenced = False
        self.claimer.poke()

    def rest(self, seconds: float) -> None:
        """Claim nothing for so long."""
        self.claimer.rest(seconds)

    def drop(self, execution_id: UUID, epoch: int) -> None:
        """Stop the run of an execution that was released at this epoch; it may be claimed again, here too."""
        run = self.runs.get(execution_id)
        if run is not None and run.execution.epoch == epoch:
            run.stop()
            self._forget(run)
        self.claimer.poke()

    async def reclaim(self) -> None:
        """Drop what others took over while this process was cut off from the store. Raises UnavailableError."""
        self.lapses += 1
        # Also what has a write on its way: that may have been committed before the others came.
        driven = list(self.runs.values())
        owned = {execution.id for execution in await self.journal.strays(self.incarnation, [])}
        for run in driven:
            if run.id not in owned and not run.is_closing:
                self.lost(run, CommitResult.FENCED)

    def interval(self) -> float:
        """Return the seconds until the next regular look for work, spread so that replicas do not look at once."""
        return self.settings.claim_interval * (0.7 + 0.6 * self.draw())

    # --- taking

    def encode_all(self, recorded: Iterable[events.Event]) -> list[Event]:
        """Return the events as they are stored and sent."""
        return [self._encode(event) for event in recorded]

    def keep(self, execution: Execution, definition: Definition, plan: Plan, lapses: int) -> None:
        """Drive an execution that was created with this process as its owner; a sweep finds it if not now.

        `lapses`: how many there had been when the creation was handed over.
        """
        is_ours = execution.incarnation == self.incarnation and lapses == self.lapses
        if not is_ours or not self.may_take or execution.id in self.runs:
            return
        run = Run(self, execution, self.incarnation, definition, plan.state)
        self._count(run)
        run.begin(plan)

    async def deliver_cancel(self, execution: Execution) -> None:
        """Let a kept cancel request take effect here, if this process owns the execution or nobody does."""
        if (run := self.runs.get(execution.id)) is not None:
            if execution.cancel is not None:
                run.apply(happenings.CancelAsked(self.now(), execution.cancel))
            await within(1.0, run.settled())
        if execution.id not in self.runs and self.may_take:
            try:
                detail = await self.journal.claim_one(self.incarnation, execution.org, execution.id)
                if detail is not None:
                    await self.adopt(detail)
            except UnavailableError as error:  # the wish is kept, and whoever takes the execution sees it
                log.warning("cancel not carried out yet", execution_id=str(execution.id), error=str(error))
        if (run := self.runs.get(execution.id)) is not None:
            await within(1.0, run.settled())
            await within(1.0, run.closed.wait())

    async def clear_away(self, workflow_id: UUID) -> None:
        """Let the cancel requests that a deleted workflow left take effect here, and remove what has ended."""
        if any(run.execution.workflow_id == workflow_id for run in self.runs.values()):
            await self._sweeper.sweep()
        self.claimer.poke()
        self._sweeper.leave()

    async def adopt(self, detail: ExecutionDetail, verdict: Failure | None = None) -> None:
        """Go on with an execution from what was recorded, or end it by a verdict; if not now, a sweep finds it."""
        execution = detail.execution
        if execution.id in self.runs or execution.incarnation != self.incarnation:
            return
        if detail.unreadable:
            await self.condemn(execution.id, verdict or unreadable(detail.unreadable))
            return
        try:
            definition = await self.definitions.of(execution)
        except (NotFoundError, UnreadableError) as error:
            log.error("execution without definition", execution_id=str(execution.id), error=str(error))
            definition = outline(detail)
            verdict = verdict or Failure(UNREADABLE_RECORD, f"what it runs cannot be read: {error}")
        except PersistenceError:
            raise
        except Exception as error:  # of ours: it is the same at the next try
            log.error("execution not understood", execution_id=str(execution.id), exc_info=error)
            await self.condemn(execution.id, verdict or _MISTAKE)
            return
        try:
            state, found = restore(detail, self.name), contradictions(definition, detail)
        except Exception as error:  # whatever it was that wrote the rows
            log.error("execution not understood", execution_id=str(execution.id), exc_info=error)
            await self.condemn(execution.id, verdict or unreadable([type(error).__name__]))
            return
        if found and verdict is None:
            await self.condemn(execution.id, unreadable(found))
            return
        await self.turns.share(execution).take(lambda: self._drive(execution, definition, state, verdict))

    def _drive(self, execution: Execution, definition: Definition, state: State, verdict: Failure | None) -> None:
        if execution.id in self.runs or not self.may_take or execution.incarnation != self.incarnation:
            return
        run = Run(self, execution, self.incarnation, definition, state)
        self._count(run)
        try:
            self._set_off(run, verdict)
        except Exception as error:  # one that nobody drives would be claimed again and again
            self.broken(run, error)

    def _set_off(self, run: Run, verdict: Failure | None) -> None:
        """Let a run go on from what was recorded."""
        execution, verdict = run.execution, verdict or self.claimer.admit(run)
        run.is_condemned = verdict is not None
        if execution.cancel is not None and run.state.cancel is None:
            run.apply(happenings.CancelAsked(self.now(), execution.cancel))
        if verdict is None:
            here = frozenset(name for name in run.state.awaited_handlers if self.registry.get(name) is not None)
            run.apply_now(happenings.Recovered(self.now(), here))
            failpoints.hit("timer.after_due_select")
            if not run.is_behind:  # else timers are looked at when it goes on
                run.apply_now(happenings.TimerFired(self.now()))
            run.inherit()
            run.resume_timer()
        else:
            run.apply_now(happenings.Condemned(self.now(), verdict))

    async def condemn(self, execution_id: UUID, failure: Failure) -> None:
        """End an execution that this process owns, as failed, whatever its rows hold. Raises PersistenceError."""
        last = await self.journal.condemn(self.incarnation, execution_id, ending(failure, self._encode))
        if last is not None:
            log.error("execution ended", execution_id=str(execution_id), code=failure.code, reason=failure.message)
            self.hub.publish(execution_id, [last])

    # --- what runs report

    def finished(self, run: Run, transition: Transition) -> None:
        """Forget a run that ended or was parked."""
        self._forget(run)
        if transition.state.is_end:
            # As of calls: a line for each that went well is for those who ask for it.
            say = log.debug if transition.state is ExecutionState.COMPLETED else log.info
            say("execution finished", execution_id=str(run.id), state=transition.state.value)
        if transition.wake_time is not None:
            self.claimer.poke_at(transition.wake_time)
        if transition.state.is_end:
            self.claimer.freed()

    def lost(self, run: Run, result: CommitResult) -> None:
        """Stop a run whose write was not accepted, and find out where its execution stands."""
        log.warning("transition not committed", execution_id=str(run.id), result=result.value)
        attempts = run.stop()
        self._forget(run)
        self.recovery.look_for(run.id, attempts)

    def broken(self, run: Run, error: BaseException) -> None:
        """Stop a run that can neither go on nor be stored, and end its execution as failed."""
        log.error("execution cannot go on", execution_id=str(run.id), exc_info=error)
        attempts = run.stop()
        self._forget(run)
        failure = None
        if run.is_condemned and isinstance(error, PersistenceError) and not isinstance(error, UnavailableError):
            failure = Failure(UNREADABLE_RECORD, "what is recorded of it contradicts itself; its log says how")
        elif not isinstance(error, UnavailableError):
            failure = _MISTAKE
        self.recovery.look_for(run.id, attempts, failure, is_hopeless=run.is_condemned)

    def _count(self, run: Run) -> None:
        self.runs[run.id] = run
        self.claimer.shares.take(run.execution.org, run.execution.owner)

    def _forget(self, run: Run) -> None:
        if self.runs.get(run.id) is run:
            del self.runs[run.id]
            self.claimer.shares.give_back(run.execution.org, run.execution.owner)
        self.claimer.discharge(run)

    def _let_go(self) -> list[Run]:
        """Forget all runs, and return them."""
        runs, self.runs = list(self.runs.values()), {}
        for run in runs:
            self.claimer.shares.give_back(run.execution.org, run.execution.owner)
        return runs


async def _rest(run: Run) -> None:
    """Stop a run; return when nothing of it goes on, and what has ended of it is in the store."""
    attempts = run.stop()
    await run.record_ends()
    if attempts:
        await asyncio.wait(attempts)
        await run.record_ends()
    await run.settled()
