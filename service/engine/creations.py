"""New executions: their rows, and what hands them to the store together with what follows at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from persistence.breakpoints import setting
from persistence.model import Event as StoredEvent
from persistence.model import Execution, ExecutionState, StepCounts, Workflow
from persistence.transition import Created, NewExecution
from service.engine.definition import Definition
from service.engine.first_plan import first_plan
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


@dataclass(frozen=True, slots=True)
class Prepared:
    """A new execution that has yet to be handed to the store, and what is to be done when it is kept."""

    new: NewExecution
    definition: Definition
    plan: Plan


class Creations:
    """Makes executions."""

    def __init__(self, runner: Runner, new_id: Callable[[datetime], UUID] = uuid7) -> None:
        self._runner = runner
        self._new_id = new_id

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
        )
        if not request.start_delay:
            return execution
        try:
            scheduled = execution.create_time + timedelta(seconds=request.start_delay)
        except OverflowError:
            raise ValidationError([Violation("start_delay", "must end before the year 10000")]) from None
        return replace(execution, scheduled_time=scheduled)

    def accepted(self, execution: Execution, definition: Definition, given: Mapping[str, Any]) -> Plan:
        """Return what follows from the acceptance of an execution alone."""
        state = initial(execution, given, self._runner.name)
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
        share = self._runner.turns.share(execution)
        first = await share.take(lambda: first_plan(self._runner, execution, definition, accepting()))
        plan, events = first.plan, await in_slices(self._encoded(first.plan.events))
        new = NewExecution(
            execution=first.execution,
            input=given,
            content_hash=content_hash,
            steps=plan.steps,
            events=events,
            result=plan.state.result,
            tasks=plan.tasks,
            signals=plan.state.signals,
            waiting=first.waits(events),
            **rest,
        )
        return Prepared(new, definition, plan)

    def hand_in(self, prepared: Prepared) -> asyncio.Future[Created]:
        """Hand an execution to the store, and drive it if this process is its owner; the future is the store's."""
        return self._runner.create(prepared.new, prepared.definition, prepared.plan)

    def _encoded(self, events: Sequence[Event]) -> Work[Sequence[StoredEvent]]:
        found = list[StoredEvent]()
        for event in events:
            found.append(self._runner.context.encode(event))
            yield 20 + len(found[-1].body) // _BYTES_A_MICROSECOND
        return found
