"""Forks: new executions that are made from existing ones, which stay as they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
from msgspec.structs import replace

from persistence import failpoints
from persistence.errors import ExecutionStateError, PersistenceError
from persistence.lineage import Lineage
from persistence.model import Execution, ExecutionDetail, ExecutionState, Scope, StepCounts, Workflow
from persistence.repository import Repository
from persistence.requests import Method, Request
from persistence.transition import NewExecution
from service.engine.definition import Definition
from service.engine.first_plan import first_plan
from service.engine.parsing import check_input
from service.engine.payload import normalising
from service.engine.planning import happenings, planner
from service.engine.planning.planner import Plan
from service.engine.planning.state import initial
from service.engine.requests import asked
from service.engine.running.runner import Runner
from service.engine.slices import in_slices
from service.engine.violations import ValidationError
from service.engine.workflows import Workflows

NAMED = 10
"""Things that do not fit which a refusal names at most."""


class CheckKind(StrEnum):
    """What is recorded and does not fit; the names are those of the proto."""

    INPUT = "INPUT"


@dataclass(frozen=True, slots=True)
class Check:
    """Something recorded that does not fit what is to be made of it, and what would be right."""

    kind: CheckKind
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ForkNotFittingError(PersistenceError):
    """What is recorded of the execution does not fit what is to be made of it."""

    def __init__(self, execution_id: UUID, checks: Sequence[Check]) -> None:
        more = f"; and {len(checks) - NAMED} more" if len(checks) > NAMED else ""
        super().__init__(f"execution {execution_id} does not fit: {'; '.join(map(str, checks[:NAMED]))}{more}")
        self.execution_id = execution_id
        self.checks = tuple(checks)


class ForkRequest(msgspec.Struct, frozen=True):
    """What is to be otherwise in the new execution: None is as it was. Revision 0 is the latest."""

    input: Mapping[str, Any] | None = None
    revision: int | None = None


@dataclass(frozen=True, slots=True)
class Forked:
    """The new execution, None where that was only tried; whether this call made it; and what does not fit."""

    execution: Execution | None
    created: bool = False
    checks: Sequence[Check] = ()


class Forks:
    """Makes executions of others."""

    def __init__(
        self, repository: Repository, workflows: Workflows, runner: Runner, new_id: Callable[[datetime], UUID]
    ) -> None:
        self._repository = repository
        self._workflows = workflows
        self._runner = runner
        self._new_id = new_id

    async def fork(
        self,
        scope: Scope,
        execution_id: UUID,
        by: str,
        asks: ForkRequest,
        request_id: str = "",
        *,
        validate_only: bool = False,
    ) -> Forked:
        """Keep a new execution and drive it if there is room, or return the one that the request id made before.

        With `validate_only` only tell what does not fit. Raises ExecutionNotFoundError, ExecutionStateError where the
        existing one cannot be read, ForkNotFittingError, ValidationError, WorkflowNotFoundError,
        RevisionNotFoundError, RequestIdReusedError, QueueFullError.
        """
        if asks.input is not None:
            asks = replace(asks, input=await in_slices(normalising(dict(asks.input), "input")))
        request = None if validate_only else await in_slices(_asked(execution_id, by, asks, request_id))
        if request is not None:
            first = await self._repository.find_request(scope.org, request.id, frozenset({request.content_hash}))
            if first is not None:
                return Forked(first)
        source = await self._repository.get_detail(scope, execution_id, most=0, first=1)
        if "input" in source.unreadable and asks.input is None:
            wanted = "what is recorded of its input cannot be read; give another one"
            raise ExecutionStateError(execution_id, source.execution.state, wanted)
        before = source.execution
        revision = before.revision if asks.revision is None else asks.revision
        workflow, definition = await self._workflows.resolve(Scope(scope.org), str(before.workflow_id), revision)
        checks = _checks(definition, source, asks)
        if validate_only:
            return Forked(None, checks=checks)
        if checks:
            raise ForkNotFittingError(execution_id, checks)
        return await self._create(
            self._copy(workflow, definition, source, by, request), definition, source, asks, request
        )

    def _copy(
        self, workflow: Workflow, definition: Definition, source: ExecutionDetail, by: str, request: Request | None
    ) -> Execution:
        """Return the row of the new execution, of which nothing has happened yet."""
        now, before = self._runner.now(), source.execution
        return Execution(
            id=self._new_id(now),
            org=workflow.org,
            owner=by,
            workflow_id=workflow.id,
            workflow_name=workflow.name,
            revision=workflow.revision,
            state=ExecutionState.PENDING,
            create_time=now,
            timeout=before.timeout,
            counts=StepCounts(total=len(definition.root.steps)),
            priority=before.priority,
            tags=tuple(before.tags),
            labels=dict(before.labels),
            correlation_id=before.correlation_id,
            request_id=request.id if request is not None else "",
            lineage=Lineage(before.id, before.last_seq),
        )

    async def _create(
        self,
        execution: Execution,
        definition: Definition,
        source: ExecutionDetail,
        asks: ForkRequest,
        request: Request | None,
    ) -> Forked:
        given = source.input if asks.input is None else asks.input
        share = self._runner.turns.share(execution)
        execution, plan = await share.take(partial(self._plan, execution, definition, given))
        new = NewExecution(
            execution=execution,
            input=given,
            content_hash=request.content_hash if request is not None else b"",
            steps=plan.steps,
            events=self._runner.context.encode_all(plan.events),
            result=plan.state.result,
            tasks=plan.tasks,
        )
        await failpoints.reach("exec.before_tx")
        created = await asyncio.shield(self._runner.create(new, definition, plan))
        await failpoints.reach("exec.after_commit_before_reply")
        return Forked(created.execution, created.created)

    def _plan(self, execution: Execution, definition: Definition, given: Mapping[str, Any]) -> tuple[Execution, Plan]:
        accepted = happenings.Accepted(execution.create_time, execution.lineage)
        plan = planner.apply(definition, initial(execution, given, self._runner.name), accepted)
        return first_plan(self._runner, execution, definition, plan)


def _checks(definition: Definition, source: ExecutionDetail, asks: ForkRequest) -> Sequence[Check]:
    """Return what does not fit of what is recorded. Raises ValidationError for what was given."""
    if asks.input is not None:
        check_input(definition, asks.input)
        return ()
    try:
        check_input(definition, source.input)
    except ValidationError as error:
        revision = "the latest revision" if asks.revision == 0 else "the revision"
        return [Check(CheckKind.INPUT, "", f"its input does not meet the input_schema of {revision}: {error}")]
    return ()


def _asked(execution_id: UUID, by: str, asks: ForkRequest, request_id: str) -> Any:
    given = [] if asks.input is None else [asks.input]
    return asked(
        Method.EXECUTE, request_id, by, given, fork=str(execution_id), revision=asks.revision, has_input=bool(given)
    )
