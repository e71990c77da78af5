"""Filters of lists: each alone, and all at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from persistence.listing import ExecutionFilter, ExecutionOrder, PageKey
from persistence.model import ExecutionState, Scope
from persistence.repository import Repository
from service.engine.ids import uuid7
from tests.conformance.builders import MOMENT, ORG, SCOPE, Keeper, document, ids

MINUTE = timedelta(minutes=1)
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
TICK = timedelta(microseconds=1)

ROWS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bobs": {"owner": "bob"},
    "a": {"tags": ("a",), "create_time": MOMENT},
    "ab": {"tags": ("a", "b"), "create_time": MOMENT + MINUTE},
    "prod": {"labels": {"env": "prod", "team": "x"}},
    "test": {"labels": {"env": "test"}},
    "ci": {"correlation_id": "ci/1"},
    "done": {"state": ExecutionState.COMPLETED, "end_time": MOMENT},
    "failed": {"state": ExecutionState.FAILED, "end_time": MOMENT + MINUTE, "tags": ("a",)},
    "paused": {"state": ExecutionState.PAUSED},
    "undoing": {"state": ExecutionState.COMPENSATING},
    "dry": {"is_dry_run": True},
}

CASES: list[tuple[ExecutionFilter, set[str]]] = [
    (ExecutionFilter(), set(ROWS) | {"other"}),
    (ExecutionFilter(owner="bob"), {"bobs"}),
    (ExecutionFilter(owner="Bob"), set()),
    (ExecutionFilter(tags=["a"]), {"a", "ab", "failed"}),
    (ExecutionFilter(tags=["a", "b"]), {"ab"}),
    (ExecutionFilter(tags=["a", "a"]), {"a", "ab", "failed"}),
    (ExecutionFilter(tags=["b", "none"]), set()),
    (ExecutionFilter(labels={"env": "prod"}), {"prod"}),
    (ExecutionFilter(labels={"env": "prod", "team": "x"}), {"prod"}),
    (ExecutionFilter(labels={"env": "prod", "team": "y"}), set()),
    (ExecutionFilter(correlation_id="ci/1"), {"ci"}),
    (ExecutionFilter(correlation_id="ci/%"), set()),
    (ExecutionFilter(states=[ExecutionState.COMPLETED]), {"done"}),
    (ExecutionFilter(states=[ExecutionState.COMPLETED, ExecutionState.PAUSED]), {"done", "paused"}),
    (ExecutionFilter(states=[ExecutionState.CANCELLED]), set()),
    (ExecutionFilter(states=[ExecutionState.COMPENSATING]), {"undoing"}),
    (ExecutionFilter(is_dry_run=True), {"dry"}),
    (ExecutionFilter(is_dry_run=False), {*ROWS, "other"} - {"dry"}),
    (ExecutionFilter(workflow="other"), {"other"}),
    (ExecutionFilter(workflow="absent"), set()),
    (ExecutionFilter(workflow="oth%"), set()),
    (ExecutionFilter(created_from=MOMENT), {"a", "ab"}),
    (ExecutionFilter(created_from=MOMENT + TICK), {"ab"}),
    (ExecutionFilter(created_from=MOMENT, created_until=MOMENT + MINUTE), {"a"}),
    (ExecutionFilter(created_from=MOMENT, created_until=MOMENT + MINUTE + TICK), {"a", "ab"}),
    (ExecutionFilter(created_from=MOMENT, created_until=MOMENT), set()),
    (ExecutionFilter(created_from=FIRST, created_until=LAST), set(ROWS) | {"other"}),
    (ExecutionFilter(created_from=LAST), set()),
    (ExecutionFilter(ended_from=MOMENT), {"done", "failed"}),
    (ExecutionFilter(ended_until=MOMENT + MINUTE), {"done"}),
    (ExecutionFilter(ended_from=MOMENT + TICK, ended_until=MOMENT + MINUTE + TICK), {"failed"}),
    (ExecutionFilter(tags=["a"], states=[ExecutionState.FAILED], ended_from=MOMENT), {"failed"}),
    (ExecutionFilter(workflow="research", owner="ann", tags=["a"], created_from=MOMENT), {"a", "ab"}),
]


async def populate(keeper: Keeper) -> dict[str, Any]:
    other = await keeper.repository.create_workflow(ORG, uuid7(), document("other"), "ann")
    named = {name: (await keeper.put(**changes)).id for name, changes in ROWS.items()}
    return named | {"other": (await Keeper(keeper.repository, other, keeper.incarnation).put()).id}


@pytest.mark.parametrize(("where", "expected"), CASES, ids=range(len(CASES)))
async def test_filter(repository: Repository, keeper: Keeper, where: ExecutionFilter, expected: set[str]) -> None:
    named = await populate(keeper)
    wanted = {execution_id for name, execution_id in named.items() if name in expected}
    for order in ExecutionOrder:
        if order is not ExecutionOrder.NEWEST:
            wanted &= {named["done"], named["failed"]}
        assert set(ids(await repository.list_executions(SCOPE, where, order, None, 100))) == wanted
        assert await repository.count_executions(SCOPE, where, order, 100) == len(wanted)


@pytest.mark.parametrize("owner", ["", "ann"])
async def test_executions_in_one_of_several_states_are_listed_page_by_page(
    repository: Repository, keeper: Keeper, owner: str
) -> None:
    states = [ExecutionState.FAILED, ExecutionState.PAUSED, ExecutionState.RUNNING]
    rows = [
        await keeper.put(state=state, owner=owner or "bob", end_time=MOMENT if state.is_end else None)
        for state in [*states, ExecutionState.COMPLETED] * 3
    ]
    wanted = [row.id for row in reversed(rows) if row.state in states]
    where = ExecutionFilter(states=[*states, ExecutionState.PAUSED], owner=owner)
    assert ids(await repository.list_executions(SCOPE, where, ExecutionOrder.NEWEST, None, 100)) == wanted
    for at, execution_id in enumerate(wanted):
        page = await repository.list_executions(SCOPE, where, ExecutionOrder.NEWEST, PageKey(None, execution_id), 2)
        assert ids(page) == wanted[at + 1 : at + 3]


async def test_a_workflow_is_named_by_id_or_name(repository: Repository, keeper: Keeper) -> None:
    named = await populate(keeper)
    for reference in (str(keeper.workflow.id), keeper.workflow.name):
        found = await repository.list_executions(
            SCOPE, ExecutionFilter(workflow=reference), ExecutionOrder.NEWEST, None, 100
        )
        assert set(ids(found)) == set(named.values()) - {named["other"]}


async def test_a_range_of_ids_includes_both_ends_and_stays_in_the_scope(repository: Repository, keeper: Keeper) -> None:
    first = uuid7().int & ~0xFF
    low, middle, high = (UUID(int=first | last) for last in (0x10, 0x18, 0x1F))
    for execution_id, owner in ((low, "ann"), (middle, "bob"), (high, "ann")):
        await keeper.put(id=execution_id, owner=owner)
    for outside in (UUID(int=low.int - 1), UUID(int=high.int + 1)):
        await keeper.put(id=outside)

    where = ExecutionFilter(lowest_id=low, highest_id=high)
    for scope, found in ((SCOPE, [high, middle, low]), (Scope(ORG, "ann"), [high, low]), (Scope("globex"), [])):
        assert ids(await repository.list_executions(scope, where, ExecutionOrder.NEWEST, None, 9)) == found
        assert await repository.count_executions(scope, where, ExecutionOrder.NEWEST, 9) == len(found)
    behind = PageKey(None, high)
    assert ids(await repository.list_executions(SCOPE, where, ExecutionOrder.NEWEST, behind, 1)) == [middle]


async def test_executions_of_a_deleted_workflow_are_found_until_they_are_reaped(
    repository: Repository, keeper: Keeper
) -> None:
    row = await keeper.put_ended()
    await repository.delete_workflow(SCOPE, "research", "", False, "ann")
    for reference in (str(keeper.workflow.id), "research", ""):
        where = ExecutionFilter(workflow=reference)
        assert ids(await repository.list_executions(SCOPE, where, ExecutionOrder.NEWEST, None, 10)) == [row.id]
