"""The attempts of one execution that run in this process, and its steps that wait here for a thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast
from uuid import UUID

import structlog

from persistence import failpoints
from persistence.model import Execution, Step, StepKey, StepState, WaitKind
from persistence.transition import CommitResult
from service.engine import paths
from service.engine.definition import Action, Call, Definition
from service.engine.failure import storable
from service.engine.handlers.attempt import CURRENT, Attempt
from service.engine.handlers.copies import Copies
from service.engine.handlers.queues import Place
from service.engine.handlers.registry import Handler, StepContext, Suspend
from service.engine.ids import idempotency_token
from service.engine.planning import happenings
from service.engine.planning.effects import AttemptKey, CancelAttempt, StartAttempt
from service.engine.planning.state import State, is_ending
from service.engine.running.context import Context
from service.engine.running.invocation import (
    Failed,
    Lost,
    NoHandler,
    Outcome,
    Succeeded,
    Waits,
    overdue,
    resume_attempt,
    run_attempt,
)
from service.engine.running.output import MAX_OUTPUT, Emitter
from service.engine.running.revealing import Revealing
from service.engine.turns import SHARE, Share
from service.engine.wishes import awaited
from service.engine.workers.remote import rejoin

log = structlog.get_logger(__name__)

MAX_PROGRESS_MESSAGE = 256

_NOT_TAKEN = cast(StepContext, None)
"""What a handler is given that takes no context."""


class Driven(Protocol):
    """The execution whose attempts these are, as it is driven here."""

    @property
    def execution(self) -> Execution:
        """The row, as it was when it was taken."""
        ...

    @property
    def incarnation(self) -> UUID:
        """Under which it is driven."""
        ...

    @property
    def definition(self) -> Definition:
        """What it runs."""
        ...

    @property
    def state(self) -> State:
        """Where it stands."""
        ...

    @property
    def share(self) -> Share:
        """Its share in the turns of the loop."""
        ...

    @property
    def is_closing(self) -> bool:
        """Whether happenings are no longer taken."""
        ...

    @property
    def is_withheld(self) -> bool:
        """Whether nothing of it begins here."""
        ...

    def apply(self, happening: happenings.Happening) -> None:
        """Let something happen to the execution."""
        ...

    def keep(self, happening: happenings.Happening) -> None:
        """Keep the end of an attempt that came when happenings were no longer taken."""
        ...

    def fail(self, error: BaseException) -> None:
        """End what cannot go on."""
        ...


@dataclass(slots=True, eq=False)
class _Running:
    """An attempt, its task, and the timer that ends the patience with it."""

    attempt: Attempt
    task: asyncio.Task[None]
    timer: asyncio.TimerHandle | None = None


class Attempts:
    """Starts attempts, tells them to stop, and lets what becomes of them happen to the execution."""

    def __init__(self, run: Driven, context: Context) -> None:
        self._run = run
        self._context = context
        self._running: dict[AttemptKey, _Running] = {}
        # Of steps that wait for a thread or a worker, or have one and are about to begin.
        self._places: dict[StepKey, Place] = {}

    def are_left(self) -> bool:
        """Whether there are any beside the one that asks."""
        current = asyncio.current_task()
        return bool(self._places) or any(each.task is not current for each in self._running.values())

    def start(self, effect: StartAttempt, start: asyncio.Future[CommitResult] | None = None) -> None:
        """Begin an attempt whose start is durable, or that may begin before the commit of its `start`."""
        run, path, number = self._run, effect.path, effect.attempt
        attempt = Attempt(
            run.execution.id,
            path,
            number,
            effect.handler,
            run.incarnation,
            run.execution.epoch,
            self._context.clock.monotonic,
            effect.iteration,
            run.execution.org,
        )
        # Not that of the task which starts it: there stands what the caller of an RPC, or another step, has bound.
        inside = self._context.origin.copy()
        inside.run(_bind, attempt, run.share)
        task = self._context.tasks.spawn(self._attempt(effect, attempt, start), f"attempt {path} {number}", inside)
        self._running[effect.key] = running = _Running(attempt, task)
        task.add_done_callback(lambda done: self._ended(effect, running, done))

    def cancel(self, effect: CancelAttempt) -> None:
        """Tell an attempt to stop, once. One that has not ended after the grace is waited for no longer."""
        running = self._running.get(effect.key)
        if running is None:
            self._stopped(effect)
            return
        if running.attempt.told_at is not None:
            return  # told again, it would be cut off in what it does at its end, and have the grace anew
        self._tell(running)
        if not running.attempt.is_in_thread:  # else it ends when its thread does
            running.task.cancel()
        self._after_grace(running, lambda: self._give_up(effect, running))

    def stop(self) -> list[asyncio.Task[None]]:
        """Tell all to stop, whatever their threads do; returns those that are about to end.

        What a handler gave is not thrown away because it waits for its turn.
        """
        for place in self._places.values():
            place.close()
        self._places.clear()
        for running in self._running.values():
            if not running.attempt.has_returned:
                running.attempt.is_abandoned = True
                self._tell(running)
                running.task.cancel()
        return [running.task for running in self._running.values()]

    def leave_queue(self, path: str, iteration: int) -> None:
        """Give back what is kept for a step that does not begin after all, or its place in the queue for it."""
        if (place := self._places.pop((path, iteration), None)) is not None:
            place.close()

    def look_after_queue(self, changed: Iterable[Step]) -> None:
        """Let go of what steps no longer wait for that have been cancelled, or failed instead of beginning."""
        for step in changed if self._places else ():
            if step.state is not StepState.RUNNING and not step.waits_for(WaitKind.SLOT):
                self.leave_queue(*step.key)

    async def _attempt(
        self, effect: StartAttempt, attempt: Attempt, start: asyncio.Future[CommitResult] | None
    ) -> None:
        step = self._run.definition.places[paths.place(effect.path)]
        revealing = self._revealing(step.action)

        async def begin(handler: Handler) -> StepContext:
            await self._context.ownership.permission(lambda: self._run.is_withheld)
            self._begin_time(effect, attempt)
            return self._step_context(effect, attempt, start, revealing) if handler.takes_context else _NOT_TAKEN

        if effect.resumed:
            outcome = await resume_attempt(partial(rejoin, self._context.workers), effect, attempt, begin, revealing)
        else:
            place = self._places.pop((effect.path, effect.iteration), None)
            wishes = step.wishes(self._run.execution.id)
            outcome = await run_attempt(self._context.registry, effect, attempt, begin, place, revealing, wishes)
        await failpoints.reach("step.after_call_before_enqueue")
        if isinstance(outcome, NoHandler):
            await self._context.wishes.told(attempt.org, effect.handler, outcome.wishes)
        if isinstance(outcome, Waits):  # first: an execution that waits here is not put down
            self._places[effect.path, effect.iteration] = outcome.place
        happening = self._happening(effect, attempt, outcome)
        if self._run.is_closing and attempt.told_at is None:
            self._run.keep(happening)
        else:
            self._run.apply(happening)
        if isinstance(outcome, Waits):
            self._queue_up(effect, outcome.place)
        elif isinstance(outcome, NoHandler):
            name = awaited(effect.handler, outcome.wishes.text)
            if self._context.registry.has(attempt.org, name):  # it came while this was noted
                self._run.apply(happenings.HandlersCame(self._context.now(), frozenset((name,))))

    def _revealing(self, action: Action) -> Revealing | None:
        """Return what has the secrets of an attempt, None when none belong into its params."""
        if not isinstance(action, Call) or not action.params.secrets:
            return None
        return Revealing(self._context.secrets, self._run.execution.org, action.params)

    def _happening(self, effect: StartAttempt, attempt: Attempt, outcome: Outcome) -> happenings.Happening:
        now, path, number, iteration = self._context.now(), effect.path, effect.attempt, effect.iteration
        is_cancelled = is_ending(self._run.state, paths.split(path)[0])  # also where it has not been told yet
        is_to_pause = self._run.state.stopping.get((path, iteration)) == number
        used = attempt.usage
        match outcome:
            case _ if is_cancelled and attempt.is_in_thread:
                return happenings.StepStopped(now, path, number, has_ended=False, iteration=iteration, usage=used)
            case Succeeded() | Suspend() if attempt.has_noticed and (is_cancelled or is_to_pause):
                return happenings.StepStopped(now, path, number, iteration=iteration, usage=used)
            case Succeeded(output):
                return happenings.StepSucceeded(now, path, number, output, iteration, used)
            case Suspend(until, output, reason):
                return happenings.StepSuspended(now, path, number, until, output, reason, iteration, used)
            case Waits(place):
                return happenings.SlotMissed(now, path, number, place.complaint, iteration, place.resource)
            case Lost(reason, is_cut_off):
                log.info("attempt lost", reason=reason)
                return happenings.AttemptLost(now, path, number, reason, iteration, used, is_cut_off)
            case NoHandler(reason, wishes):
                log.info("no handler", handler=effect.handler, wishes=str(wishes))
                return happenings.HandlerMissed(now, path, number, reason, iteration, wishes.text)
            case Failed(failure, retry_after):
                log.info("attempt failed", code=failure.code, message=failure.message)
                draw = self._context.draw()
                return happenings.StepFailed(now, path, number, failure, draw, retry_after, iteration, used)

    def _ended(self, effect: StartAttempt, running: _Running, task: asyncio.Task[None]) -> None:
        if self._running.get(effect.key) is running:
            del self._running[effect.key]
        if running.timer is not None:
            running.timer.cancel()
        if task.cancelled():
            has_ended = not running.attempt.is_in_thread
            self._stopped(effect, running, has_ended=has_ended)
        elif (error := task.exception()) is not None and not self._run.is_closing:
            self._run.fail(error)

    # --- time, and those that do not stop in time

    def _begin_time(self, effect: StartAttempt, attempt: Attempt) -> None:
        attempt.begin(effect.timeout)
        running = self._running[effect.key]
        running.timer = asyncio.get_running_loop().call_later(effect.timeout, self._end_time, effect, running)

    def _end_time(self, effect: StartAttempt, running: _Running) -> None:
        if running.attempt.has_returned:
            return  # in time; only its turn has not come
        self._tell(running, has_expired=True)
        running.task.cancel()
        self._after_grace(running, lambda: self._fail(effect, running))

    def _tell(self, running: _Running, *, has_expired: bool = False) -> None:
        """Tell an attempt to stop, and see whether it does."""
        attempt, was_told = running.attempt, running.attempt.told_at is not None
        if has_expired:
            attempt.expire()
        else:
            attempt.tell()
        if not was_told:
            self._context.stuck.watch(attempt, running.task)

    def _after_grace(self, running: _Running, act: Callable[[], None]) -> None:
        """Act when an attempt that was told to stop goes on for longer than it may."""

        def lose_patience() -> None:
            if not running.task.done():
                log.warning("attempt does not stop", **running.attempt.facts)
                act()

        if running.timer is not None:
            running.timer.cancel()
        running.timer = asyncio.get_running_loop().call_later(self._context.settings.cancel_grace, lose_patience)

    def _give_up(self, effect: StartAttempt | CancelAttempt, running: _Running) -> None:
        self._stopped(effect, running, has_ended=False)

    def _fail(self, effect: StartAttempt, running: _Running) -> None:
        if is_ending(self._run.state, paths.split(effect.path)[0]):  # since its time was over
            self._give_up(effect, running)
            return
        failure = overdue(effect, "its handler")
        draw = self._context.draw()
        now, path, number = self._context.now(), effect.path, effect.attempt
        used = running.attempt.usage
        self._run.apply(happenings.StepFailed(now, path, number, failure, draw, None, effect.iteration, used))

    def _stopped(
        self, effect: StartAttempt | CancelAttempt, running: _Running | None = None, *, has_ended: bool = True
    ) -> None:
        now, path, number = self._context.now(), effect.path, effect.attempt
        used = running.attempt.usage if running else None
        self._run.apply(happenings.StepStopped(now, path, number, has_ended, effect.iteration, used))

    # --- the queues for threads and workers

    def _queue_up(self, effect: StartAttempt, place: Place) -> None:
        step = self._run.state.steps.get(effect.path)
        if self._run.is_closing or step is None or not step.waits_for(WaitKind.SLOT):
            self.leave_queue(effect.path, effect.iteration)
        else:
            place.when_granted(lambda: self._take_slot(effect, place))

    def _take_slot(self, effect: StartAttempt, place: Place) -> None:
        if self._places.get((effect.path, effect.iteration)) is place:
            self._run.apply(happenings.SlotFreed(self._context.now(), effect.path, effect.iteration))

    # --- what a handler is given

    def _step_context(
        self,
        effect: StartAttempt,
        attempt: Attempt,
        start: asyncio.Future[CommitResult] | None,
        revealing: Revealing | None,
    ) -> StepContext:
        execution = self._run.execution
        report = self._reporter(effect)
        emit: Callable[[str], None] = Emitter(self._context.hub, execution.id, effect.key, start)
        tell: Callable[[int, str], None] = _tell
        if revealing is not None:
            report, emit = revealing.hiding_in_reports(report), revealing.hiding_in_outputs(emit)
            tell = revealing.hiding_in_lines(tell)
        return StepContext(
            execution_id=execution.id,
            org=execution.org,
            owner=execution.owner,
            workflow=execution.workflow_name,
            step_path=effect.path,
            iteration=effect.iteration,
            attempt=effect.attempt,
            idempotency_token=idempotency_token(execution.id, effect.path, effect.iteration),
            timeout=effect.timeout,
            now=self._context.clock.latest(),
            variables=Copies(effect.variables),
            reporter=report,
            emitter=emit,
            stop=attempt.stop,
            meter=attempt.use,
            teller=tell,
        )

    def _reporter(self, effect: StartAttempt) -> Callable[[int, str], None]:
        """Return what a handler, also one in a thread, reports its progress with; at most four records a second."""
        loop = asyncio.get_running_loop()
        next_time = 0.0

        def record(percent: int, message: str) -> None:
            if self._context.ownership.may_begin:  # cut off from the store, only what matters waits for it in memory
                now = self._context.now()
                path, number, iteration = effect.path, effect.attempt, effect.iteration
                self._run.apply(happenings.StepProgressed(now, path, number, percent, message, iteration))

        def report(percent: int, message: str) -> None:
            nonlocal next_time
            if loop.time() >= next_time:
                next_time = loop.time() + self._context.settings.progress_interval
                loop.call_soon_threadsafe(record, percent, storable(message, MAX_PROGRESS_MESSAGE))

        return report


def _tell(level: int, text: str) -> None:
    """Log a line of a handler; the log says of itself which attempt it is of."""
    logging.getLogger("flowkeep.handlers").log(level, "%s", text[:MAX_OUTPUT])


def _bind(attempt: Attempt, share: Share) -> None:
    CURRENT.set(attempt)
    SHARE.set(share)
