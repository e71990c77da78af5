"""Creating executions: durable, once per request id, all or nothing."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from persistence.errors import ExecutionNotFoundError, PersistenceError, RequestIdReusedError, WorkflowNotFoundError
from persistence.listing import ExecutionFilter, ExecutionOrder
from persistence.model import ExecutionOutcome, ExecutionState, Scope, StepCounts, StepState
from persistence.repository import Repository
from persistence.transition import Created, NewExecution
from service.engine.ids import uuid7
from tests.conformance.builders import (
    BEYOND,
    FOREIGN_ORG,
    ORG,
    SCOPE,
    Keeper,
    document,
    ending,
    events,
    execution,
    in_seconds,
    new,
    now,
    outcome,
    step,
    transition,
)
from tests.conformance.conftest import OpenRepository

HASH = b"\x00\xff" * 16
OTHER_HASH = b"\x00\xfe" * 16


async def count(repository: Repository, scope: Scope = SCOPE) -> int:
    return await repository.count_executions(scope, ExecutionFilter(), ExecutionOrder.NEWEST, 1_000)


async def test_row_input_steps_and_events_are_there_at_once(repository: Repository, keeper: Keeper) -> None:
    row = execution(keeper.workflow, keeper.incarnation, last_seq=3, request_id="r")
    steps = (step("a", StepState.COMPLETED, output=1), step("b"))
    created = await repository.create(new(row, input={"a": 1}, steps=steps, events=events(0, 3)))
    assert created == Created(row, True)
    detail = await repository.get_detail(SCOPE, row.id)
    assert (detail.execution, detail.input, detail.result) == (row, {"a": 1}, None)
    assert {each.path: each for each in detail.steps} == {each.path: each for each in steps}
    assert tuple(await repository.read_events(SCOPE, row.id, 0, 10)) == events(0, 3)


async def test_one_that_ends_as_it_is_created(repository: Repository, keeper: Keeper) -> None:
    row = execution(keeper.workflow, state=ExecutionState.COMPLETED, progress=100)
    created = await repository.create(new(row, result=[1]))
    assert created == Created(row, True, ExecutionOutcome(row, [1]))
    detail = await keeper.read(row)
    assert (detail.execution, detail.result) == (row, [1])


async def test_a_repeated_request_answers_the_first_execution_as_it_is_now(
    repository: Repository, keeper: Keeper
) -> None:
    first = new(execution(keeper.workflow, keeper.incarnation, request_id="r"), content_hash=HASH)
    await repository.create(first)
    ended = await keeper.commit(ending(first.execution))
    second = new(execution(keeper.workflow, None, request_id="r"), content_hash=HASH)
    assert await repository.create(second) == Created(ended, False)
    with pytest.raises(ExecutionNotFoundError):
        await repository.get_execution(SCOPE, second.execution.id)


async def test_a_request_id_with_other_content_is_refused(repository: Repository, keeper: Keeper) -> None:
    first = new(execution(keeper.workflow, keeper.incarnation, request_id="r"), content_hash=HASH)
    await repository.create(first)
    before = await repository.get_detail(SCOPE, first.execution.id)
    other = new(execution(keeper.workflow, keeper.incarnation, request_id="r"), content_hash=OTHER_HASH)
    with pytest.raises(RequestIdReusedError) as caught:
        await repository.create(other)
    assert caught.value.request_id == "r"
    assert await count(repository) == 1
    assert await repository.get_detail(SCOPE, first.execution.id) == before
    assert not await outcome(repository.claim(keeper.incarnation, 10))


async def test_without_a_request_id_every_call_creates(repository: Repository, keeper: Keeper) -> None:
    answers = await asyncio.gather(
        *(repository.create(new(execution(keeper.workflow, keeper.incarnation))) for _ in range(20))
    )
    assert all(answer.created for answer in answers)
    assert await count(repository) == 20


@pytest.mark.parametrize("why", ["its workflow is gone", "its revision is not the latest"])
async def test_a_request_id_of_what_is_refused_is_for_the_next_that_asks_at_the_same_time(
    repository: Repository, keeper: Keeper, why: str
) -> None:
    if why == "its workflow is gone":
        refused = new(execution(dataclasses.replace(keeper.workflow, id=uuid7()), keeper.incarnation, request_id="r"))
    else:
        stale = dataclasses.replace(keeper.workflow, revision=keeper.workflow.revision + 1)
        refused = replace(new(execution(stale, keeper.incarnation, request_id="r")), if_latest=True)
    wanted = [new(execution(keeper.workflow, keeper.incarnation, request_id=each)) for each in ("r", "r", "s")]
    # While the first is on its way to the disk, the others gather.
    before, *answers = await asyncio.gather(
        *map(repository.create, [new(execution(keeper.workflow, keeper.incarnation)), refused, *wanted]),
        return_exceptions=True,
    )
    made = wanted[0].execution, wanted[0].execution, wanted[2].execution
    assert isinstance(before, Created) and isinstance(answers[0], WorkflowNotFoundError)
    assert answers[1:] == [Created(made[0], True), Created(made[1], False), Created(made[2], True)]
    assert await count(repository) == 3


async def test_orgs_do_not_share_request_ids(repository: Repository, keeper: Keeper) -> None:
    theirs = await repository.create_workflow(FOREIGN_ORG.org, uuid7(), document(), "eve")
    for workflow in (keeper.workflow, theirs):
        answer = await repository.create(new(execution(workflow, keeper.incarnation, request_id="r")))
        assert answer.created
    assert (await count(repository), await count(repository, FOREIGN_ORG)) == (1, 1)


async def test_owners_of_an_org_share_request_ids(repository: Repository, keeper: Keeper) -> None:
    """The content hash covers the owner, so that another owner's use is refused and not shown."""
    await repository.create(new(execution(keeper.workflow, keeper.incarnation, request_id="r"), content_hash=HASH))
    theirs = execution(keeper.workflow, keeper.incarnation, request_id="r", owner="bob")
    with pytest.raises(RequestIdReusedError):
        await repository.create(new(theirs, content_hash=OTHER_HASH))


