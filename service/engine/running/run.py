"""One execution while this process drives it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from msgspec.structs import replace

from persistence import failpoints
from persistence.model import Execution, ExecutionOutcome, Mail, Message
from persistence.transition import CommitResult, Transition
from service.engine.definition import Definition
from service.engine.planning import happenings, planner
from service.engine.planning.effects import StartAttempt
from service.engine.planning.happenings import RESULTS, Happening, is_at_once
from service.engine.planning.planner import Plan
from service.engine.planning.state import State
from service.engine.running.attempts import Attempts
from service.engine.running.context import Context
from service.engine.running.deaths import Deaths
from service.engine.running.guard import Guard
from service.engine.running.harmless import harmless
from service.engine.running.inbox import Inbox
from service.engine.running.outcome import outcome
from service.engine.running.parking import parked_until
from service.engine.running.timer import Timer
from service.engine.running.written import transition

AHEAD = 16
"""Transitions on their way, at most, with which a step may begin before the commit of its start: they are in memory."""


class Supervisor(Protocol):
    """What a run reports to."""

    def finished(self, run: Run, transition: Transition) -> None:
        """Forget a run that ended or was parked by this transition."""
        ...

    def lost(self, run: Run, result: CommitResult) -> None:
        """Stop a run whose write was not accepted, and find out where its execution stands."""
        ...

    def broken(self, run: Run, error: BaseException) -> None:
        """Stop a run that cannot go on, and end its execution as failed; or take it up again, if the store was away."""
        ...

    def survived(self, run: Run) -> None:
        """Take note that it is recorded that driving the execution does no harm."""
        ...


class Run:
    """Feeds happenings to the planner, plans to the journal, and carries out effects when durable, or if harmless.

    Closed, it takes no more happenings: the execution has ended, was parked, or belongs to another owner.
    """

    def __init__(
        self, context: Context, supervisor: Supervisor, execution: Execution, definition: Definition, state: State
    ) -> None:
        self.context = context
        self._supervisor = supervisor
        self.execution = execution
        self.id = execution.id
        self.incarnation = context.ownership.incarnation
        """Under which it was begun, and stays: what it writes after the process has another one is refused."""
        self.definition = definition
        self.state = state
        self.closed = asyncio.Event()
        self.outcome: ExecutionOutcome | None = None
        """How the execution has ended, where this run has brought its end about and it is durable."""
        self.is_condemned = False
        """Whether it was given an end because it cannot go on."""
        self.is_withheld = False
        """Whether others may drive the execution, so that nothing of it begins here; another thread may set it."""
        self._guard = Guard(self.fail)
        self._is_closing = False
        self._awaits_mail = False  # what an end was refused for is on its way here, so the execution is kept
        self._in_flight = 0
        self._quiet: asyncio.Event | None = None  # while somebody waits until no transition is on its way
        self.share = context.turns.share(execution)
        # What happened and has not been applied, because the loop has had enough of this turn.
        self._backlog: deque[Happening] = deque()
        self._is_queued = False
        self.begun = asyncio.get_running_loop().time()
        self._inbox = Inbox(execution.mail)
        self._deaths = Deaths(execution.deaths, state)
        self._attempts = Attempts(self, context)
        self._timer = Timer(context.now, self._fire)

    @property
    def is_closing(self) -> bool:
        """Whether happenings are no longer taken, although the last transition may still be on its way."""
        return self._is_closing

    @property
    def is_behind(self) -> bool:
        """Whether something has happened that has not been applied."""
        return bool(self._backlog)

    @property
    def is_settled(self) -> bool:
        """Whether no transition is on its way."""
        return self._in_flight == 0

    async def settled(self) -> None:
        """Return when all transitions that were handed over so far have their result."""
        if self._in_flight:
            self._quiet = self._quiet or asyncio.Event()
            await self._quiet.wait()

    def apply(self, happening: Happening) -> None:
        """Let something happen to the execution, now or in one of the next turns of the loop."""
        if is_at_once(happening) or (self.share.is_open and not self._backlog):
            self.apply_now(happening)
        elif not self._is_closing:
            self._put_off(happening)

    def apply_now(self, happening: Happening) -> None:
        """Let something happen to the execution before anything else does."""
        if self._is_closing:
            return
        with self._guard:
            if isinstance(happening, happenings.MessageCame):
                self._inbox.read(happening.message)
            begins, settles, latest = not self.is_condemned, not self._inbox.unread, self.context.clock.latest()
            plan = planner.apply(self.definition, self.state, happening, begins=begins, settles=settles, latest=latest)
            self.share.spend(plan.work)
            self._take(plan, happening, survived=self._deaths.count > 0 and self._is_proof(happening, plan))

    def _is_proof(self, happening: Happening, plan: Plan) -> bool:
        """Whether what happened shows that the execution, whose owners died, does no harm."""
        self._deaths.suspect((effect.path, effect.iteration) for effect in self._harmless(plan))
        return isinstance(happening, RESULTS) and self._deaths.are_over(plan.state)

    def open_mail(self, unseen: Sequence[Message]) -> None:
        """Begin with the messages that were unseen when the execution was read."""
        self._inbox.open(unseen)
        self.receive(unseen)

    def receive(self, messages: Iterable[Message]) -> int:
        """Let what was sent to the execution happen, each message once: the one way in for what others ask of it.

        Returns how many of them had not come before.
        """
        fresh = self._inbox.take(messages)
        self._awaits_mail = self._awaits_mail and not fresh
        for message in fresh:
            self.apply(happenings.MessageCame(self.context.now(), message))
        return len(fresh)

    def lacks(self, mail: Mail) -> bool:
        """Whether messages that were sent before these have not come."""
        return self._inbox.lacks(mail)

    @property
    def standing(self) -> Collection[UUID]:
        """The messages that it has taken and that the store has still."""
        return self._inbox.standing

    def fail(self, error: BaseException) -> None:
        """Give the run up for a mistake of the server, or an error of the store: see `Supervisor.broken`."""
        self._supervisor.broken(self, error)

    def keep(self, happening: Happening) -> None:
        """Keep the end of an attempt that came when the run was stopped already, for `record_ends`."""
        self._backlog.append(happening)

    async def record_ends(self) -> None:
        """Record what has ended and was not applied when the run was stopped; nothing begins by it."""
        while self._backlog:
            await self.share.take(self._record_end)

    def _record_end(self) -> None:
        happening = self._backlog.popleft()
        if isinstance(happening, RESULTS):
            with self._guard:
                plan = planner.apply(self.definition, self.state, happening, begins=False)
                self.share.spend(plan.work)
                self._take(plan, happening)

    def _put_off(self, happening: Happening) -> None:
        self._backlog.append(happening)
        if not self._is_queued:
            self._is_queued = True
            self.share.put_off(self._catch_up)

    def _catch_up(self) -> None:
        """Apply the first of what was put off."""
        self._is_queued = False
        if self._is_closing:
            return
        self.apply_now(self._backlog.popleft())
        if self._is_closing:
            self._backlog.clear()
        elif not self._backlog:
            self.resume_timer()
        elif not self._is_queued:
            self._is_queued = True
            self.share.put_off(self._catch_up)

    def _take(self, plan: Plan, cause: Happening, *, survived: bool = False) -> None:
        """Go on from a plan. Where there is nothing to write, what it has worked out is kept, and goes on as well."""
        if plan.is_empty:
            self.state = plan.state
            self._continue(plan)
        else:
            self._hand_over(plan, cause, survived=survived)

    def _hand_over(self, plan: Plan, cause: Happening | None = None, *, survived: bool = False) -> None:
        self._inbox.consume(plan.consumed)
        transition = self._transition(self.state, plan, survived=survived)
        if survived:
            self._deaths.count = 0
        is_last = transition.state.is_end and not self._in_flight and not self.is_condemned
        again = (self.state, cause) if is_last and isinstance(cause, RESULTS) else None
        self.state = plan.state
        self._attempts.look_after_queue(plan.steps)
        self._is_closing = self._is_closing or transition.release or plan.state.state.is_end
        self._in_flight += 1
        if plan.effects:
            failpoints.hit("step.before_started_commit")
        future = self.context.journal.submit(transition)
        failpoints.hit("step.after_enqueue_before_flush")
        due = self._begin_harmless(plan, future)
        future.add_done_callback(lambda done: self._committed(due, transition, again, done))
        self._continue(plan)

    def begin(self, plan: Plan) -> None:
        """Carry out a plan that the creation of the execution has made durable."""
        with self._guard:
            self.state = plan.state
            self._perform(plan)
            self._set_timer()
            self._continue(plan)

    def _continue(self, plan: Plan) -> None:
        if plan.is_partial and not self._is_closing:
            self._put_off(happenings.Continued(self.context.now()))

    def resume_timer(self) -> None:
        """Wait for the next timer, in memory or parked, unless a transition on its way does so when committed."""
        if self._in_flight or self._is_closing:
            return
        with self._guard:
            if self._parked_until(self.state) is not None:
                self._hand_over(Plan(self.state))
            else:
                self._set_timer()

    def vouch(self) -> None:
        """Record that driving the execution for so long has done no harm."""
        if self._deaths.count and not self._is_closing:
            with self._guard:
                self._hand_over(Plan(self.state), survived=True)

    def stop(self) -> list[asyncio.Task[None]]:
        """Close without a word to the journal; returns the attempts that are being cancelled."""
        self._is_closing = True
        self._timer.clear()
        self.closed.set()
        return self._attempts.stop()

    def _transition(self, before: State, plan: Plan, *, survived: bool) -> Transition:
        parked_until = None if plan.state.state.is_end or plan.is_partial else self._parked_until(plan.state)
        events, mail_seen = self.context.encode_all(plan.events), self._inbox.seen
        owner = self.execution, self.incarnation
        return transition(owner, before, plan, events, mail_seen, parked_until, survived=survived)

    def _parked_until(self, state: State) -> datetime | None:
        """Return until when the execution need not be in memory, None when it must."""
        if self._backlog or self._inbox.unread or self._awaits_mail or not state.is_idle or self._attempts.are_left():
            return None
        return parked_until(state, self.context.now(), self.context.settings.park_after)

    def _end_later(self, before: State, result: Happening, *, survived: bool) -> None:
        """Record what an attempt came to without the end that followed and was refused, if for a message that binds.

        To make the attempt again, or to call its outcome unknown, would lose what was done because of a pause.
        """
        self.state, self._is_closing = before, False
        self._inbox.forget_unread()
        self._awaits_mail = True
        with self._guard:
            self._hand_over(planner.apply(self.definition, before, result, settles=False), survived=survived)
        self.context.mail.poke()  # what came while it was closing was let go

    def _committed(
        self,
        plan: Plan,
        transition: Transition,
        again: tuple[State, Happening] | None,
        future: asyncio.Future[CommitResult],
    ) -> None:
        self._in_flight -= 1
        if self._in_flight == 0 and self._quiet is not None:
            self._quiet.set()
            self._quiet = None
        if future.cancelled():
            return
        error = future.exception()
        if error is None and future.result() is CommitResult.COMMITTED:
            # Also of an execution that was dropped meanwhile: watchers and workers may wait for it here.
            self.context.hub.publish(self.id, transition.events)
            if transition.tasks or transition.task_changes:
                self.context.hub.people.tell()
            self.context.workers.results.recorded(self.id, transition.steps)
        if self.closed.is_set():
            return
        if error is not None:
            self.fail(error)
        elif again is not None and future.result() is CommitResult.FENCED:
            self._end_later(*again, survived=transition.survived)
        elif future.result() is not CommitResult.COMMITTED:
            self._supervisor.lost(self, future.result())
        else:
            with self._guard:
                self._inbox.remove(transition.consumed)
                if transition.letters:
                    self.context.mail.poke()
                if transition.survived:
                    self._supervisor.survived(self)
                self._perform(plan)
                self._after_commit(transition)

    def _after_commit(self, transition: Transition) -> None:
        if transition.release or transition.state.is_end:
            self._timer.clear()
            if transition.state.is_end:
                self.outcome = outcome(self.execution, transition)
            self.closed.set()
            self._supervisor.finished(self, transition)
        else:
            self._set_timer()

    # --- effects

    def _begin_harmless(self, plan: Plan, commit: asyncio.Future[CommitResult]) -> Plan:
        """Begin what may begin before the commit of its start; return the plan with what must wait for that.

        What a step gives that has no effect outside is seen by nobody before its commit, which comes after that of its
        start, or not at all: transitions of an execution are written in order and fenced together. What it emits waits
        for the commit of its start. Nothing begins so while a message is unread: it may be a cancel that was answered,
        and is applied in this turn, too.
        """
        is_early = not (self._is_closing or self._in_flight > AHEAD or self._inbox.unread)
        early = self._harmless(plan) if is_early else []
        for effect in early:
            self._attempts.start(effect, commit)
        return replace(plan, effects=tuple(each for each in plan.effects if each not in early)) if early else plan

    def _harmless(self, plan: Plan) -> list[StartAttempt]:
        return harmless(plan.effects, self.definition, self.context.registry, self.execution.org)

    def _perform(self, plan: Plan) -> None:
        for effect in plan.effects:
            if isinstance(effect, StartAttempt):
                self._start(effect)
            else:
                self._attempts.cancel(effect)

    def _start(self, effect: StartAttempt) -> None:
        # Its end, that of its item or of all may have been decided while the start was on its way to the disk.
        if self._is_closing or not self.state.may_run(*effect.key):
            self._attempts.leave_queue(effect.path, effect.iteration)
            now, attempt = self.context.now(), effect.attempt
            has_ended = not effect.resumed
            self.apply(happenings.StepStopped(now, effect.path, attempt, has_ended, effect.iteration))
            return
        failpoints.hit("step.after_started_commit")
        self._attempts.start(effect)

    # --- timers

    def _set_timer(self) -> None:
        self._timer.set(None if self._is_closing or self._backlog else self.state.next_wake)

    def _fire(self) -> None:
        failpoints.hit("timer.after_due_select")
        self.apply(happenings.TimerFired(self.context.now()))
        self.resume_timer()  # when it fired a little early, or was only a piece of a long one
