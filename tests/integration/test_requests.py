"""A change that is asked for twice is made once, whichever server is asked and whatever became of the first answer.

Holds EX9 and EX3 of the contract.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import flowkeep
from flowkeep.definition import definition
from flowkeep.v1 import workflow_service_pb2 as pb
from persistence.errors import UnavailableError
from persistence.postgres import reaping
from tests.integration.conftest import Log, Serve
from tests.integration.postgres_store import PostgresStore
from tests.integration.stage import Served, Store, ended, made, step

PAIRS = 100

Ask = Callable[[Served, str], Awaitable[Any]]


def written(name: str, *steps: str) -> Any:
    return definition({"name": name, "steps": [step(each, "transform", value=1) for each in steps or ("a",)]})


async def create(served: Served, name: str) -> Any:
    return await served.workflows.CreateWorkflow(
        pb.CreateWorkflowRequest(definition=written(name), request_id=f"c {name}")
    )


async def update(served: Served, name: str) -> Any:
    changed = written(name, "a", "b")
    request = pb.UpdateWorkflowRequest(workflow=name, definition=changed, request_id=f"u {name}")
    return await served.workflows.UpdateWorkflow(request)


async def apply(served: Served, name: str) -> Any:
    definitions = [written(f"{name}_{each}", "c") for each in "xyz"]
    return await served.workflows.ApplyWorkflows(
        pb.ApplyWorkflowsRequest(definitions=definitions, request_id=f"a {name}")
    )


async def delete(served: Served, name: str) -> Any:
    return await served.workflows.DeleteWorkflow(pb.DeleteWorkflowRequest(workflow=name, request_id=f"d {name}"))


async def test_of_two_equal_changes_at_once_one_is_made_and_both_are_answered(serve: Serve) -> None:
    """EX9, for all that changes a workflow: 100 pairs of each over two servers."""
    servers = [await serve() for _ in range(2)]
    names = [f"w{number}" for number in range(PAIRS)]

    async def pairs(ask: Ask) -> list[Any]:
        answers = []
        for start in range(0, PAIRS, 10):
            some = names[start : start + 10]
            found = await asyncio.gather(*(ask(served, name) for name in some for served in servers))
            for first, second in zip(found[::2], found[1::2], strict=True):
                assert first == second
                answers.append(first)
        return answers

    created = await pairs(create)
    updated = await pairs(update)
    assert [each.workflow.workflow_id for each in updated] == [each.workflow.workflow_id for each in created]
    assert {each.workflow.revision for each in updated} == {2}
    applied = [result for each in await pairs(apply) for result in each.results]
    assert {result.outcome for result in applied} == {pb.ApplyWorkflowsResponse.OUTCOME_CREATED}
    await pairs(delete)
    left = {each.workflow_id: each.revision async for each in servers[0].client.list_workflows(page_size=200)}
    assert left == {result.workflow.workflow_id: 1 for result in applied}


@pytest.mark.parametrize(
    ("method", "ask"),
    [
        ("create_workflow", create),
        ("update_workflow", update),
        ("apply_workflows", apply),
        ("delete_workflow", delete),
    ],
)
async def test_a_change_whose_answer_was_lost_is_answered_when_it_is_asked_for_again(
    serve: Serve, mistakes: Log, method: str, ask: Ask
) -> None:
    """What the store did and did not say: the change stands, and the second call gives what the first would have."""
    answers: list[Any] = []

    def losing(repository: Any) -> Store:
        async def lost(*arguments: Any, **named: Any) -> Any:
            answers.append(await getattr(repository, method)(*arguments, **named))
            if len(answers) == 1:
                raise UnavailableError("no answer")
            return answers[-1]

        return Store(repository, **{method: lost})

    served, other = await serve(wrap=losing), await serve()
    if ask is not create:
        await made(other.client, step("a", "transform", value=1), name="w")
    with pytest.raises(Exception, match="UNAVAILABLE"):
        await ask(served, "w")
    again, elsewhere = await ask(served, "w"), await ask(other, "w")
    assert again == elsewhere
    assert answers[0] == answers[1]


@pytest.mark.usefixtures("prompt")
async def test_a_lost_answer_is_not_seen_by_a_caller_of_the_client(serve: Serve) -> None:
    """The client asks again by itself, with the request id that it made."""
    lost: list[str] = []

    def losing(repository: Any) -> Store:
        def once(name: str) -> Any:
            async def call(*arguments: Any, **named: Any) -> Any:
                answer = await getattr(repository, name)(*arguments, **named)
                if name not in lost:
                    lost.append(name)
                    raise UnavailableError("no answer")
                return answer

            return call

        return Store(repository, **{name: once(name) for name in CHANGES})

    served = await serve(wrap=losing)
    workflow = await served.client.create_workflow(written("w"))
    changed = await served.client.update_workflow("w", written("w", "a", "b"), etag=workflow.etag)
    assert (workflow.revision, changed.revision) == (1, 2)
    (applied,) = await served.client.apply(written("other"))
    assert applied.outcome == pb.ApplyWorkflowsResponse.OUTCOME_CREATED
    execution = await served.client.execute("w", start_delay="1h")
    cancelled = await served.client.cancel(execution.execution_id)
    assert cancelled.execution.state == flowkeep.Execution.STATE_CANCELLED
    await served.client.delete_workflow("w")
    assert sorted(lost) == sorted(CHANGES)


CHANGES = ("create_workflow", "update_workflow", "apply_workflows", "delete_workflow", "request_cancel")


async def test_what_is_refused_now_is_answered_as_when_it_was_not(serve: Serve) -> None:
    """A repeated request is not judged again: neither for a handler that is gone, nor for a workflow that is."""

    def lasting(repository: Any) -> Store:
        async def reap(limit: int) -> int:
            return 0

        return Store(repository, reap=reap)

    served = await serve(wrap=lasting)
    definitions = [definition({"name": name, "steps": [step("a", "count")]}) for name in ("w", "other")]
    create = pb.CreateWorkflowRequest(definition=definitions[0], request_id="c")
    update = pb.UpdateWorkflowRequest(workflow="w", definition=definitions[0], request_id="u")
    apply = pb.ApplyWorkflowsRequest(definitions=definitions, request_id="a")
    first = [
        await served.workflows.CreateWorkflow(create),
        await served.workflows.UpdateWorkflow(update),
        await served.workflows.ApplyWorkflows(apply),
    ]
    bare = await serve([], wrap=lasting)
    assert first == [
        await bare.workflows.CreateWorkflow(create),
        await bare.workflows.UpdateWorkflow(update),
        await bare.workflows.ApplyWorkflows(apply),
    ]
    with pytest.raises(flowkeep.InvalidArgumentError):
        await bare.client.apply(definitions)
    await served.client.execute("w", start_delay="1h")  # without one nothing would be left of the workflow
    await served.client.delete_workflow("w", force=True)
    assert await served.workflows.CreateWorkflow(create) == first[0]
    assert await served.workflows.UpdateWorkflow(update) == first[1]


async def test_a_repeat_that_its_first_call_refuses_is_answered_as_that(serve: Serve) -> None:
    """The second of equal calls has looked for the first before that was made, and finds what came of it."""
    looked, was_made = asyncio.Event(), asyncio.Event()

    def slow(repository: Any) -> Store:
        async def find_asked(*arguments: Any) -> Any:
            found = await repository.find_asked(*arguments)
            looked.set()
            await was_made.wait()
            return found

        return Store(repository, find_asked=find_asked)

    late, other = await serve(wrap=slow), await serve()

    async def twice(ask: Callable[[flowkeep.Client], Awaitable[Any]], execution_id: str) -> list[Any]:
        """The answers of two equal calls, which let the execution end."""
        looked.clear()
        was_made.clear()
        second = asyncio.ensure_future(ask(late.client))
        await looked.wait()
        first = await ask(other.client)
        assert (await ended(other.client, execution_id)).state == flowkeep.Execution.STATE_COMPLETED
        was_made.set()
        return [first, await second]

    failing = await made(other.client, step("a", "fail", retryable=False))
    failed = (await other.client.execute(failing, wait=True)).execution_id
    retried = await twice(lambda client: client.retry(failed, skip=("a", None), request_id="retry"), failed)
    assert [each.run for each in retried] == [2, 2]

    waiting = await made(other.client, step("a", "wait_signal", name="go"))
    waits = (await other.client.execute(waiting, correlation_id="A")).execution_id
    sent = await twice(
        lambda client: client.signal("", "go", workflow=waiting, correlation_id="A", request_id="signal"), waits
    )
    assert [each.execution.execution_id for each in sent] == [waits, waits]
    assert sent[0].signal_id == sent[1].signal_id


REUSED: list[Callable[[flowkeep.Client, str, str], Awaitable[Any]]] = [
    lambda client, key, _: client.create_workflow(written("other"), request_id=key),
    lambda client, key, _: client.update_workflow("w", written("w", "b"), request_id=key),
    lambda client, key, _: client.apply([written("other")], request_id=key),
    lambda client, key, _: client.delete_workflow("w", force=True, request_id=key),
    lambda client, key, execution_id: client.cancel(execution_id, request_id=key),
    lambda client, key, _: client.execute("w", {"other": True}, request_id=key),
]


async def test_a_request_id_that_was_used_otherwise_is_refused(served: Served) -> None:
    """EX3, for each method: other content, or another method, with the reason and the id; nothing is written."""
    client = served.client
    await client.create_workflow(written("w"), request_id="created")
    execution = await client.execute("w", start_delay="1h", request_id="executed")
    before = [each async for each in client.list_workflows(full=True)]
    for request_id in ("created", "executed"):
        for ask in REUSED:
            with pytest.raises(flowkeep.AlreadyExistsError) as caught:
                await ask(client, request_id, execution.execution_id)
            assert (caught.value.reason, caught.value.metadata) == ("REQUEST_ID_REUSED", {"request_id": request_id})
    assert [each async for each in client.list_workflows(full=True)] == before
    assert (await client.get_execution(execution.execution_id)).last_seq == execution.last_seq


async def test_request_ids_that_are_old_are_found_without_reading_the_others(store: PostgresStore) -> None:
    await store.admin.execute("""
        INSERT INTO requests (org_id, request_id, method, content_hash, create_time)
        SELECT 'acme', n::text, 'APPLY_WORKFLOWS', '', clock_timestamp() FROM generate_series(1, 100) n""")
    async with store.repository._database.session() as session, session.transaction():
        await session.execute("SET LOCAL enable_seqscan = off")
        plan = await session.fetch(f"EXPLAIN (ANALYZE) {reaping._FORGET}", 10, None)
    assert plan and not [row[0] for row in plan if "Rows Removed by Filter" in row[0]]
