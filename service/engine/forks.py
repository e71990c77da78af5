"""Forks: new executions that are made from existing ones, which stay as they are."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from msgspec.structs import replace

from persistence import failpoints
from persistence.errors import ExecutionStateError, PersistenceError
from persistence.lineage import Lineage
from persistence.model import Execution, ExecutionDetail, Scope, Step, StepCounts, Workflow
from persistence.repository import Repository
from persistence.requests import Method, Request
from service.engine import paths
from service.engine.creations import Creations
from service.engine.definition import Definition, StepSpec
from service.engine.dry_runs import resolving
from service.engine.parsing import check_input
from service.engine.payload import normalising, size
from service.engine.planning.forking import Given, forking
from service.engine.planning.inheriting import MOST_INHERITED, Check, CheckKind, Inheritance, inheriting
from service.engine.planning.planner import Plan
from service.engine.planning.state import finding_newest
from service.engine.requests import asked
from service.engine.slices import Work, in_slices
from service.engine.steps import StepNotFoundError
from service.engine.violations import ValidationError, Violation
from service.engine.workflows import Workflows

MOST_BYTES = 2 << 20
"""Bytes of payloads that one execution inherits of another: they are written in one commit, whose rows are made in one
go."""

_READ = 16 << 20
"""Characters of payloads that are read of an execution; what lies behind the step may come first."""

_BYTES_A_MICROSECOND = 50

NAMED = 10
"""Things that do not fit which a refusal names at most."""


class ForkNotFittingError(PersistenceError):
    """What is recorded of the execution does not fit what is to be made of it."""

    def __init__(self, execution_id: UUID, checks: Sequence[Check]) -> None:
        more = f"; and {len(checks) - NAMED} more" if len(checks) > NAMED else ""
        super().__init__(f"execution {execution_id} does not fit: {'; '.join(map(str, checks[:NAMED]))}{more}")
        self.execution_id = execution_id
        self.checks = tuple(checks)


class ForkTooLargeError(PersistenceError):
    """More would be inherited than one commit may copy."""

    def __init__(self, execution_id: UUID, steps: int, size: int) -> None:
        super().__init__(
            f"of execution {execution_id}, {steps:,} steps with {size:,} bytes of payloads or more would be inherited; "
            f"{MOST_INHERITED:,} steps and {MOST_BYTES:,} bytes may be: begin from an earlier step, or give outputs"
        )
        self.execution_id = execution_id
        self.steps = steps
        self.size = size


class ForkRequest(msgspec.Struct, frozen=True):
    """What is to be otherwise in the new execution: None is as it was. Revision 0 is the latest.

    It begins from the step at `path`, from the beginning where that is empty. `iteration` 0 is the newest one of it.
    `vars` and `outputs` stand in place of what was recorded of what lies before.
    """

    input: Mapping[str, Any] | None = None
    revision: int | None = None
    path: str = ""
    iteration: int = 0
    vars: Mapping[str, Any] = msgspec.field(default_factory=dict)
    outputs: Mapping[str, Any] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Forked:
    """The new execution, None where that was only tried; whether this call made it; and what does not fit."""

    execution: Execution | None
    created: bool = False
    checks: Sequence[Check] = ()


class Forks:
    """Makes executions of others."""

    def __init__(self, repository: Repository, workflows: Workflows, name: str, creations: Creations) -> None:
        self._repository = repository
        self._workflows = workflows
        self._name = name
        self._creations = creations

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
        asks = await in_slices(_normal(asks))
        request = None if validate_only else await in_slices(_asked(execution_id, by, asks, request_id))
        if request is not None:
            first = await self._repository.find_request(scope.org, request.id, frozenset({request.content_hash}))
            if first is not None:
                return Forked(first)
        source = await self._source(scope, execution_id, asks)
        before = source.execution
        revision = before.revision if asks.revision is None else asks.revision
        workflow, definition = await self._workflows.resolve(Scope(scope.org), str(before.workflow_id), revision)
        checks = _checks(definition, source, asks)
        inheritance = await self._inheritance(definition, source, asks)
        checks += inheritance.checks
        fork = self._copy(workflow, source, by, request, asks)
        given = source.input if asks.input is None else asks.input
        dry_run = await in_slices(resolving(definition, workflow.org, self._creations.registry, source.dry_run))
        values = Given(asks.outputs, asks.vars)
        accepting = forking(definition, fork, given, self._name, inheritance, values, dry_run)
        if checks and validate_only:
            return Forked(None, checks=checks)
        if checks:
            raise ForkNotFittingError(execution_id, checks)
        fork, accepted = await in_slices(accepting)  # also one that is only tried tells what a given output lacks
        if validate_only:
            return Forked(None)
        return await self._create(fork, definition, given, asks, accepted, request)

    async def _source(self, scope: Scope, execution_id: UUID, asks: ForkRequest) -> ExecutionDetail:
        """Return the existing execution, with its steps where some of them are inherited."""
        if asks.path:
            source = await self._repository.get_detail(scope, execution_id, most=_READ)
        else:
            source = await self._repository.get_detail(scope, execution_id, most=0, first=1)
        lost = [name for name in source.unreadable if asks.path or name in ("input", "dry_run")]
        if asks.input is not None and "input" in lost:
            lost.remove("input")
        if lost:
            wanted = f"what is recorded of it cannot be read, so nothing is made of it: {', '.join(lost[:NAMED])}"
            raise ExecutionStateError(execution_id, source.execution.state, wanted)
        return source

    async def _inheritance(self, definition: Definition, source: ExecutionDetail, asks: ForkRequest) -> Inheritance:
        """Return what is inherited. Raises StepNotFoundError, ValidationError, ForkTooLargeError."""
        if not asks.path:
            if asks.outputs:
                raise ValidationError([Violation("outputs", "are of what lies before a step; name that as step_path")])
            return Inheritance()
        execution_id, root = source.execution.id, definition.root.by_id
        if asks.path not in root:
            around = paths.place(asks.path).partition(".")[0]
            if definition.find(asks.path) is not None:
                described = f"must be a step of the workflow itself: begin from {around}, which then runs whole"
                raise ValidationError([Violation("step_path", described)])
            raise StepNotFoundError(execution_id, asks.path)
        newest = await in_slices(finding_newest(source.steps))
        known = newest.get(asks.path)
        if asks.iteration and (known is None or asks.iteration > known.iteration):
            raise StepNotFoundError(execution_id, asks.path, asks.iteration)
        found = await in_slices(inheriting(definition, newest, asks.path, asks.outputs.keys()))
        wrong = [
            Violation(f"outputs[{index}].path", f"{path!r} {_why_not(path, root, asks.path)}")
            for index, path in enumerate(asks.outputs)
            if path not in root or path in found.running
        ]
        if wrong:
            raise ValidationError(wrong)
        omitted = source.omitted & {step.key for step in found.steps}
        total = await in_slices(_sizes(found.steps))
        if omitted or len(found.steps) > MOST_INHERITED or total > MOST_BYTES:
            raise ForkTooLargeError(execution_id, len(found.steps), total)
        return found

    def _copy(
        self, workflow: Workflow, source: ExecutionDetail, by: str, request: Request | None, asks: ForkRequest
    ) -> Execution:
        """Return the row of the new execution, of which nothing has happened yet."""
        before = source.execution
        of_step = [step.iteration for step in source.steps if step.path == asks.path]
        iteration = asks.iteration or max(of_step, default=0)
        return self._creations.row(
            workflow,
            by,
            timeout=before.timeout,
            counts=StepCounts(),
            priority=before.priority,
            tags=tuple(before.tags),
            labels=dict(before.labels),
            correlation_id=before.correlation_id,
            request_id=request.id if request is not None else "",
            lineage=Lineage(before.id, before.last_seq, asks.path, iteration),
            is_dry_run=before.is_dry_run,
        )

    async def _create(
        self,
        execution: Execution,
        definition: Definition,
        given: Mapping[str, Any],
        asks: ForkRequest,
        accepted: Plan,
        request: Request | None,
    ) -> Forked:
        content_hash, dry_run = request.content_hash if request is not None else b"", accepted.state.dry_run
        prepared = await self._creations.prepare(
            execution, definition, given, content_hash, lambda: accepted, vars=asks.vars, dry_run=dry_run
        )
        await failpoints.reach("fork.before_commit")
        created = await asyncio.shield(self._creations.hand_in(prepared))
        await failpoints.reach("fork.after_commit_before_reply")
        return Forked(created.execution, created.created)


def _checks(definition: Definition, source: ExecutionDetail, asks: ForkRequest) -> list[Check]:
    """Return what does not fit of the input that is recorded. Raises ValidationError for one that was given."""
    if asks.input is not None:
        check_input(definition, asks.input)
        return []
    try:
        check_input(definition, source.input)
    except ValidationError as error:
        revision = "the latest revision" if asks.revision == 0 else "the revision"
        return [Check(CheckKind.INPUT, "", f"its input does not meet the input_schema of {revision}: {error}")]
    return []


def _why_not(path: str, root: Mapping[str, StepSpec], start: str) -> str:
    if path not in root:
        return "is no step of the workflow itself in this revision"
    return f"runs when the execution begins from {start}, so its output cannot be given"


def _sizes(steps: Sequence[Step]) -> Work[int]:
    """Return how many bytes the payloads of steps have, as JSON."""
    total = 0
    for step in steps:
        of_it = sum(size(value) for value in (step.input, step.output, step.assigned) if value is not None)
        total += of_it
        yield 2 + of_it // _BYTES_A_MICROSECOND
    return total


def _normal(asks: ForkRequest) -> Work[ForkRequest]:
    """Return what is asked for as it can be kept. Raises ValidationError."""
    input = asks.input if asks.input is None else (yield from normalising(dict(asks.input), "input"))
    vars = yield from normalising(dict(asks.vars), "vars")
    outputs = dict[str, Any]()
    for index, (path, output) in enumerate(asks.outputs.items()):
        outputs[path] = yield from normalising(output, f"outputs[{index}].output")
    return replace(asks, input=input, vars=vars, outputs=outputs)


def _asked(execution_id: UUID, by: str, asks: ForkRequest, request_id: str) -> Work[Request | None]:
    given: dict[str, Any] = {"fork": str(execution_id), "revision": asks.revision, "has_input": asks.input is not None}
    given |= {"step": [asks.path, asks.iteration], "given": list(asks.outputs)}
    documents = [{} if asks.input is None else asks.input, asks.vars, asks.outputs]
    return asked(Method.EXECUTE, request_id, by, documents, **given)
