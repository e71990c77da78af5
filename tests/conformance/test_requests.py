"""A change with a request id is made once, and answered again as it was the first time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from persistence.breakpoints import Breakpoint, WorkflowBreakpoints
from persistence.errors import (
    EtagMismatchError,
    ExecutionFinishedError,
    ExecutionNotFoundError,
    NameTakenError,
    PersistenceError,
    RequestIdReusedError,
    WorkflowNotFoundError,
)
from persistence.listing import WorkflowFilter
from persistence.model import Applied, Execution, ExecutionState, Outcome, Posted, Workflow
from persistence.pauses import WorkflowPausing
from persistence.repository import Repository
from persistence.requests import REMEMBERED, Asked, Method, Request
from service.engine.ids import uuid7
from tests.conformance.builders import (
    FOREIGN_ORG,
    MOMENT,
    ORG,
    SCOPE,
    Keeper,
    document,
    ending,
    execution,
    in_seconds,
    new,
    now,
    outcome,
    seen,
)
from tests.conformance.conftest import OpenRepository

CREATE, UPDATE = Method.CREATE_WORKFLOW, Method.UPDATE_WORKFLOW
APPLY, DELETE = Method.APPLY_WORKFLOWS, Method.DELETE_WORKFLOW


def asked(method: Method, id: str = "r", content: bytes = b"content") -> Request:
    return Request(id, method, content.ljust(32))


async def create(repository: Repository, name: str = "new", request: Request | None = None) -> Workflow:
    return await repository.create_workflow(ORG, uuid7(), document(name), "ann", request or asked(CREATE))


async def update(repository: Repository, etag: str = "", request: Request | None = None, **changes: Any) -> Workflow:
    given = document(**changes)
    return await repository.update_workflow(SCOPE, "research", given, etag, "ann", request or asked(UPDATE))


async def apply(repository: Repository, *names: str, request: Request | None = None, text: str = "") -> list[Applied]:
    given = [(uuid7(), document(name, description=text)) for name in names]
    return list(await repository.apply_workflows(ORG, given, "ann", request or asked(APPLY)))


async def delete(repository: Repository, request: Request | None = None) -> Any:
    return await repository.delete_workflow(SCOPE, "research", "", False, "ann", request or asked(DELETE))


async def test_a_repeated_create_answers_the_first_revision(repository: Repository) -> None:
    first = await create(repository)
    assert await create(repository) == first
    await repository.update_workflow(SCOPE, "new", document("new", tags=["more"]), "", "bob")
    assert await create(repository) == first
    assert len(await repository.list_workflows(SCOPE, WorkflowFilter(), None, 10)) == 1


async def test_a_repeated_update_answers_its_revision_with_the_etag_that_it_had(
    repository: Repository, workflow: Workflow
) -> None:
    second = await update(repository, workflow.etag, tags=["second"])
    await update(repository, second.etag, asked(UPDATE, "other"), tags=["third"])
    assert await update(repository, workflow.etag, tags=["second"]) == second
    assert (await repository.get_workflow(SCOPE, "research")).revision == 3


async def test_a_repeated_apply_answers_what_became_of_each(repository: Repository, workflow: Workflow) -> None:
    await create(repository, "same", asked(CREATE, "other"))
    first = await apply(repository, "same", "research", "brand_new")
    assert [each.outcome for each in first] == [Outcome.UPDATED, Outcome.UPDATED, Outcome.CREATED]
    unchanged = await apply(repository, "same", request=asked(APPLY, "later"))
    await apply(repository, "same", "research", request=asked(APPLY, "last"), text="different")
    assert await apply(repository, "same", "research", "brand_new") == first
    assert [each.outcome for each in unchanged] == [Outcome.UNCHANGED]
    assert await apply(repository, "same", request=asked(APPLY, "later")) == unchanged


async def test_a_repeated_delete_is_answered_as_the_first(repository: Repository, workflow: Workflow) -> None:
    assert await delete(repository) == workflow.id
    later = await repository.create_workflow(ORG, uuid7(), document(workflow.name), "bob")
    assert await delete(repository) == workflow.id
    assert await repository.get_workflow(SCOPE, workflow.name) == later
    await repository.reap(10)
    assert await delete(repository) == workflow.id


async def test_a_repeated_cancel_answers_the_execution_as_it_is_now(repository: Repository, keeper: Keeper) -> None:
    row, request = await keeper.put(), asked(Method.CANCEL)
    first = await repository.request_cancel(SCOPE, row.id, "ann", "bored", request)
    assert first.message is not None
    assert await repository.request_cancel(SCOPE, row.id, "ann", "bored", request) == first
    await keeper.commit(ending(row, ExecutionState.CANCELLED, **seen(row)))
    later = await repository.request_cancel(SCOPE, row.id, "ann", "bored", request)
    assert (later.execution.state, later.message) == (ExecutionState.CANCELLED, None)
    with pytest.raises(RequestIdReusedError):
        await repository.request_cancel(SCOPE, row.id, "ann", "", asked(Method.CANCEL, content=b"other"))


async def test_a_cancel_that_was_refused_is_not_remembered(repository: Repository, keeper: Keeper) -> None:
    ended, request = await keeper.put_ended(), asked(Method.CANCEL)
    for _ in range(2):
        with pytest.raises(ExecutionFinishedError):
            await repository.request_cancel(SCOPE, ended.id, "ann", "", request)
    with pytest.raises(ExecutionNotFoundError):
        await repository.request_cancel(SCOPE, uuid7(), "ann", "", request)
    assert await repository.find_change(ORG, request) is None


Call = Callable[[Repository, Keeper, Request], Awaitable[Any]]


async def _create(repository: Repository, keeper: Keeper, request: Request) -> Any:
    return await create(repository, "brand_new", request)


async def _update(repository: Repository, keeper: Keeper, request: Request) -> Any:
    return await update(repository, request=request, tags=["changed"])


async def _apply(repository: Repository, keeper: Keeper, request: Request) -> Any:
    return await apply(repository, "brand_new", request=request)


async def _delete(repository: Repository, keeper: Keeper, request: Request) -> Any:
    return await delete(repository, request)


async def _cancel(repository: Repository, keeper: Keeper, request: Request) -> Any:
    (driven,) = await repository.undriven(keeper.incarnation, [])
    return await repository.request_cancel(SCOPE, driven, "ann", "", request)


async def _execute(repository: Repository, keeper: Keeper, request: Request) -> Any:
    row = execution(keeper.workflow, keeper.incarnation, request_id=request.id)
    return await repository.create(new(row, content_hash=request.content_hash))


async def _pause(repository: Repository, keeper: Keeper, request: Request) -> Any:
    return await repository.pause_workflow(SCOPE, "research", WorkflowPausing(uuid7(), "ann", ""), request)


async def _resume(repository: Repository, keeper: Keeper, request: Request) -> Any:
    return await repository.resume_workflow(SCOPE, "research", "ann", "", request)


async def _break(repository: Repository, keeper: Keeper, request: Request) -> Any:
    points = WorkflowBreakpoints(uuid7(), "ann", (Breakpoint("*"),), MOMENT, 1, in_seconds(300))
    return await repository.set_workflow_breakpoints(SCOPE, "research", points, request)


CALLS: Sequence[tuple[Method, Call]] = [
    (Method.EXECUTE, _execute),
    (Method.CANCEL, _cancel),
    (CREATE, _create),
    (UPDATE, _update),
    (APPLY, _apply),
    (DELETE, _delete),
    (Method.PAUSE_WORKFLOW, _pause),
    (Method.RESUME_WORKFLOW, _resume),
    (Method.BREAK_WORKFLOW, _break),
]


@pytest.mark.parametrize(("method", "call"), CALLS, ids=[method for method, _ in CALLS])
async def test_an_id_is_refused_for_other_content_and_for_other_methods(
    repository: Repository, keeper: Keeper, method: Method, call: Call
) -> None:
    await keeper.put(request_id="taken by execute")
    await create(repository, "first", asked(CREATE, "taken by create"))
    kept = [("taken by execute", Method.EXECUTE), ("taken by create", CREATE)]
    for id, first in kept:
        requests = [asked(method, id, b"other")]
        if method is not first:
            requests.append(asked(method, id))
        for request in requests:
            with pytest.raises(RequestIdReusedError) as caught:
                await call(repository, keeper, request)
            assert caught.value.request_id == id
    assert (await repository.get_workflow(SCOPE, "research")) == keeper.workflow
    names = [each.name for each in await repository.list_workflows(SCOPE, WorkflowFilter(), None, 10)]
    assert sorted(names) == ["first", "research"]
    assert await repository.deliver(keeper.incarnation) == []


@pytest.mark.parametrize(("method", "call"), CALLS, ids=[method for method, _ in CALLS])
async def test_what_was_asked_is_found_by_its_id_with_the_execution_where_it_is_about_one(
    repository: Repository, keeper: Keeper, method: Method, call: Call
) -> None:
    if method is Method.CANCEL:
        await keeper.put()
    assert await repository.find_asked(ORG, asked(method)) is None
    answer = await call(repository, keeper, asked(method))
    about = answer.execution.id if method in (Method.EXECUTE, Method.CANCEL) else None
    assert await repository.find_asked(ORG, asked(method)) == Asked(about)
    assert await repository.find_asked(FOREIGN_ORG.org, asked(method)) is None
    for other in (asked(method, content=b"other"), asked(Method.COMMENT_TASK)):
        with pytest.raises(RequestIdReusedError):
            await repository.find_asked(ORG, other)


async def test_each_org_has_ids_of_its_own(repository: Repository) -> None:
    first = await create(repository)
    foreign = await repository.create_workflow(FOREIGN_ORG.org, uuid7(), document("new"), "eve", asked(CREATE))
    assert foreign.id != first.id
    assert await create(repository) == first


async def test_a_change_that_was_refused_leaves_its_id_free(repository: Repository, workflow: Workflow) -> None:
    with pytest.raises(NameTakenError):
        await create(repository, "research")
    with pytest.raises(EtagMismatchError):
        await update(repository, "stale", asked(UPDATE))
    with pytest.raises(EtagMismatchError):
        await repository.delete_workflow(SCOPE, "research", "stale", False, "ann", asked(DELETE))
    assert (await create(repository, "free")).revision == 1


async def test_a_dry_run_keeps_no_id(repository: Repository) -> None:
    given = [(uuid7(), document("new"))]
    await repository.apply_workflows(ORG, given, "ann", asked(APPLY), dry_run=True)
    assert await repository.find_change(ORG, asked(APPLY)) is None
    assert (await create(repository)).revision == 1


async def test_what_a_request_was_answered_can_be_found(repository: Repository, workflow: Workflow) -> None:
    assert await repository.find_change(ORG, asked(APPLY)) is None
    first = await apply(repository, "research", "new")
    assert await repository.find_change(ORG, asked(APPLY)) == first
    assert await repository.find_change(FOREIGN_ORG.org, asked(APPLY)) is None
    for other in (asked(UPDATE), asked(APPLY, content=b"other")):
        with pytest.raises(RequestIdReusedError):
            await repository.find_change(ORG, other)


async def test_an_answer_whose_workflow_was_reaped_is_not_found(repository: Repository) -> None:
    first = await create(repository)
    await repository.delete_workflow(SCOPE, "new", "", False, "ann")
    assert await create(repository) == first
    await repository.reap(10)
    for attempt in (create(repository), repository.find_change(ORG, asked(CREATE))):
        with pytest.raises(WorkflowNotFoundError) as caught:
            await attempt
        assert caught.value.workflow == str(first.id)


@pytest.mark.parametrize("id", ["a\0b", "r" * 129])
async def test_an_id_that_cannot_be_kept_is_refused(repository: Repository, id: str) -> None:
    with pytest.raises(PersistenceError):
        await create(repository, "new", asked(CREATE, id))
    assert not await repository.list_workflows(SCOPE, WorkflowFilter(), None, 10)


@pytest.mark.parametrize(("method", "call"), [(CREATE, _create), (UPDATE, _update), (APPLY, _apply)])
async def test_of_equal_calls_at_once_one_does_it_and_all_answer_the_same(
    repository: Repository, keeper: Keeper, method: Method, call: Call
) -> None:
    answers = await asyncio.gather(*(call(repository, keeper, asked(method)) for _ in range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert (await repository.get_workflow(SCOPE, "research")).revision == (2 if method is UPDATE else 1)


async def test_of_different_calls_at_once_with_one_id_one_is_done(repository: Repository, workflow: Workflow) -> None:
    answers = await asyncio.gather(
        outcome(create(repository, "one", asked(CREATE, content=b"one"))),
        outcome(create(repository, "two", asked(CREATE, content=b"two"))),
        outcome(update(repository, request=asked(UPDATE), tags=["changed"])),
    )
    assert sorted(type(answer).__name__ for answer in answers) == ["RequestIdReusedError"] * 2 + ["Workflow"]


async def test_of_equal_cancels_at_once_one_sends_the_message(open_repository: OpenRepository, keeper: Keeper) -> None:
    row, replicas = await keeper.put(), [keeper.repository, await open_repository()]
    request = asked(Method.CANCEL)
    answers = await asyncio.gather(
        *(replicas[number % 2].request_cancel(SCOPE, row.id, "ann", "", request) for number in range(8))
    )
    assert {answer.execution.mail for answer in answers} == {1}
    [mail] = await keeper.repository.deliver(keeper.incarnation)
    assert len(mail.messages) == 1


async def test_of_cancels_of_different_executions_with_one_id_one_is_done(
    open_repository: OpenRepository, keeper: Keeper
) -> None:
    replicas = [keeper.repository, await open_repository()]
    for number in range(10):
        rows = [await keeper.put() for _ in range(4)]
        contents = [Request(f"r{number}", Method.CANCEL, row.id.bytes.ljust(32)) for row in rows]
        answers = await asyncio.gather(
            *(
                outcome(replicas[place % 2].request_cancel(SCOPE, row.id, "ann", "", contents[place]))
                for place, row in enumerate(rows)
            )
        )
        assert sorted(type(answer).__name__ for answer in answers) == ["Posted"] + ["RequestIdReusedError"] * 3


@pytest.mark.parametrize("ids", [("r", "r"), ("r", "other")], ids=["one id", "an id each"])
async def test_a_cancel_beside_a_forced_deletion_ends(
    open_repository: OpenRepository, keeper: Keeper, ids: tuple[str, str]
) -> None:
    """They lock the same rows; whichever comes first, neither waits for the other for ever."""
    deleter = await open_repository()
    for number in range(10):
        workflow = await keeper.repository.create_workflow(ORG, uuid7(), document(f"w{number}"), "ann")
        rows = [
            (await keeper.repository.create(new(execution(workflow, keeper.incarnation)))).execution for _ in range(3)
        ]
        cancel, remove = (
            asked(method, f"{id} {number}") for method, id in zip((Method.CANCEL, DELETE), ids, strict=True)
        )
        cancelled, *others, deleted = await asyncio.gather(
            outcome(keeper.repository.request_cancel(SCOPE, rows[1].id, "ann", "", cancel)),
            outcome(keeper.repository.request_cancel(SCOPE, rows[2].id, "ann", "")),
            outcome(keeper.repository.request_cancel(SCOPE, rows[0].id, "ann", "")),
            outcome(deleter.delete_workflow(SCOPE, workflow.name, "", True, "ann", remove)),
        )
        assert [type(each) for each in others] == [Posted, Posted]
        refused = [each for each in (cancelled, deleted) if isinstance(each, RequestIdReusedError)]
        assert len(refused) == (ids[0] == ids[1])
        assert all(isinstance(each, Posted | UUID | RequestIdReusedError) for each in (cancelled, deleted))
        await keeper.repository.release(keeper.incarnation)


async def kept(keeper: Keeper, age: timedelta, count: int = 1) -> list[Execution]:
    """Executions of another workflow that were started so long ago with request ids, and have ended."""
    workflow = await keeper.repository.create_workflow(ORG, uuid7(), document(f"w{age}"), "ann")
    wanted = [
        new(execution(workflow, state=ExecutionState.COMPLETED, create_time=now() - age, request_id=f"r{age} {number}"))
        for number in range(count)
    ]
    return [(await keeper.repository.create(each)).execution for each in wanted]


async def is_known(repository: Repository, row: Execution) -> bool:
    try:
        return await repository.find_request(ORG, row.request_id, [new(row).content_hash]) is not None
    except ExecutionNotFoundError:
        return True


async def test_a_request_id_is_forgotten_when_it_is_old_and_its_execution_gone(
    repository: Repository, keeper: Keeper
) -> None:
    [old], [young] = await kept(keeper, REMEMBERED + timedelta(hours=1)), await kept(keeper, timedelta(days=29))
    assert await repository.forget(10) == 0
    for row in (old, young):
        await repository.delete_workflow(SCOPE, row.workflow_name, "", False, "ann")
    await repository.reap(10)
    assert await repository.forget(10) == 1
    assert [await is_known(repository, row) for row in (old, young)] == [False, True]
    again = await keeper.put(request_id=old.request_id)
    assert again.id != old.id


async def test_request_ids_are_forgotten_batch_by_batch(repository: Repository, keeper: Keeper) -> None:
    """Those whose executions are kept are passed by, and do not keep the others from being looked at."""
    remembered = await kept(keeper, REMEMBERED + timedelta(days=9), 3)
    gone = await kept(keeper, REMEMBERED + timedelta(days=5), 5)
    await repository.delete_workflow(SCOPE, gone[0].workflow_name, "", False, "ann")
    await repository.reap(10)
    forgotten = [await repository.forget(2) for _ in range(7)]
    assert sum(forgotten) == 5 and max(forgotten) == 2
    assert [await is_known(repository, row) for row in (*remembered, *gone)] == [True] * 3 + [False] * 5
