"""Deleting a workflow hides it at once; what it leaves is reaped later."""

from __future__ import annotations

import asyncio

import pytest

from persistence.errors import (
    EtagMismatchError,
    ExecutionNotFoundError,
    RequestIdReusedError,
    WorkflowInUseError,
    WorkflowNotFoundError,
)
from persistence.listing import ExecutionFilter, ExecutionOrder, WorkflowFilter
from persistence.model import ExecutionState, MessageKind, Workflow
from persistence.repository import Repository
from persistence.transition import CommitResult, Created
from service.engine.ids import uuid7
from tests.conformance.builders import (
    FOREIGN_ORG,
    ORG,
    SCOPE,
    Keeper,
    document,
    ending,
    execution,
    ids,
    in_seconds,
    new,
    now,
    outcome,
    seen,
)


async def test_a_deleted_workflow_is_gone(repository: Repository, workflow: Workflow) -> None:
    assert await repository.delete_workflow(SCOPE, workflow.name, workflow.etag, False, "ann") == workflow.id
    for reference in (workflow.name, str(workflow.id)):
        for attempt in (
            repository.get_workflow(SCOPE, reference),
            repository.update_workflow(SCOPE, reference, document(), "", "ann"),
            repository.delete_workflow(SCOPE, reference, "", True, "ann"),
        ):
            with pytest.raises(WorkflowNotFoundError):
                await attempt
    assert not await repository.list_workflows(SCOPE, WorkflowFilter(), None, 10)


async def test_its_name_is_free_again(repository: Repository, workflow: Workflow) -> None:
    await repository.delete_workflow(SCOPE, workflow.name, "", False, "ann")
    second = await repository.create_workflow(ORG, uuid7(), document(workflow.name), "bob")
    assert (second.revision, second.updated_by) == (1, "bob")
    assert second.etag != workflow.etag
    assert await repository.get_workflow(SCOPE, workflow.name) == second


async def test_a_stale_etag_or_foreign_org_deletes_nothing(repository: Repository, workflow: Workflow) -> None:
    with pytest.raises(EtagMismatchError):
        await repository.delete_workflow(SCOPE, workflow.name, "nonsense", True, "ann")
    for reference in (workflow.name, str(workflow.id)):
        with pytest.raises(WorkflowNotFoundError):
            await repository.delete_workflow(FOREIGN_ORG, reference, "", True, "eve")
    assert await repository.get_workflow(SCOPE, workflow.name) == workflow


async def test_executions_that_have_not_ended_refuse_it(repository: Repository, keeper: Keeper) -> None:
    rows = [await keeper.put(), await keeper.put_free(), await keeper.put(owner="bob")]
    await keeper.put_ended()
    with pytest.raises(WorkflowInUseError) as caught:
        await repository.delete_workflow(SCOPE, "research", "", False, "ann")
    assert caught.value.running == 3
    assert await repository.get_workflow(SCOPE, "research") == keeper.workflow
    assert [(await keeper.read(row)).execution for row in rows] == rows
    assert await repository.deliver(keeper.incarnation) == []


async def test_force_asks_them_all_to_cancel(repository: Repository, keeper: Keeper) -> None:
    owned, bobs = await keeper.put(), await keeper.put(owner="bob")
    parked = await keeper.put_free(wake_time=in_seconds(3600))
    asked = await keeper.put()
    await repository.request_cancel(SCOPE, asked.id, "bob", "bored")
    ended = await keeper.put_ended()
    before = now()
    await repository.delete_workflow(SCOPE, str(keeper.workflow.id), keeper.workflow.etag, True, "ann")
    assert (await keeper.read(ended)).execution == ended
    assert ids(await repository.claim(keeper.incarnation, 10)) == [parked.id]
    found = {mail.execution_id: mail.messages for mail in await repository.deliver(keeper.incarnation)}
    assert {key: [message.sender for message in sent] for key, sent in found.items()} == {
        **{key: ["ann"] for key in (owned.id, bobs.id, parked.id)},
        asked.id: ["bob"],
    }
    for row in (owned, bobs, parked):
        [message] = found[row.id]
        assert (message.kind, message.body) == (MessageKind.CANCEL, {"reason": "workflow 'research' was deleted"})
        assert before <= message.time <= now()
        assert (await keeper.read(row)).execution.mail == 1


