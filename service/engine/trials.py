"""Trials: runs one step by itself, for trying a definition, and keeps nothing of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from persistence.errors import QueueFullError
from persistence.gate import Gate
from persistence.model import Execution, ExecutionState, Scope, Step, StepCounts
from service.engine.definition import Call, Definition
from service.engine.ids import uuid7
from service.engine.payload import normalising
from service.engine.planning.one_step import Given, Next, surrounding
from service.engine.running.runner import Runner
from service.engine.running.trial import NoHandlerError, Trial
from service.engine.slices import in_slices
from service.engine.violations import ValidationError, Violation
from service.engine.workflows import Workflows

AT_A_TIME = 16
"""Steps that one process runs by themselves at a time."""

OF_AN_ORG = 12
"""Of these, those of one org at most."""

_NAMED = 10

PATIENCE = 2.0
"""Seconds that a call waits for its turn."""

MOST_RECORDED, MOST_STEPS = 8 << 20, 10_000
"""Characters of the payloads that are taken of an execution, and its steps: of more, it would take too long."""


class StepNotTestedError(Exception):
    """The step cannot be run by itself here; the message says why, and what would be right."""

    def __init__(self, path: str, handler: str, why: str) -> None:
        super().__init__(f"step {path} cannot be run by itself: {why}")
        self.path = path
        self.handler = handler


@dataclass(frozen=True, slots=True)
class Source:
    """Where the step stands: in a workflow that is kept, in a definition that is not, or in that of the execution."""

    workflow: str = ""
    revision: int = 0
    definition: Definition | None = None


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of the step, and what would come next."""

    definition: Definition
    step: Step
    following: Sequence[Next]


class Trials:
    """Runs steps by themselves. They have places of their own, threads as any attempt has, and no rows."""

    def __init__(self, workflows: Workflows, runner: Runner) -> None:
        self._workflows = workflows
        self._runner = runner
        self._places = Gate(AT_A_TIME, PATIENCE)
        self._of_orgs = Counter[str]()

    async def run(self, scope: Scope, by: str, source: Source, path: str, given: Given) -> Tried:
        """Run the step and return what became of it; when the call is cancelled, its attempt is told to stop.

        Raises ValidationError, WorkflowNotFoundError, RevisionNotFoundError, UnreadableError, StepNotTestedError,
        QueueFullError.
        """
        given = await _clean(given)
        if given.recorded is not None and given.recorded.unreadable:
            lost = ", ".join(given.recorded.unreadable[:_NAMED])
            raise StepNotTestedError(path, "", f"what is recorded of the execution cannot be read: {lost}")
        if given.recorded is not None and (given.recorded.omitted or len(given.recorded.steps) > MOST_STEPS):
            most = f"{MOST_STEPS:,} steps, or {MOST_RECORDED:,} characters of payloads"
            why = f"the execution has more than {most}; give the values that the step needs, without execution_id"
            raise StepNotTestedError(path, "", why)
        async with self._places.place(scope.org), self._share(scope.org):
            execution, definition = await self._execution(scope, by, source, given)
            spec = definition.find(path)
            if spec is None:
                raise ValidationError([Violation("path", "the definition has no such step")])
            if isinstance(spec.action, Call):
                self._check_handler(execution, path, spec.action.handler)
            elif given.params is not None:
                raise ValidationError([Violation("params", "the step has no handler that is called with any")])
            state = await in_slices(surrounding(definition, execution, path, given, self._runner.now()))
            try:
                step, following = await Trial(execution, definition, path, state, self._runner.context).run()
            except NoHandlerError as error:
                raise StepNotTestedError(path, spec.handler, str(error)) from None
            return Tried(definition, step, following)

    @asynccontextmanager
    async def _share(self, org: str) -> AsyncIterator[None]:
        """Hold a place for an org, which leaves some to others. Raises QueueFullError."""
        if self._of_orgs[org] >= OF_AN_ORG:
            raise QueueFullError(f"{OF_AN_ORG} steps of the org run by themselves already")
        self._of_orgs[org] += 1
        try:
            yield
        finally:
            self._of_orgs[org] -= 1
            if not self._of_orgs[org]:
                del self._of_orgs[org]

    async def _execution(self, scope: Scope, by: str, source: Source, given: Given) -> tuple[Execution, Definition]:
        """Return what the step takes for its execution, and what that runs: of a recorded one its facts are kept."""
        before = None if given.recorded is None else given.recorded.execution
        now = self._runner.now()
        if source.definition is not None:
            definition, workflow_id, revision = source.definition, uuid7(now), 0
        elif source.workflow:
            workflow, definition = await self._workflows.resolve(scope, source.workflow, source.revision)
            workflow_id, revision = workflow.id, workflow.revision
        elif before is not None:
            definition, workflow_id, revision = await self._workflows.of(before), before.workflow_id, before.revision
        else:
            raise ValidationError([Violation("source", "is required without execution_id")])
        return Execution(
            id=uuid7(now),  # its own, by which what it does outside is told from what the recorded one did
            org=scope.org,
            owner=by,
            workflow_id=workflow_id,
            workflow_name=definition.name,
            revision=revision,
            state=ExecutionState.RUNNING,
            create_time=now,
            timeout=definition.timeout,
            counts=StepCounts(total=len(definition.places)),
            tags=definition.tags if before is None else before.tags,
            labels=definition.labels if before is None else before.labels,
            correlation_id="" if before is None else before.correlation_id,
        ), definition

    def _check_handler(self, execution: Execution, path: str, name: str) -> None:
        registry = self._runner.context.registry
        if registry.is_own(name):
            return
        if registry.get(name, execution.org) is not None:
            why = f"only workers have its handler {name!r}; run an execution of a workflow with this step alone"
        else:
            why = f"this server does not have its handler {name!r}, and workers run none by itself"
        raise StepNotTestedError(path, name, why)


async def _clean(given: Given) -> Given:
    """Return what is given as it is kept of executions. Raises ValidationError for what is no payload."""

    async def clean(value: Any, name: str) -> Any:
        return await in_slices(normalising(value, name))

    return replace(
        given,
        input=None if given.input is None else await clean(dict(given.input), "input"),
        variables=await clean(dict(given.variables), "variables"),
        outputs=await clean(dict(given.outputs), "outputs"),
        items=await clean(dict(given.items), "items"),
        params=None if given.params is None else await clean(dict(given.params), "params"),
    )
