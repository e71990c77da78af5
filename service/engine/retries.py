"""Retries in place: executions go on after their end, from what failed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from dataclasses import replace as replaced
from functools import partial
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from persistence import failpoints
from persistence.errors import ExecutionStateError
from persistence.model import RETRIABLE_STATES, Edit, Execution, ExecutionDetail, ExecutionState, Posted, Scope
from persistence.repository import Repository
from persistence.requests import Asked, Method, Request
from persistence.transition import Reopening
from service.engine.definition import Call, Definition
from service.engine.editing import NO_HANDLER, StepNotRetriedError, judge_input
from service.engine.payload import normalising
from service.engine.planning import happenings
from service.engine.planning.restoring import restoring
from service.engine.planning.retry_rules import reopening
from service.engine.planning.state import State
from service.engine.repeats import unless_asked
from service.engine.requests import asked
from service.engine.running.runner import Runner
from service.engine.running.soundness import contradicting
from service.engine.slices import in_slices
from service.engine.steps import StepNotFoundError
from service.engine.workflows import Workflows

NAMED = 10
"""Steps that a refusal names at most of those that run again."""


@dataclass(frozen=True, slots=True)
class Change:
    """What differs for one step: the input that it is called with; or, of one to be skipped by hand, its output.

    `moves_secrets`: who asks for it may send secrets anywhere.
    """

    path: str
    value: Any
    is_skip: bool = False
    moves_secrets: bool = False

    @property
    def field(self) -> str:
        """Where the value stands in the request."""
        return "skip.output" if self.is_skip else "edit.input"


@dataclass(frozen=True, slots=True)
class Retry:
    """What is asked: why, how many seconds the new run may take, if not as many as the first, and what differs.

    `bulk_id` is the operation in bulk that asks, empty for a call; it asks for executions in one of these `states`, any
    where there are none.
    """

    reason: str = ""
    timeout: float | None = None
    change: Change | None = None
    bulk_id: str = ""
    states: Collection[ExecutionState] = ()


class Retries:
    """Lets executions go on after their end. Whoever claims one then goes on with it, this process if it can."""

    def __init__(self, repository: Repository, workflows: Workflows, runner: Runner) -> None:
        self._repository = repository
        self._workflows = workflows
        self._runner = runner

    async def retry(self, scope: Scope, execution_id: UUID, by: str, retry: Retry, request_id: str = "") -> Execution:
        """Reopen an execution and return it after that; a request id that was used so before changes nothing.

        Nothing of it begins before the commit. Raises ExecutionNotFoundError, ExecutionStateError, StepNotFoundError,
        StepNotRetriedError, ValidationError, WorkflowNotFoundError, UnreadableError, RequestIdReusedError.
        """
        change = retry.change
        if change is not None:
            change = replaced(change, value=await in_slices(normalising(change.value, change.field)))
        request = await in_slices(
            asked(
                Method.RETRY,
                request_id,
                by,
                execution_id=str(execution_id),
                reason=retry.reason,
                timeout=retry.timeout,
                change=change and [change.path, change.is_skip, change.value],
            )
        )

        async def make() -> Execution:
            detail = await self._repository.get_detail(scope, execution_id, most=0)
            planned = await self._planned(detail, by, retry, change)
            return await self._reopen(scope, planned, request)

        async def again(_: Asked) -> Execution:
            return await self._repository.get_execution(scope, execution_id)

        return await unless_asked(self._repository, scope.org, request, make, again)

    async def _planned(self, detail: ExecutionDetail, by: str, retry: Retry, change: Change | None) -> Reopening:
        before = detail.execution
        if before.state not in RETRIABLE_STATES:
            wanted = "only what has ended FAILED, TIMED_OUT or CANCELLED can be retried"
            raise ExecutionStateError(before.id, before.state, wanted)
        if retry.states and before.state not in retry.states:  # from here on, another end is told by its seq
            raise ExecutionStateError(before.id, before.state, "it no longer is what the operation asked for")
        definition = await self._workflows.of(before)
        state = await in_slices(restoring(definition, detail, ""))
        now = self._runner.now()
        happening = happenings.Reopened(now, by, retry.reason, retry.timeout, None, retry.bulk_id)
        after, event = await in_slices(reopening(definition, state, happening))
        if change is not None:
            edit = self._edit(definition, before, after, change)
            edited = happenings.Reopened(now, by, retry.reason, retry.timeout, edit, retry.bulk_id)
            after, event = await in_slices(reopening(definition, state, edited))
        await _check_sound(definition, detail, after)
        if after.start_time is None or after.deadline_time is None:
            raise TypeError(f"execution {before.id} was reopened and has not started")
        return Reopening(
            before.id,
            before.last_seq,
            after.run,
            after.counts,
            after.start_time,
            after.deadline_time,
            after.bytes,
            self._runner.context.encode(event),
            after.edit,
        )

    def _edit(self, definition: Definition, execution: Execution, after: State, change: Change) -> Edit:
        """Return the edit of the iteration in which the step runs again."""
        spec, earlier = definition.find(change.path), after.earlier.get(change.path)
        if spec is None:
            raise StepNotFoundError(execution.id, change.path)
        refused = partial(StepNotRetriedError, execution.id, change.path)
        if earlier is None:
            step = after.steps.get(change.path)
            paths = sorted(after.earlier)
            named = ", ".join(paths[:NAMED]) + (f" and {len(paths) - NAMED} more" if len(paths) > NAMED else "")
            wanted = f"does not run again; those that do: {named or 'none'}"
            raise refused(step.state.value if step is not None else "PENDING", wanted)
        if not change.is_skip:
            if not isinstance(spec.action, Call):
                raise refused(earlier.state.value, NO_HANDLER)
            registry, moves_secrets = self._runner.context.registry, change.moves_secrets
            judge_input(registry, execution.org, spec.action, change.value, change.field, moves_secrets=moves_secrets)
        return Edit(change.path, earlier.iteration + 1, change.value, change.is_skip)

    async def _reopen(self, scope: Scope, planned: Reopening, request: Request | None) -> Execution:
        await failpoints.reach("retry.before_commit")
        reopened = await self._repository.reopen(scope, planned, request)
        await failpoints.reach("retry.after_commit_before_claim")
        if not reopened.is_new:
            return reopened.execution
        self._runner.context.hub.publish(planned.execution_id, [planned.event])
        execution = reopened.execution
        if not self._runner.has_place(execution.org, execution.owner):
            return execution  # whoever has room claims it: the store has told all
        taking = self._runner.hand_in(Posted(execution, None), to_the_end=False)
        # Whoever takes an execution has to drive it, also when the caller has gone in between.
        await asyncio.shield(self._runner.tasks.spawn(taking, f"retry {planned.execution_id}"))
        return await self._repository.get_execution(scope, planned.execution_id)


async def _check_sound(definition: Definition, detail: ExecutionDetail, after: State) -> None:
    """Refuse what would be ended again by whoever takes it, since nobody can read it."""
    execution = replace(
        detail.execution,
        state=after.state,
        counts=after.counts,
        last_seq=after.last_seq,
        reopened_seq=after.reopened_seq,
        start_time=after.start_time,
        end_time=None,
        deadline_time=after.deadline_time,
    )
    after_it = replace(detail, execution=execution)
    if found := list(detail.unreadable) or list(await in_slices(contradicting(definition, after_it))):
        wanted = f"what is recorded of it cannot be read, so it cannot go on: {', '.join(found[:NAMED])}"
        raise ExecutionStateError(execution.id, detail.execution.state, wanted)