@pytest.mark.parametrize("request_id", ["r", "018f-ü-🐳", "x" * 128, "' OR 1=1"])
async def test_64_at_once_create_one(open_repository: OpenRepository, keeper: Keeper, request_id: str) -> None:
    replicas = [keeper.repository, await open_repository(), await open_repository()]
    pending = [
        replicas[number % 3].create(
            new(execution(keeper.workflow, keeper.incarnation, request_id=request_id), content_hash=HASH)
        )
        for number in range(64)
    ]
    answers = await asyncio.gather(*pending)
    assert len({answer.execution.id for answer in answers}) == 1
    assert sum(answer.created for answer in answers) == 1
    assert await count(keeper.repository) == 1


async def test_of_two_contents_at_once_one_wins(open_repository: OpenRepository, keeper: Keeper) -> None:
    replicas = [keeper.repository, await open_repository()]
    for attempt in range(10):
        contents = [HASH, OTHER_HASH] * 8
        pending = [
            outcome(
                replicas[number // 2 % 2].create(
                    new(execution(keeper.workflow, keeper.incarnation, request_id=f"r{attempt}"), content_hash=content)
                )
            )
            for number, content in enumerate(contents)
        ]
        answers = await asyncio.gather(*pending)
        winners = {content for content, answer in zip(contents, answers, strict=True) if isinstance(answer, Created)}
        assert len(winners) == 1
        for content, answer in zip(contents, answers, strict=True):
            assert isinstance(answer, Created if content in winners else RequestIdReusedError)
        assert len({answer.execution.id for answer in answers if isinstance(answer, Created)}) == 1
    assert await count(keeper.repository) == 10


async def test_a_refused_creation_harms_none_beside_it(repository: Repository, keeper: Keeper) -> None:
    await repository.create(new(execution(keeper.workflow, keeper.incarnation, request_id="r"), content_hash=HASH))
    rows = [execution(keeper.workflow, keeper.incarnation, request_id=f"r{n}" if n else "r") for n in range(10)]
    answers = await asyncio.gather(*(outcome(repository.create(new(row, content_hash=OTHER_HASH))) for row in rows))
    assert isinstance(answers[0], RequestIdReusedError)
    assert all(isinstance(answer, Created) and answer.created for answer in answers[1:])
    assert await count(repository) == 10


async def test_creations_and_transitions_in_flight_keep_their_order(repository: Repository, keeper: Keeper) -> None:
    rows = [execution(keeper.workflow, keeper.incarnation) for _ in range(30)]
    pending: list[Any] = []
    for row in rows:
        pending += [repository.create(new(row)), repository.submit(transition(row))]
    await asyncio.gather(*pending)
    for row in rows:
        assert (await keeper.read(row)).execution.last_seq == 2


