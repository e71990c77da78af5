"""What was sent to an execution while nobody drove it is read as a whole before anything of it is final."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from persistence.model import ExecutionState, MessageKind, StepState
from persistence.people import Complete, Person, TaskFilter
from persistence.posting import Posting
from persistence.transition import Created
from tests.unit.house import SCOPE, House, begun, by_path, opened_house, step

BOB = Person("acme", "bob")


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    """A house in which nothing runs yet."""
    async with opened_house() as found:
        yield found


def ask(step_id: str = "ask", **fields: Any) -> dict[str, Any]:
    return step(step_id, "create_task", params={"title": "Go on?", "outcomes": ["yes"]}, **fields)


async def left(house: House, *steps: dict[str, Any]) -> Created:
    """An execution that asks people, and that nobody drives any more."""
    async with house.process() as gone:
        return await begun(gone, *steps)


async def complete_all(house: House) -> None:
    """Let somebody do all that is asked, one after the other."""
    for task in reversed(await house.repository.list_tasks(BOB, TaskFilter(), None, 10)):
        await house.repository.act(BOB, task.id, Complete("yes", None, ""))


@pytest.mark.parametrize("cancel_comes_first", [True, False])
async def test_a_cancel_wins_over_what_was_completed_beside_it(house: House, cancel_comes_first: bool) -> None:
    created = await left(house, ask())
    if cancel_comes_first:
        await house.repository.request_cancel(SCOPE, created.execution.id, "ann", "enough")
    await complete_all(house)
    if not cancel_comes_first:
        await house.repository.request_cancel(SCOPE, created.execution.id, "ann", "enough")
    detail = await house.ended(await house.open(), created)
    assert detail.execution.state is ExecutionState.CANCELLED
    assert not detail.messages


async def test_what_ends_when_a_pause_comes_is_not_done_again(house: House) -> None:
    """The end is refused for the pause, and the step that completed with it is done all the same."""
    engine = await house.open()
    created = await begun(engine, step("a", "gate", delivery="AT_MOST_ONCE"))
    await house.wait_for("a")
    execution_id = created.execution.id
    await house.repository.post(SCOPE, execution_id, Posting(UUID(int=1), MessageKind.PAUSE, "ann", {}))
    house.gates["a"].set()
    async for page in engine.executions.watch(SCOPE, execution_id, 0):
        if isinstance(page, Sequence) and any(event.kind in ("paused", "finished") for event in page):
            break
    await engine.control.ask(SCOPE, execution_id, MessageKind.RESUME, "ann", {})
    detail = await house.ended(engine, created)
    assert (detail.execution.state, len(house.contexts)) == (ExecutionState.COMPLETED, 1)


async def test_what_people_did_stays_done_where_another_answer_ends_all(house: House) -> None:
    """Both completions were acknowledged: the second item has its outcome, although the first one's ends the rest."""
    items = {"items": "[0, 1]", "max_parallel": 2, "steps": [ask(assign={"x": "1 / item"})]}
    created = await left(house, {"id": "each", "for_each": items}, step("last"))
    await complete_all(house)
    detail = await house.ended(await house.open(), created)
    steps = by_path(detail)
    assert (detail.execution.state, steps["each[0].ask"].state) == (ExecutionState.FAILED, StepState.FAILED)
    assert (steps["each[1].ask"].state, steps["each[1].ask"].output["completed_by"]) == (StepState.COMPLETED, "bob")
    assert "last" not in steps