async def test_it_is_found_by_id_while_executions_are_left(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    await repository.delete_workflow(SCOPE, "research", "", True, "ann")
    assert await repository.get_workflow(SCOPE, str(keeper.workflow.id), 1) == keeper.workflow
    with pytest.raises(WorkflowNotFoundError):
        await repository.get_workflow(SCOPE, "research")
    with pytest.raises(WorkflowNotFoundError):
        await repository.get_workflow(FOREIGN_ORG, str(keeper.workflow.id))
    assert await repository.reap(10) == 0
    await keeper.commit(ending(row, ExecutionState.CANCELLED, **seen(row)))
    assert await repository.reap(10) == 1
    with pytest.raises(WorkflowNotFoundError):
        await repository.get_workflow(SCOPE, str(keeper.workflow.id))


async def test_reap_takes_only_ended_executions_of_deleted_workflows(repository: Repository, keeper: Keeper) -> None:
    other = await repository.create_workflow(ORG, uuid7(), document("other"), "ann")
    kept = await Keeper(repository, other, keeper.incarnation).put_ended()
    running, ended = await keeper.put(), await keeper.put_ended()
    assert await repository.reap(10) == 0
    await repository.delete_workflow(SCOPE, "research", "", True, "ann")
    assert await repository.reap(10) == 1
    assert await repository.reap(10) == 0
    with pytest.raises(ExecutionNotFoundError):
        await repository.get_detail(SCOPE, ended.id)
    with pytest.raises(ExecutionNotFoundError):
        await repository.read_events(SCOPE, ended.id, 0, 10)
    every = await repository.list_executions(SCOPE, ExecutionFilter(), ExecutionOrder.NEWEST, None, 10)
    assert set(ids(every)) == {kept.id, running.id}


async def test_reap_keeps_to_its_limit_and_to_each_execution_once(repository: Repository, keeper: Keeper) -> None:
    for _ in range(12):
        await keeper.put_ended()
    await repository.delete_workflow(SCOPE, "research", "", False, "ann")
    assert await repository.reap(5) == 5
    assert sum(await asyncio.gather(*(repository.reap(4) for _ in range(4)))) <= 7
    while await repository.reap(10):
        pass
    assert await repository.count_executions(SCOPE, ExecutionFilter(), ExecutionOrder.NEWEST, 100) == 0


async def test_a_deleted_workflow_takes_no_new_execution(repository: Repository, keeper: Keeper) -> None:
    await repository.delete_workflow(SCOPE, "research", "", False, "ann")
    row = execution(keeper.workflow, keeper.incarnation, request_id="r")
    with pytest.raises(WorkflowNotFoundError):
        await repository.create(new(row))
    with pytest.raises(ExecutionNotFoundError):
        await repository.get_execution(SCOPE, row.id)


async def test_no_execution_slips_past_a_deletion(repository: Repository, keeper: Keeper) -> None:
    """Either the creation is refused, or the deletion has seen the execution."""
    for number in range(10):
        workflow = await repository.create_workflow(ORG, uuid7(), document(f"w{number}"), "ann")
        row = execution(workflow, keeper.incarnation)
        created, deleted = await asyncio.gather(
            outcome(repository.create(new(row))),
            outcome(repository.delete_workflow(SCOPE, workflow.name, "", False, "ann")),
        )
        assert (isinstance(created, Created), isinstance(deleted, WorkflowInUseError)) in ((True, True), (False, False))


async def test_a_request_id_outlives_its_execution(repository: Repository, keeper: Keeper) -> None:
    first = await keeper.put_ended(request_id="r")
    await repository.delete_workflow(SCOPE, "research", "", False, "ann")
    again = new(execution(keeper.workflow, keeper.incarnation, request_id="r"))
    answer = await repository.create(again)
    assert (answer.execution.id, answer.created) == (first.id, False)
    while await repository.reap(10):
        pass
    with pytest.raises(ExecutionNotFoundError) as caught:
        await repository.create(again)
    assert caught.value.execution_id == first.id
    other = new(again.execution, content_hash=b"other".ljust(32))
    with pytest.raises(RequestIdReusedError):
        await repository.create(other)
    assert await repository.submit(ending(again.execution)) is CommitResult.FENCED
