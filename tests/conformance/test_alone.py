"""Executions that are to be alone with their correlation id, and what they bring with their creation."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest
from msgspec.structs import replace

from persistence.errors import RequestIdReusedError, WorkflowNotFoundError
from persistence.model import ExecutionState, Scope
from persistence.repository import Repository
from persistence.requests import Asked, Method, Request
from persistence.signals import Signal
from persistence.transition import Created, NewExecution
from service.engine.ids import uuid7
from tests.conformance.builders import MOMENT, ORG, SCOPE, Keeper, ending, execution, new, outcome


def alone(keeper: Keeper, scope: Scope = SCOPE, **changes: Any) -> NewExecution:
    row = execution(keeper.workflow, keeper.incarnation, **{"correlation_id": "A-17", **changes})
    return new(row, alone_in=scope, method=Method.SIGNAL)


def signal(n: int, time: datetime = MOMENT) -> Signal:
    return Signal(uuid7(), "paid", {"n": n}, "ann", time, 7)


async def test_of_many_at_once_one_is_kept(repository: Repository, keeper: Keeper) -> None:
    created: list[Created] = await asyncio.gather(*(repository.create(alone(keeper)) for _ in range(40)))
    assert [each.created for each in created].count(True) == 1
    assert len({each.execution.id for each in created}) == 1


async def test_only_what_goes_on_with_the_same_workflow_and_id_in_the_scope_counts(
    repository: Repository, keeper: Keeper
) -> None:
    await keeper.put(correlation_id="other")
    await keeper.put_ended(correlation_id="A-17")
    await keeper.put(correlation_id="A-17", owner="bob")
    other = await repository.create_workflow(ORG, uuid7(), {"name": "other"}, "ann")
    await Keeper(repository, other, keeper.incarnation).put(correlation_id="A-17")
    mine = await repository.create(alone(keeper, Scope(ORG, "ann")))
    assert mine.created
    again = await repository.create(alone(keeper, Scope(ORG, "ann")))
    assert (again.created, again.execution) == (False, mine.execution)
    newest = await keeper.put(correlation_id="A-17", owner="carol")
    assert (await repository.create(alone(keeper))).execution == newest
    await keeper.commit(ending(mine.execution))
    assert (await repository.create(alone(keeper, Scope(ORG, "ann")))).created


async def test_a_request_id_is_kept_with_it_and_with_nothing_else(repository: Repository, keeper: Keeper) -> None:
    first = alone(keeper, request_id="r1")
    refused = alone(keeper, request_id="r2")
    created = await repository.create(first)
    assert (created.created, (await repository.create(refused)).created) == (True, False)
    asked = Request("r1", Method.SIGNAL, first.content_hash)
    assert await repository.find_asked(ORG, asked) == Asked(first.execution.id)
    assert await repository.find_asked(ORG, Request("r2", Method.SIGNAL, refused.content_hash)) is None
    await keeper.commit(ending(created.execution))
    repeated = await repository.create(alone(keeper, request_id="r1"))
    assert (repeated.created, repeated.execution.id) == (False, first.execution.id)
    assert repeated.execution.state is ExecutionState.COMPLETED
    changed = replace(alone(keeper, request_id="r1"), content_hash=b"other")
    for other in (changed, new(execution(keeper.workflow, request_id="r1"))):
        assert isinstance(await outcome(repository.create(other)), RequestIdReusedError)


async def test_nothing_is_made_of_a_workflow_that_was_deleted(repository: Repository, keeper: Keeper) -> None:
    await repository.delete_workflow(SCOPE, str(keeper.workflow.id), "", True, "ann")
    refused = alone(keeper, request_id="r1")
    assert isinstance(await outcome(repository.create(refused)), WorkflowNotFoundError)
    assert await repository.find_asked(ORG, Request("r1", Method.SIGNAL, refused.content_hash)) is None


@pytest.mark.parametrize("is_alone", [False, True])
async def test_signals_that_come_with_a_creation_are_kept_with_it(
    repository: Repository, keeper: Keeper, is_alone: bool
) -> None:
    kept = tuple(signal(n) for n in range(3))
    made = alone(keeper) if is_alone else new(execution(keeper.workflow, keeper.incarnation))
    created = await repository.create(replace(made, signals=kept))
    taken = await repository.load(keeper.incarnation, created.execution.id)
    assert taken is not None
    assert taken.signals == kept
