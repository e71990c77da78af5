"""Steps of executions as callers see them: those that have a record, and those that never left PENDING."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from uuid import UUID

from persistence.lineage import Lineage
from persistence.listing import StepFilter, StepPlace
from persistence.model import Execution, ExecutionDetail, ExecutionSteps, Scope, Step, StepKey, StepState
from persistence.repository import ExecutionRepository
from service.engine import paths
from service.engine.definition import Definition, StepSpec
from service.engine.planning.outline import outlining
from service.engine.planning.scopes import order
from service.engine.planning.state import finding_newest, newest
from service.engine.slices import Work, in_slices
from service.engine.workflows import Workflows

_LOOK = 6  # microseconds for a step


class StepNotFoundError(Exception):
    """The execution has no such step."""

    def __init__(self, execution_id: UUID, path: str, iteration: int = 0) -> None:
        which = f" in iteration {iteration}" if iteration else ""
        super().__init__(f"execution {execution_id} has no step {path!r}{which}")
        self.execution_id = execution_id
        self.path = path


@dataclass(frozen=True, slots=True)
class StepPage:
    """Some steps in the order of the definition, each with its record.

    `unreadable` and `omitted` are those of the store. `following` is the path behind which the next page begins, empty
    at the end. `lineage` is that of the execution.
    """

    definition: Definition
    steps: Sequence[tuple[StepSpec, Step]]
    unreadable: tuple[str, ...]
    omitted: frozenset[StepKey]
    following: str = ""
    lineage: Lineage | None = None


class Steps:
    """Reads steps, over one repository; of their payloads about `most` characters, those of the first steps.

    All calls raise ExecutionNotFoundError, and QueueFullError unless `most` is 0.
    """

    def __init__(self, repository: ExecutionRepository, workflows: Workflows) -> None:
        self._repository = repository
        self._workflows = workflows

    async def get(self, scope: Scope, execution_id: UUID, path: str, most: int, iteration: int = 0) -> StepPage:
        """Return the page that holds this step alone, in its newest or another iteration. Raises StepNotFoundError."""
        found = await self._repository.get_steps(scope, execution_id, [path], most, iteration)
        definition = await self._definition(scope, found.execution)
        # The step of an item is there from when it begins, as is an iteration that repeats one before.
        is_of_root = path in definition.root.by_id and iteration <= 1
        if not is_of_root and not (found.steps and definition.find(path)):
            raise StepNotFoundError(execution_id, path, iteration)
        return _page(definition, [path], found)

    async def page(
        self, scope: Scope, execution_id: UUID, where: StepFilter, after: str, limit: int, most: int
    ) -> StepPage:
        """Return up to `limit` steps in the order of the definition, beginning behind the path `after`.

        The steps of a body stand behind the step that runs it, item by item, those alone that have begun. Raises
        StepNotFoundError when the execution can have no step of this path.
        """
        execution = await self._repository.get_execution(scope, execution_id)
        definition = await self._definition(scope, execution)
        if after and definition.find(after) is None:
            raise StepNotFoundError(execution_id, after)
        behind = await self._place(scope, execution_id, definition, after) if after else None
        found = list(await self._of_root(scope, execution, definition, where, behind))
        if len(definition.blocks) > 1:
            found += await self._of_items(scope, execution_id, definition, where, behind, limit + 1)
        left = [path for _, path in sorted(found)]
        chosen = left[:limit]
        page = _page(definition, chosen, await self._repository.get_steps(scope, execution_id, chosen, most))
        # A step may have gone on since it was chosen.
        steps = [each for each in page.steps if not where.states or each[1].state in where.states]
        return replace(page, steps=steps, following=chosen[-1] if len(left) > limit else "")

    async def _place(self, scope: Scope, execution_id: UUID, definition: Definition, path: str) -> StepPlace:
        """Return where a step stands: by its record, since a definition that is made of records has not all steps."""
        found = (await self._repository.get_steps(scope, execution_id, [path], 0)).steps
        return _kept_place(found[0]) if found else place_of(definition, path)

    async def _of_root(
        self, scope: Scope, execution: Execution, definition: Definition, where: StepFilter, behind: StepPlace | None
    ) -> Sequence[tuple[StepPlace, str]]:
        """Return the steps of the root behind a place, those without a record as well, with their places."""
        root = [step.id for step in definition.root.steps if where.handler in ("", step.handler)]
        known = {step.path: step for step in (await self._repository.get_steps(scope, execution.id, root, 0)).steps}
        found = []
        for path in root:
            step = known.get(path)
            place = place_of(definition, path) if step is None else _kept_place(step)
            state = _unbegun_state(execution) if step is None else step.state
            if (behind is None or place > behind) and (not where.states or state in where.states):
                found.append((place, path))
        return found

    async def _of_items(
        self,
        scope: Scope,
        execution_id: UUID,
        definition: Definition,
        where: StepFilter,
        behind: StepPlace | None,
        limit: int,
    ) -> Sequence[tuple[StepPlace, str]]:
        """Return the first steps of items behind a place, with their places: `limit` of them, or all that there are."""
        found: list[tuple[StepPlace, str]] = []
        is_full = True
        while is_full and len(found) < limit:
            rows = await self._repository.list_item_steps(scope, execution_id, where, behind, limit)
            # A path that was written by hand may be that of no step; there may be more behind it all the same, but not
            # where its place was written by hand as well, and leads no further.
            found += (each for each in rows if definition.find(each[1]) is not None)
            last = rows[-1][0] if rows else None
            is_full = last is not None and len(rows) == limit and (behind is None or last > behind)
            behind = last or behind
        return found[:limit]

    async def _definition(self, scope: Scope, execution: Execution) -> Definition:
        definition = await self._workflows.find(execution)
        if definition is not None:
            return definition
        return await in_slices(outlining(await self._repository.get_detail(scope, execution.id, most=0)))


def place_of(definition: Definition, path: str) -> StepPlace:
    """Return where a step stands in lists."""
    position, *items = order(definition, path)
    return StepPlace(position, tuple(items))


def _kept_place(step: Step) -> StepPlace:
    return StepPlace(step.position, step.items)


def first_steps(definition: Definition, detail: ExecutionDetail, most: int) -> Work[Sequence[tuple[StepSpec, Step]]]:
    """Return up to `most` steps of an execution in the order of lists, in pieces: there may be ten thousands."""
    kept = yield from finding_newest(detail.steps)
    chosen = list[tuple[StepPlace, str]]()
    for path in chain(kept, (path for path in definition.root.by_id if path not in kept)):
        if definition.find(path) is not None:
            chosen.append((_kept_place(kept[path]) if path in kept else place_of(definition, path), path))
        yield _LOOK
        if len(chosen) >= 2 * most:
            chosen = sorted(chosen)[:most]
    return list(_with_records(definition, [path for _, path in sorted(chosen)[:most]], detail.execution, kept))


def _with_records(
    definition: Definition, chosen: Iterable[str], execution: Execution, kept: Mapping[str, Step]
) -> Iterator[tuple[StepSpec, Step]]:
    """Give steps with what is recorded of them, or what it means that nothing is."""
    state = _unbegun_state(execution)
    for path in chosen:
        step = definition.places[paths.place(path)]
        yield step, kept.get(path) or Step(path=path, handler=step.handler, state=state)


def _unbegun_state(execution: Execution) -> StepState:
    # Once the execution has ended, a step that never left PENDING never will.
    return StepState.CANCELLED if execution.state.is_end else StepState.PENDING


def _page(definition: Definition, chosen: Sequence[str], found: ExecutionSteps) -> StepPage:
    steps = list(_with_records(definition, chosen, found.execution, newest(found.steps)))
    return StepPage(definition, steps, found.unreadable, found.omitted, lineage=found.execution.lineage)
