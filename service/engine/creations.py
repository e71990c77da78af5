"""New executions: their rows, and what hands them to the store together with what follows at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from persistence import failpoints
from persistence.breakpoints import BreakpointsMetError, WorkflowBreakpoints, setting
from persistence.dry_runs import DryRun
from persistence.errors import UnavailableError
from persistence.model import Event as StoredEvent
from persistence.model import Execution, ExecutionState, Message, MessageKind, StepCounts, Workflow
from persistence.transition import Created, NewExecution
from service.engine.definition import Definition
from service.engine.first_plan import FirstPlan, first_plan
from service.engine.ids import uuid7
from service.engine.planning import happenings, planner
from service.engine.planning.events import Event
from service.engine.planning.planner import Plan
from service.engine.planning.state import initial
from service.engine.requests import StartRequest
from service.engine.running.runner import Runner
from service.engine.slices import Work, in_slices
from service.engine.violations import ValidationError, Violation

_BYTES_A_MICROSECOND = 50
_TRIES = 10


class RaceLostError(Exception):
    """Others were faster each time; to be asked again."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a new execution is prepared of."""

    execution: Execution
    definition: Definition
    given: Mapping[str, Any]
    content_hash: bytes
    accepting: Callable[[], Plan]
    rest: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A new execution that has yet to be handed to the store, and what is to be done when it is kept."""

    asked: _Asked
    new: NewExecution
    plan: Plan


class Creations:
    """Makes executions."""

    def __init__(self, runner: Runner, new_id: Callable[[datetime], UUID] = uuid7) -> None:
        self._runner = runner
        self._new_id = new_id
        self.registry = runner.context.registry
        """The handlers that this process knows."""

    def row(self, workflow: Workflow, owner: str, **rest: Any) -> Execution:
        """Return the row of an execution that is created now, of which nothing has happened yet; `rest` of its facts.

        Its id is by the clock of the store, so that lists by id are in order over all replicas.
        """
        now = self._runner.now()
        return Execution(
            id=self._new_id(now),
            org=workflow.org,
            owner=owner,
            workflow_id=workflow.id,
            workflow_name=workflow.name,
            revision=workflow.revision,
            state=ExecutionState.PENDING,
            create_time=now,
            **rest,
        )

    def started(self, workflow: Workflow, definition: Definition, owner: str, request: StartRequest) -> Execution:
        """Return the row of an execution that somebody asks to be started. Raises ValidationError."""
        execution = self.row(
            workflow,
            owner,
            timeout=request.timeout or definition.timeout,
            counts=StepCounts(total=len(definition.root.steps)),
            priority=definition.default_priority if request.priority is None else request.priority,
            tags=tuple(dict.fromkeys((*definition.tags, *request.tags))),
            labels=dict(request.labels),
            correlation_id=request.correlation_id,
            request_id=request.request_id,
            breakpoints=setting(None, owner, tuple(request.breakpoints)),
            is_dry_run=request.dry_run is not None,
        )
        if not request.start_delay or (request.dry_run is not None and request.dry_run.skips_waits):
            return execution
        try:
            scheduled = execution.create_time + timedelta(seconds=request.start_delay)
        except OverflowError:
            raise ValidationError([Violation("start_delay", "must end before the year 10000")]) from None
        return replace(execution, scheduled_time=scheduled)

    def accepted(
        self, execution: Execution, definition: Definition, given: Mapping[str, Any], dry_run: DryRun | None = None
    ) -> Plan:
        """Return what follows from the acceptance of an execution alone."""
        state = initial(execution, given, self._runner.name, dry_run)
        return planner.apply(definition, state, happenings.Accepted(execution.create_time))

    async def prepare(
        self,
        execution: Execution,
        definition: Definition,
        given: Mapping[str, Any],
        content_hash: bytes,
        accepting: Callable[[], Plan],
        **rest: Any,
    ) -> Prepared:
        """Return an execution with what follows at once: `accepting` gives what follows from its acceptance.

        `rest` is what else `NewExecution` has.
        """
        return await self._prepared(_Asked(execution, definition, given, content_hash, accepting, rest), None)

    async def _prepared(self, asked: _Asked, pending: WorkflowBreakpoints | None) -> Prepared:
        """Return an execution that takes up what is pending of its workflow."""
        execution, definition = asked.execution, asked.definition

        def plan_first() -> FirstPlan:
            accepted = asked.accepting()
            if pending is not None:
                accepted = _holding(definition, accepted, pending, execution)
            return first_plan(self._runner, execution, definition, accepted)

        first = await self._runner.turns.share(execution).take(plan_first)
        plan, events = first.plan, await in_slices(self._encoded(first.plan.events))
        new = NewExecution(
            execution=first.execution,
            input=asked.given,
            content_hash=asked.content_hash,
            steps=plan.steps,
            events=events,
            result=plan.state.result,
            tasks=plan.tasks,
            signals=plan.state.signals,
            waiting=first.waits(events),
            takes=pending.id if pending is not None else None,
            **asked.rest,
        )
        return Prepared(asked, new, plan)

    def hand_in(self, prepared: Prepared) -> asyncio.Future[Created]:
        """Hand an execution to the store, and drive it if this process is its owner; the future is as the store's.

        Where its workflow has breakpoints for it, it is prepared and handed in once more with these.
        """
        answer: asyncio.Future[Created] = asyncio.get_running_loop().create_future()
        self._create(prepared).add_done_callback(partial(self._told, prepared, answer))
        return answer

    def _create(self, prepared: Prepared) -> asyncio.Future[Created]:
        return self._runner.create(prepared.new, prepared.asked.definition, prepared.plan)

    def _told(self, prepared: Prepared, answer: asyncio.Future[Created], kept: asyncio.Future[Created]) -> None:
        error = None if kept.cancelled() else kept.exception()
        if isinstance(error, BreakpointsMetError):
            again = self._take_up(prepared, error, answer)
            self._runner.tasks.spawn(again, f"take up breakpoints for {prepared.new.execution.id}")
        elif answer.done():
            pass  # nobody waits for it any more
        elif kept.cancelled():
            answer.cancel()
        elif error is not None:
            _fail(answer, error)
        else:
            answer.set_result(kept.result())

    async def _take_up(self, prepared: Prepared, met: BreakpointsMetError, answer: asyncio.Future[Created]) -> None:
        """Hand an execution in with the breakpoints that its workflow has for it, or without those that are gone."""
        try:
            for _ in range(_TRIES):
                prepared = await self._prepared(prepared.asked, met.pending)
                await failpoints.reach("exec.before_tx")
                try:
                    created = await asyncio.shield(self._create(prepared))
                except BreakpointsMetError as error:
                    met = error
                else:
                    if not answer.done():
                        answer.set_result(created)
                    return
            raise RaceLostError("the breakpoints of the workflow were changed all the time; send it again")
        except BaseException as error:
            if not answer.done():
                _fail(answer, error if isinstance(error, Exception) else UnavailableError("the server stops"))
            if not isinstance(error, Exception):
                raise

    def _encoded(self, events: Sequence[Event]) -> Work[Sequence[StoredEvent]]:
        found = list[StoredEvent]()
        for event in events:
            found.append(self._runner.context.encode(event))
            yield 20 + len(found[-1].body) // _BYTES_A_MICROSECOND
        return found


def _holding(definition: Definition, accepted: Plan, pending: WorkflowBreakpoints, execution: Execution) -> Plan:
    """Return what follows from the acceptance of an execution that is held where its workflow says."""
    points = [{"path": point.path, "condition": point.condition} for point in pending.points]
    now = execution.create_time
    message = Message(pending.id, MessageKind.BREAKPOINTS, now, pending.by, {"breakpoints": points})
    held = planner.apply(definition, accepted.state, happenings.MessageCame(now, message))
    # Nothing is consumed by it: the message was never in an inbox.
    return Plan(held.state, accepted.events + held.events, accepted.steps + held.steps)


def _fail(answer: asyncio.Future[Created], error: BaseException) -> None:
    """Give an answer an error, which nobody may be there to read any more."""
    answer.set_exception(error)
    answer.exception()
