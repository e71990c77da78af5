"""Executions that were made from others: kept with where they come from, found by it, and nothing of them is shared."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from persistence.lineage import Lineage
from persistence.listing import ExecutionFilter, ExecutionOrder
from persistence.model import LARGE_PAYLOAD, Execution, ExecutionState, StepState
from persistence.repository import Repository
from service.engine.ids import uuid7
from tests.conformance.builders import (
    FOREIGN_ORG,
    FOREIGN_OWNER,
    SCOPE,
    Keeper,
    ending,
    execution,
    ids,
    new,
    step,
)


def fork_of(source: Execution, keeper: Keeper, **changes: Any) -> Execution:
    """The row of an execution that is made from another one."""
    lineage = Lineage(source.id, source.last_seq, "fetch", 1)
    return execution(keeper.workflow, **{"lineage": lineage, "incarnation": keeper.incarnation, **changes})


async def test_it_is_found_by_what_it_was_made_from_and_says_so(repository: Repository, keeper: Keeper) -> None:
    source, other = await keeper.put(), await keeper.put()
    made = [(await repository.create(new(fork_of(source, keeper)))).execution for _ in range(3)]
    await repository.create(new(fork_of(other, keeper)))
    for row in made:
        assert row.lineage == Lineage(source.id, source.last_seq, "fetch", 1)
        assert await repository.get_execution(SCOPE, row.id) == row
        assert (await repository.get_detail(SCOPE, row.id)).execution == row
    newest = [row.id for row in reversed(made)]
    assert ids(await repository.list_forks(SCOPE, source.id, 10)) == newest
    assert ids(await repository.list_forks(SCOPE, source.id, 2)) == newest[:2]
    where, order = ExecutionFilter(source=source.id), ExecutionOrder.NEWEST
    assert ids(await repository.list_executions(SCOPE, where, order, None, 10)) == newest
    assert await repository.count_executions(SCOPE, where, order, 10) == 3
    assert await repository.list_forks(SCOPE, made[0].id, 10) == []
    assert await repository.get_execution(SCOPE, source.id) == source


@pytest.mark.parametrize("scope", [FOREIGN_ORG, FOREIGN_OWNER])
async def test_nobody_else_finds_it(repository: Repository, keeper: Keeper, scope: Any) -> None:
    source = await keeper.put()
    await repository.create(new(fork_of(source, keeper)))
    assert await repository.list_forks(scope, source.id, 10) == []


async def test_it_has_its_payloads_when_the_other_one_is_removed(repository: Repository, keeper: Keeper) -> None:
    large = {"text": "x" * 4 * LARGE_PAYLOAD}
    done = step(state=StepState.COMPLETED, input=large, output=large, assigned=large, end_seq=1)
    source = (await repository.create(new(execution(keeper.workflow, keeper.incarnation), steps=[done]))).execution
    source = await keeper.commit(ending(source))
    again = await repository.create_workflow(SCOPE.org, uuid7(), {"name": "other", "steps": []}, "ann")
    row = replace(fork_of(source, keeper), workflow_id=again.id, workflow_name=again.name, revision=1)
    fork = (await repository.create(new(row, steps=[done]))).execution
    await repository.delete_workflow(SCOPE, str(source.workflow_id), "", False, "ann")
    assert await repository.reap(10) == 1
    detail = await repository.get_detail(SCOPE, fork.id)
    assert [(each.input, each.output, each.assigned) for each in detail.steps] == [(large, large, large)]
    assert detail.execution.state is ExecutionState.RUNNING and detail.execution.lineage == row.lineage
    assert ids(await repository.list_forks(SCOPE, source.id, 10)) == [fork.id]


async def test_it_has_the_variables_that_it_was_given(repository: Repository, keeper: Keeper) -> None:
    source, vars = await keeper.put(), {"x": 1e300, "y": {"text": "ä"}}
    row = (await repository.create(new(fork_of(source, keeper), vars=vars))).execution
    assert (await repository.get_detail(SCOPE, row.id)).vars == vars
    loaded = await repository.load(keeper.incarnation, row.id)
    assert loaded is not None and loaded.vars == vars
    assert (await repository.get_detail(SCOPE, source.id)).vars == {}