BROKEN: dict[str, dict[str, Any]] = {
    "ended without end time": {"state": ExecutionState.COMPLETED, "incarnation": None, "wake_time": None},
    "end time without end": {"end_time": now()},
    "ended and owned": {"state": ExecutionState.FAILED, "end_time": now()},
    "ended and waiting": {
        "state": ExecutionState.FAILED,
        "end_time": now(),
        "incarnation": None,
        "wake_time": in_seconds(1),
    },
    "neither owned nor waiting": {"incarnation": None, "wake_time": None},
    "progress above 100": {"progress": 101},
    "progress below 0": {"progress": -1},
    "counts above total": {"counts": StepCounts(total=1, completed=1, failed=1)},
    "counts below 0": {"counts": StepCounts(total=1, running=-1)},
    "NUL in a text": {"correlation_id": "a\0b"},
    "NUL in labels": {"labels": {"a": "\0"}},
    "half of a pair in a tag": {"tags": ("\ud800",)},
    "a time beyond the calendar": {"scheduled_time": BEYOND},
    "no number as timeout": {"timeout": float("nan")},
    "a timeout without end": {"timeout": float("inf")},
}


def broken(workflow: Any, incarnation: UUID, name: str) -> NewExecution:
    row = execution(workflow, incarnation, request_id="r")
    return new(replace(row, **BROKEN[name]))


@pytest.mark.parametrize("name", BROKEN)
async def test_what_contradicts_itself_is_refused_and_leaves_nothing(
    repository: Repository, keeper: Keeper, name: str
) -> None:
    bad = broken(keeper.workflow, keeper.incarnation, name)
    good = [new(execution(keeper.workflow, keeper.incarnation)) for _ in range(3)]
    answers = await asyncio.gather(*(outcome(repository.create(each)) for each in (good[0], bad, *good[1:])))
    assert isinstance(answers[1], PersistenceError)
    assert all(isinstance(answer, Created) for answer in (answers[0], *answers[2:]))
    with pytest.raises(ExecutionNotFoundError):
        await repository.get_execution(SCOPE, bad.execution.id)
    # The request id was not used up.
    assert (await repository.create(new(execution(keeper.workflow, keeper.incarnation, request_id="r")))).created


@pytest.mark.parametrize("payload", [{"a": "\0"}, {"\0": 1}, {"a": ["\udc00"]}], ids=["value", "key", "surrogate"])
async def test_a_payload_that_cannot_be_kept_is_refused(repository: Repository, keeper: Keeper, payload: Any) -> None:
    for changes in ({"input": payload}, {"steps": [step(output=payload)]}):
        with pytest.raises(PersistenceError):
            await repository.create(new(execution(keeper.workflow, keeper.incarnation), **changes))
    assert await count(repository) == 0


async def test_an_execution_needs_its_workflow_in_its_own_org(repository: Repository, keeper: Keeper) -> None:
    for changes in ({"workflow_id": uuid7()}, {"org": FOREIGN_ORG.org}):
        with pytest.raises(WorkflowNotFoundError):
            await repository.create(new(execution(keeper.workflow, keeper.incarnation, **changes)))
    assert (await count(repository), await count(repository, FOREIGN_ORG)) == (0, 0)
    assert keeper.workflow.org == ORG


async def test_one_that_is_to_be_of_the_latest_revision_is_kept_only_if_it_is(
    repository: Repository, keeper: Keeper
) -> None:
    first, latest = keeper.workflow, await repository.update_workflow(SCOPE, "research", document(), "", "bob")
    assert (await repository.create(new(execution(latest), if_latest=True))).created
    assert (await repository.create(new(execution(first)))).created
    wanted = [
        repository.create(new(execution(first), if_latest=True)),
        repository.create(new(execution(latest), if_latest=True)),
        repository.create(new(execution(first))),
    ]
    kept = await asyncio.gather(*wanted, return_exceptions=True)
    assert [type(each) for each in kept] == [WorkflowNotFoundError, Created, Created]
    assert await count(repository) == 4

    await repository.delete_workflow(SCOPE, "research", "", True, "bob")
    with pytest.raises(WorkflowNotFoundError):
        await repository.create(new(execution(latest), if_latest=True))


async def test_a_request_that_was_kept_is_answered_though_its_revision_is_no_longer_the_latest(
    repository: Repository, keeper: Keeper
) -> None:
    first = new(execution(keeper.workflow, request_id="r"), if_latest=True)
    await repository.create(first)
    await repository.update_workflow(SCOPE, "research", document(), "", "bob")
    again = new(execution(keeper.workflow, request_id="r"), if_latest=True)
    assert await repository.create(again) == Created(first.execution, False)
