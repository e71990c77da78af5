"""Steps of executions as callers see them: those that have a record, and those that never left PENDING."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from persistence.model import Execution, ExecutionSteps, Scope, Step, StepKey, StepState
from persistence.repository import ExecutionRepository
from service.engine.definition import Definition, StepSpec
from service.engine.planning.outline import outline
from service.engine.planning.state import newest
from service.engine.workflows import Workflows


class StepNotFoundError(Exception):
    """The execution has no such step."""

    def __init__(self, execution_id: UUID, path: str) -> None:
        super().__init__(f"execution {execution_id} has no step {path!r}")
        self.execution_id = execution_id
        self.path = path


@dataclass(frozen=True, slots=True)
class StepFilter:
    """Which steps a list holds: both conditions must hold, an empty one always does."""

    states: frozenset[StepState] = frozenset()
    handler: str = ""


@dataclass(frozen=True, slots=True)
class StepPage:
    """Some steps in the order of the definition, each with its record.

    `unreadable` and `omitted` are those of the store. `following` is the path behind which the next page begins, empty
    at the end.
    """

    definition: Definition
    steps: Sequence[tuple[StepSpec, Step]]
    unreadable: tuple[str, ...]
    omitted: frozenset[StepKey]
    following: str = ""


class Steps:
    """Reads steps, over one repository; of their payloads about `most` characters, those of the first steps.

    All calls raise ExecutionNotFoundError, and QueueFullError unless `most` is 0.
    """

    def __init__(self, repository: ExecutionRepository, workflows: Workflows) -> None:
        self._repository = repository
        self._workflows = workflows

    async def get(self, scope: Scope, execution_id: UUID, path: str, most: int) -> StepPage:
        """Return the page that holds this step alone. Raises StepNotFoundError."""
        found = await self._repository.get_steps(scope, execution_id, [path], most)
        definition = await self._definition(scope, found.execution)
        if path not in definition.root.by_id:
            raise StepNotFoundError(execution_id, path)
        return _page(definition, [definition.root.by_id[path]], found)

    async def page(
        self, scope: Scope, execution_id: UUID, where: StepFilter, after: str, limit: int, most: int
    ) -> StepPage:
        """Return up to `limit` steps in the order of the definition, beginning behind the path `after`.

        Raises StepNotFoundError when that is none of the execution.
        """
        execution = await self._repository.get_execution(scope, execution_id)
        definition = await self._definition(scope, execution)
        if after and after not in definition.root.by_id:
            raise StepNotFoundError(execution_id, after)
        behind = _behind(definition, after)
        left = [step for step in behind if where.handler in ("", step.handler)]
        if where.states:
            bare = await self._repository.get_steps(scope, execution_id, _paths(left), 0)
            left = [step for step, record in _shown(left, bare) if record.state in where.states]
        chosen = left[:limit]
        found = await self._repository.get_steps(scope, execution_id, _paths(chosen), most)
        page = _page(definition, chosen, found)
        # A step may have gone on since it was chosen.
        steps = [each for each in page.steps if not where.states or each[1].state in where.states]
        return replace(page, steps=steps, following=chosen[-1].id if len(left) > limit else "")

    async def _definition(self, scope: Scope, execution: Execution) -> Definition:
        definition = await self._workflows.find(execution)
        return definition or outline(await self._repository.get_detail(scope, execution.id, most=0))


def shown_steps(
    steps: Iterable[StepSpec], execution: Execution, records: Iterable[Step]
) -> Iterator[tuple[StepSpec, Step]]:
    """Give steps of a definition with what is recorded of their newest iterations, or what it means that nothing is."""
    kept = newest(records)
    # Once the execution has ended, a step that never left PENDING never will.
    state = StepState.CANCELLED if execution.state.is_end else StepState.PENDING
    for step in steps:
        yield step, kept.get(step.id) or Step(path=step.id, handler=step.handler, state=state)


def _behind(definition: Definition, after: str) -> Sequence[StepSpec]:
    steps = definition.root.steps
    return steps[steps.index(definition.root.by_id[after]) + 1 :] if after else steps


def _shown(steps: Sequence[StepSpec], found: ExecutionSteps) -> Sequence[tuple[StepSpec, Step]]:
    return list(shown_steps(steps, found.execution, found.steps))


def _page(definition: Definition, steps: Sequence[StepSpec], found: ExecutionSteps) -> StepPage:
    return StepPage(definition, _shown(steps, found), found.unreadable, found.omitted)


def _paths(steps: Sequence[StepSpec]) -> list[str]:
    return [step.id for step in steps]
