"""Lists of steps while the execution goes on (CONTRACT LI2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from persistence.listing import StepFilter, StepPlace
from persistence.memory import MemoryRepository
from persistence.model import StepState
from service.engine.handlers.registry import Registry
from service.engine.parsing import Defaults
from service.engine.steps import Steps
from service.engine.workflows import Workflows
from tests.conformance.builders import ORG, SCOPE, Keeper, document, execution, new, step, transition

EACH_AND_END = [
    {"id": "each", "for_each": {"items": "input.rows", "steps": [{"id": "work", "handler": "call_api"}]}},
    {"id": "end", "handler": "call_api"},
]


class MovingRepository(MemoryRepository):
    """Lets something happen once, after the first read of steps."""

    def __init__(self) -> None:
        super().__init__()
        self.happening: Callable[[], object] | None = None

    def _happen(self) -> None:
        happening, self.happening = self.happening, None
        if happening is not None:
            happening()

    async def get_steps(self, *asked: Any) -> Any:
        """Read, and let it happen."""
        found = await super().get_steps(*asked)
        self._happen()
        return found

    async def list_item_steps(self, *asked: Any) -> Any:
        """Read, and let it happen."""
        found = await super().list_item_steps(*asked)
        self._happen()
        return found


@pytest.mark.parametrize("states", [(), (StepState.PENDING, StepState.RUNNING)], ids=["all", "open"])
async def test_a_step_that_begins_between_two_reads_is_listed(states: tuple[StepState, ...]) -> None:
    repository = MovingRepository()
    workflows = Workflows(repository, Registry(), Defaults())
    workflow = await repository.create_workflow(ORG, uuid4(), document(), "ann")
    keeper = Keeper(repository, workflow, uuid4())
    await repository.register(keeper.incarnation, "replica", 300)
    row = await keeper.put()
    repository.happening = lambda: repository.submit(transition(row, steps=[step("fetch")]))
    page = await Steps(repository, workflows).page(SCOPE, row.id, StepFilter(frozenset(states)), "", 10, 0)
    assert [(each.path, each.state) for _, each in page.steps] == [("fetch", StepState.RUNNING)]


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
async def test_a_walk_passes_rows_whose_path_is_that_of_no_step(limit: int) -> None:
    repository = MemoryRepository()
    workflow = await repository.create_workflow(ORG, uuid4(), document(steps=EACH_AND_END), "ann")
    row = execution(workflow)
    names = ["absent", "absent", "work", "absent", "work", "absent", "absent", "absent", "work", "absent"]
    rows = [step(f"each[{n}].{name}", position=1, items=(n, 2)) for n, name in enumerate(names)]
    ends = [step("each", position=1, handler="for_each"), step("end", position=3)]
    await repository.create(new(row, steps=(*rows, *ends)))
    reader = Steps(repository, Workflows(repository, Registry(), Defaults()))
    listed, after, is_more = list[str](), "", True
    while is_more:
        page = await reader.page(SCOPE, row.id, StepFilter(), after, limit, 0)
        listed += [each.path for _, each in page.steps]
        after, is_more = page.following, bool(page.following)
    assert listed == ["each", "each[2].work", "each[4].work", "each[8].work", "end"]


async def test_a_walk_ends_at_rows_whose_places_lead_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the numbers of items were written by hand: a row is read as of a place before that of the row."""
    repository = MemoryRepository()
    workflow = await repository.create_workflow(ORG, uuid4(), document(steps=EACH_AND_END), "ann")
    row = execution(workflow)
    await repository.create(new(row))
    read = list[int]()

    async def spoilt(*asked: Any) -> Any:
        read.append(1)
        assert len(read) < 10
        return [(StepPlace(1, ()), "gone[0].x"), (StepPlace(1, ()), "gone[1].x")]

    monkeypatch.setattr(repository, "list_item_steps", spoilt)
    page = await Steps(repository, Workflows(repository, Registry(), Defaults())).page(
        SCOPE, row.id, StepFilter(), "", 1, 0
    )
    assert [each.path for _, each in page.steps] == ["each"]
