"""Gives executions to runs that drive them, and sees to what those report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from typing import Protocol
from uuid import UUID

import structlog
from msgspec.structs import replace

from persistence import failpoints
from persistence.errors import NotFoundError, PersistenceError, UnavailableError, UnreadableError
from persistence.model import Execution, ExecutionDetail, ExecutionState, Message
from persistence.transition import CommitResult, Transition
from service.engine.definition import Definition
from service.engine.failure import INTERNAL, UNREADABLE_RECORD, Failure
from service.engine.held import Held
from service.engine.planning import happenings
from service.engine.planning.outline import outlining
from service.engine.planning.planner import Plan
from service.engine.planning.reading import wanting
from service.engine.planning.restoring import restoring
from service.engine.planning.state import State
from service.engine.running.active_runs import ActiveRuns
from service.engine.running.context import Context
from service.engine.running.ownership import Look
from service.engine.running.quarantine import Quarantine
from service.engine.running.recovery import Recovery
from service.engine.running.run import Run
from service.engine.running.soundness import contradicting, ending, unreadable
from service.engine.slices import in_slices
from service.engine.wishes import parted

log = structlog.get_logger(__name__)

MOST_READS = 3
"""How often the messages of an execution that is taken up are read again, as something was sent to it meanwhile."""

_MISTAKE = Failure(INTERNAL, "the server could not go on with the execution; its log says why")


class Definitions(Protocol):
    """Where the definition that an execution runs comes from. `held` counts those that are in use."""

    held: Held

    async def of(self, execution: Execution) -> Definition:
        """Return it. Raises NotFoundError, UnreadableError."""
        ...


class Driver:
    """Begins runs and forgets them: the `Supervisor` of all runs, and the `Taker` of what Recovery finds."""

    def __init__(self, context: Context, runs: ActiveRuns, quarantine: Quarantine, definitions: Definitions) -> None:
        self._context = context
        self._runs = runs
        self._quarantine = quarantine
        self._definitions = definitions
        # Of what is being taken up: by how many calls, and the newest epoch among them.
        self._adopted: dict[UUID, tuple[int, int]] = {}
        self.recovery = Recovery(context, self)

    # --- taking

    def keep(self, execution: Execution, definition: Definition, plan: Plan, generation: int) -> None:
        """Drive an execution that was created with this process as its owner; a sweep finds it if not now.

        `generation` is that of the ownership when the creation was handed over.
        """
        ownership = self._context.ownership
        is_ours = execution.incarnation == ownership.incarnation and generation == ownership.generation
        if not is_ours or not ownership.may_take or execution.id in self._runs:
            return
        run = Run(self._context, self, execution, definition, plan.state)
        self._runs.add(run)
        run.begin(plan)

    def looking(self) -> AbstractContextManager[Look]:
        """Give the moment before the store is asked for executions; to be left when what it gave is taken up."""
        return self._runs.looking()

    async def adopt(self, detail: ExecutionDetail, look: Look, verdict: Failure | None = None) -> None:
        """Go on with an execution from what was recorded, or end it by a verdict; if not now, a sweep finds it.

        `look` is the moment before the store was asked for it.
        """
        key, epoch = detail.execution.id, detail.execution.epoch
        under_way, newest = self._adopted.get(key, (0, 0))
        self._adopted[key] = under_way + 1, max(newest, epoch)
        self._runs.announce([key])
        try:
            await self._adopt(detail, look, verdict)
        finally:
            under_way, newest = self._adopted.pop(key)
            if under_way > 1:
                self._adopted[key] = under_way - 1, newest
            self._runs.arrived(key)

    async def _adopt(self, detail: ExecutionDetail, look: Look, verdict: Failure | None) -> None:
        execution = detail.execution
        if execution.incarnation != self._context.ownership.incarnation:
            return
        if (run := self._runs.get(execution.id)) is not None:
            if run.execution.epoch < execution.epoch:  # the store took it away, and this process has it anew
                self.lost(run, CommitResult.FENCED)
            return
        if detail.unreadable:
            await self.condemn(execution.id, verdict or unreadable(detail.unreadable))
            return
        try:
            definition = await self._definitions.of(execution)
        except (NotFoundError, UnreadableError) as error:
            log.error("execution without definition", execution_id=str(execution.id), error=str(error))
            definition = await in_slices(outlining(detail))
            verdict = verdict or Failure(UNREADABLE_RECORD, f"what it runs cannot be read: {error}")
        except PersistenceError:
            raise
        except Exception as error:  # of ours: it is the same at the next try
            log.error("execution not understood", execution_id=str(execution.id), exc_info=error)
            await self.condemn(execution.id, verdict or _MISTAKE)
            return
        wanted = await in_slices(wanting(definition, detail))
        if detail.omitted or wanted.inputs:
            detail = await self._context.journal.load_payloads(detail, wanted)
            if detail.unreadable:
                await self.condemn(execution.id, verdict or unreadable(detail.unreadable))
                return
        try:
            found = await in_slices(contradicting(definition, detail)) if verdict is None else ()
            state = None if found else await in_slices(restoring(definition, detail, self._context.name))
        except Exception as error:  # whatever it was that wrote the rows
            log.error("execution not understood", execution_id=str(execution.id), exc_info=error)
            await self.condemn(execution.id, verdict or unreadable([type(error).__name__]))
            return
        if state is None:
            await self.condemn(execution.id, unreadable(found))
            return
        for name in state.awaited:
            await self._context.wishes.keep(execution.org, *parted(name))
        remote = await self._remote(execution.org, state) if verdict is None else frozenset[str]()
        begin = partial(self._begin, look, definition, state, verdict, remote)
        await self._begin_informed(detail, verdict, begin)

    async def _remote(self, org: str, state: State) -> frozenset[str]:
        """Return the handlers of workers among those of the attempts that ran. Raises PersistenceError."""
        running = {state.steps[path].handler for path, _ in state.running}
        names = sorted(name for name in running if not self._context.registry.is_own(name))
        found = await self._context.journal.find_worker_handlers(org, names) if names else ()
        return frozenset(each.name for each in found)

    async def _begin_informed(
        self, detail: ExecutionDetail, verdict: Failure | None, begin: Callable[[ExecutionDetail], None]
    ) -> None:
        """Begin with all messages that the execution was told of until then: a cancel that was answered is heeded.

        What it is told while they are read is read as well, a few times: hints also come of others and without end, and
        what the last one told of is delivered as soon as the execution runs.
        """
        execution, seen = detail.execution, 0
        share = self._context.turns.share(execution)
        for reads_left in reversed(range(MOST_READS + 1)):
            act = partial(self._begin_or_told, detail, begin, seen if reads_left else math.inf)
            if (told := await share.take(act)) <= seen or not reads_left:
                return
            seen = told
            read = await self._read_again(detail)
            if read is None:
                return
            if read.unreadable:
                await self.condemn(execution.id, verdict or unreadable(read.unreadable))
                return
            detail = read

    def _begin_or_told(self, detail: ExecutionDetail, begin: Callable[[ExecutionDetail], None], seen: float) -> int:
        """Begin, unless the execution was told more often than its messages take into account; return how often."""
        told = self._runs.told(detail.execution.id)
        if told <= seen:
            begin(detail)
        return told

    async def _read_again(self, detail: ExecutionDetail) -> ExecutionDetail | None:
        """Return the execution with the messages that it has now; None where it has gone on or is no longer ours."""
        before = detail.execution
        read = await self._context.journal.load(self._context.ownership.incarnation, before.id)
        if read is None or (read.execution.epoch, read.execution.last_seq) != (before.epoch, before.last_seq):
            return None
        # The payloads that were read for it stay; its row counts the messages that are read with it.
        return replace(detail, execution=read.execution, messages=read.messages, unreadable=read.unreadable)

    def _begin(
        self,
        look: Look,
        definition: Definition,
        state: State,
        verdict: Failure | None,
        remote: frozenset[str],
        detail: ExecutionDetail,
    ) -> None:
        execution = detail.execution
        ownership = self._context.ownership
        if execution.id in self._runs or not ownership.may_take or execution.incarnation != ownership.incarnation:
            return
        if look.generation != ownership.generation:  # the lease had run out since: another may have taken it
            self.recovery.look_for(execution.id, verdict=verdict)
            return
        if execution.epoch < self._adopted[execution.id][1]:
            return  # while its payloads were read, the process took it anew
        if self._runs.was_let_go(execution, look):
            return  # it has been driven since, and has ended or was left to whoever takes it
        # Its workflow may have been resumed while it was read.
        state = replace(state, is_held_back=execution.held_back)
        run = Run(self._context, self, execution, definition, state)
        self._runs.add(run)
        try:
            self._set_off(run, detail.messages, verdict, remote)
        except Exception as error:  # one that nobody drives would be claimed again and again
            self.broken(run, error)

    def _set_off(self, run: Run, unseen: Sequence[Message], verdict: Failure | None, remote: frozenset[str]) -> None:
        """Let a run go on from what was recorded and sent."""
        verdict, now = verdict or self._quarantine.admit(run), self._context.now
        run.is_condemned = verdict is not None
        run.open_mail(unseen)
        if verdict is None:
            awaited = run.state.awaited
            registry, org = self._context.registry, run.execution.org
            here = frozenset(name for name in awaited if registry.has(org, name))
            run.apply_now(happenings.Recovered(now(), here, remote))
            failpoints.hit("timer.after_due_select")
            if not run.is_behind:  # else timers are looked at when it goes on
                run.apply_now(happenings.TimerFired(now()))
            run.resume_timer()
        else:
            run.apply_now(happenings.Condemned(now(), verdict))

    async def condemn(self, execution_id: UUID, failure: Failure) -> None:
        """End an execution that this process owns, as failed, whatever its rows hold. Raises PersistenceError."""
        context = self._context
        last = await context.journal.condemn(
            context.ownership.incarnation, execution_id, ending(failure, context.encode)
        )
        if last is not None:
            log.error("execution ended", execution_id=str(execution_id), code=failure.code, reason=failure.message)
            context.hub.publish(execution_id, [last])

    # --- what runs report

    def finished(self, run: Run, transition: Transition) -> None:
        """Forget a run that ended or was parked."""
        self.forget(run)
        if transition.state.is_end:
            # As of calls: a line for each that went well is for those who ask for it.
            say = log.debug if transition.state is ExecutionState.COMPLETED else log.info
            say("execution finished", execution_id=str(run.id), state=transition.state.value)
            self._runs.ended()
        elif transition.wake_time is not None:
            self.look_at(transition.wake_time)
            registry, org = self._context.registry, run.execution.org
            if any(registry.has(org, name) for name in run.state.awaited):
                self._context.work.poke()  # a worker with what it awaits came while this was on its way

    def lost(self, run: Run, result: CommitResult) -> None:
        """Stop a run whose write was not accepted, and find out where its execution stands."""
        log.warning("transition not committed", execution_id=str(run.id), result=result.value)
        attempts = run.stop()
        self.forget(run)
        self.recovery.look_for(run.id, attempts)

    def broken(self, run: Run, error: BaseException) -> None:
        """Stop a run that cannot go on, and end its execution as failed; or take it up again, if the store was away."""
        log.error("execution cannot go on", execution_id=str(run.id), exc_info=error)
        attempts = run.stop()
        self.forget(run)
        failure = None
        if run.is_condemned and isinstance(error, PersistenceError) and not isinstance(error, UnavailableError):
            failure = Failure(UNREADABLE_RECORD, "what is recorded of it contradicts itself; its log says how")
        elif not isinstance(error, UnavailableError):
            failure = _MISTAKE
        self.recovery.look_for(run.id, attempts, failure, is_hopeless=run.is_condemned)

    def survived(self, run: Run) -> None:
        """Take note that it is recorded that driving the execution does no harm."""
        if self._quarantine.release(run):
            self._context.work.poke()

    # --- letting go

    def forget(self, run: Run) -> None:
        """Drive an execution no longer."""
        self._runs.remove(run)
        self._context.workers.results.dropped(run.id)
        self.survived(run)

    def workers_came(self, org: str) -> None:
        """Let what waits for workers of an org begin that this process has from now on, driven here or by nobody."""
        registry = self._context.registry
        for run in list(self._runs.all):
            if run.execution.org == org and run.state.awaited and not run.is_closing:
                here = frozenset(name for name in run.state.awaited if registry.has(org, name))
                if here:
                    run.apply(happenings.HandlersCame(self._context.now(), here))
        self._context.work.poke()

    def look_at(self, moment: datetime) -> None:
        """Look for executions to claim at a moment, if it comes before the next regular look or soon after."""
        delay = (moment - self._context.now()).total_seconds()
        if delay <= 60 * self._context.settings.claim_interval:
            self._context.work.poke_after(delay)
