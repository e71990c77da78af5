"""Tasks of people: what transitions make of them, who sees and changes them, and that a completion is never passed."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace

from persistence.errors import (
    PersistenceError,
    RequestIdReusedError,
    TaskClaimedError,
    TaskEndedError,
    TaskNotAssignedError,
    TaskNotFoundError,
)
from persistence.model import Execution, ExecutionState, Message, MessageKind, Scope
from persistence.people import (
    Acted,
    Claim,
    Comment,
    Complete,
    Delegate,
    NewTask,
    Person,
    Release,
    Remark,
    TaskChange,
    TaskFilter,
    TaskState,
    new_task,
)
from persistence.repository import Repository
from persistence.requests import Method, Request
from persistence.transition import CommitResult
from service.engine.ids import uuid7
from tests.conformance.builders import (
    MOMENT,
    ORG,
    OWNER,
    SCOPE,
    Keeper,
    ending,
    execution,
    new,
    outcome,
    parking,
    transition,
)
from tests.conformance.journal.test_condemn import end

BOB, CAROL = Person(ORG, "bob", frozenset({"heads"})), Person(ORG, "carol")
ANN = Person(ORG, OWNER)
ADMIN = Person(ORG, "admin", sees_all=True)
FOREIGN = Person("globex", "bob", frozenset({"heads"}), sees_all=True)
DONE = Complete("approved", {"amount": 5}, "fine")


def made(**changes: Any) -> NewTask:
    """A task for bob."""
    task = NewTask(
        id=uuid7(),
        path="fetch",
        iteration=1,
        title="Approve",
        description="All of it",
        form={"type": "object"},
        outcomes=("approved", "rejected"),
        assignees=("bob",),
        groups=(),
        create_time=MOMENT,
        due_time=None,
        waited=True,
        workflow_name="research",
        owner=OWNER,
    )
    return replace(task, **changes)


async def kept(keeper: Keeper, *tasks: NewTask) -> tuple[Execution, NewTask]:
    """An execution that has made tasks, and the first of them."""
    tasks = tasks or (made(),)
    return await keeper.commit(transition(await keeper.put(), tasks=tasks)), tasks[0]


def change(task: NewTask, state: TaskState = TaskState.EXPIRED, **changes: Any) -> TaskChange:
    return replace(TaskChange(task.id, state, MOMENT), **changes)


async def listed(repository: Repository, person: Person, **where: Any) -> list[UUID]:
    return [task.id for task in await repository.list_tasks(person, TaskFilter(**where), None, 50)]


async def test_what_a_transition_or_a_creation_makes_is_read_whole_and_listed_in_short(
    repository: Repository, keeper: Keeper
) -> None:
    row, first = await kept(keeper, made(due_time=MOMENT, groups=("heads", "tails")))
    second = made()
    created = execution(keeper.workflow, keeper.incarnation)
    await repository.create(new(created, tasks=[second]))
    for task, made_by in ((first, row.id), (second, created.id)):
        assert await repository.get_task(BOB, task.id) == new_task(task, ORG, made_by)
    whole = new_task(first, ORG, row.id)
    short = replace(whole, description="", form=None)
    assert (await repository.list_tasks(BOB, TaskFilter(execution_id=row.id), None, 50)) == [short]


async def test_lists_hold_what_one_sees_and_asks_for_newest_first(repository: Repository, keeper: Keeper) -> None:
    mine, heads, others = made(), made(assignees=(), groups=("heads",)), made(assignees=("dave",))
    everybody = made(assignees=())
    row, _ = await kept(keeper, mine, heads, others, everybody)
    every = [everybody.id, others.id, heads.id, mine.id]
    assert await listed(repository, BOB) == [everybody.id, heads.id, mine.id]
    assert await listed(repository, CAROL) == [everybody.id]
    assert await listed(repository, ANN) == await listed(repository, ADMIN) == every
    assert await listed(repository, ANN, mine=True) == [everybody.id]
    assert await listed(repository, FOREIGN) == []
    assert await listed(repository, BOB, group="heads") == [heads.id]
    assert await listed(repository, BOB, execution_id=uuid4()) == []
    await repository.act(CAROL, everybody.id, Claim())
    assert await listed(repository, BOB, mine=True) == [heads.id, mine.id]
    assert await listed(repository, CAROL, mine=True) == [everybody.id]
    assert await listed(repository, BOB, states=frozenset({TaskState.CLAIMED})) == [everybody.id]
    page = await repository.list_tasks(ADMIN, TaskFilter(execution_id=row.id), others.id, 1)
    assert [task.id for task in page] == [heads.id]
    assert await listed(repository, BOB, ids=frozenset({others.id, mine.id, heads.id})) == [heads.id, mine.id]
    versions = await repository.task_versions(BOB, TaskFilter(), 2)
    assert list(versions.items()) == [(everybody.id, 2), (heads.id, 1)]
    assert await repository.task_versions(FOREIGN, TaskFilter(), 2) == {}


async def test_people_claim_give_back_hand_on_and_talk(repository: Repository, keeper: Keeper) -> None:
    _, task = await kept(keeper, made(groups=("heads",)))
    eve = Person(ORG, "eve", frozenset({"heads"}))
    claimed = (await repository.act(BOB, task.id, Claim())).task
    assert (claimed.state, claimed.claimed_by, claimed.version) == (TaskState.CLAIMED, "bob", 2)
    assert (await repository.act(BOB, task.id, Claim())).task == claimed
    for act in (Claim(), Release(), DONE, Delegate("eve")):
        assert isinstance(await outcome(repository.act(eve, task.id, act)), TaskClaimedError)
    said = (await repository.act(eve, task.id, Remark("soon?"))).task
    (comment,) = said.comments
    assert comment == Comment("eve", said.update_time, "soon?")
    released = (await repository.act(ADMIN, task.id, Release())).task
    assert (released.state, released.claimed_by, released.claim_time) == (TaskState.OPEN, "", None)
    handed = (await repository.act(eve, task.id, Delegate("carol", "yours"))).task
    assert (handed.assignees, handed.groups, len(handed.comments)) == (("carol",), (), 2)
    assert await repository.get_task(CAROL, task.id) == handed
    assert isinstance(await outcome(repository.act(BOB, task.id, Claim())), TaskNotFoundError)


async def test_what_is_for_others_is_hidden_or_refused(repository: Repository, keeper: Keeper) -> None:
    _, task = await kept(keeper)
    for act in (Claim(), DONE, Remark("x"), Delegate("carol")):
        for person in (CAROL, FOREIGN):
            assert isinstance(await outcome(repository.act(person, task.id, act)), TaskNotFoundError)
    assert isinstance(await outcome(repository.act(ANN, task.id, DONE)), TaskNotAssignedError)
    assert isinstance(await outcome(repository.get_task(CAROL, task.id)), TaskNotFoundError)
    assert isinstance(await outcome(repository.act(BOB, uuid4(), DONE)), TaskNotFoundError)


async def test_a_completion_ends_the_task_and_reaches_the_execution(repository: Repository, keeper: Keeper) -> None:
    """CONTRACT ST13."""
    row, task = await kept(keeper)
    row = await keeper.commit(parking(row, MOMENT))
    done = await repository.act(BOB, task.id, DONE)
    ended = done.task
    assert (ended.state, ended.outcome, ended.values, ended.completed_by) == (
        TaskState.COMPLETED,
        "approved",
        {"amount": 5},
        "bob",
    )
    body = {"path": "fetch", "iteration": 1, "outcome": "approved", "values": {"amount": 5}, "comment": "fine"}
    assert ended.end_time is not None
    told = Message(task.id, MessageKind.TASK_COMPLETED, ended.end_time, "bob", body)
    assert done.posted is not None
    assert (done.posted.message, done.posted.execution.mail) == (told, 1)
    (taken,) = await repository.claim(keeper.incarnation, 5)
    assert (taken.execution.id, list(taken.messages)) == (row.id, [told])


async def test_of_two_that_complete_at_once_one_does(repository: Repository, keeper: Keeper) -> None:
    """CONTRACT ST13."""
    row, task = await kept(keeper, made(assignees=()))
    people = [Person(ORG, f"p{number}") for number in range(5)]
    tries = [outcome(repository.act(person, task.id, DONE)) for person in people]
    answers = await asyncio.gather(*tries)
    (won,) = [each for each in answers if isinstance(each, Acted)]
    lost = [each for each in answers if isinstance(each, TaskEndedError)]
    assert [(each.state, each.completed_by) for each in lost] == [("COMPLETED", won.task.completed_by)] * 4
    assert (await repository.get_execution(SCOPE, row.id)).mail == 1


async def test_a_task_that_has_ended_stays_as_it_is(repository: Repository, keeper: Keeper) -> None:
    row, task = await kept(keeper)
    await keeper.commit(transition(row, task_changes=[change(task, outcome="rejected")]))
    expired = await repository.get_task(BOB, task.id)
    assert (expired.state, expired.outcome, expired.end_time) == (TaskState.EXPIRED, "rejected", MOMENT)
    for act in (Claim(), Release(), DONE, Remark("x"), Delegate("carol")):
        assert isinstance(await outcome(repository.act(BOB, task.id, act)), TaskEndedError)
    assert await repository.get_task(BOB, task.id) == expired


@pytest.mark.parametrize("state", [ExecutionState.RUNNING, ExecutionState.FAILED, ExecutionState.CANCELLED])
async def test_what_changes_a_task_does_not_pass_a_completion(
    repository: Repository, keeper: Keeper, state: ExecutionState
) -> None:
    """CONTRACT ST13."""
    row, task = await kept(keeper)
    await repository.act(BOB, task.id, DONE)
    written = transition(row) if state is ExecutionState.RUNNING else ending(row, state)
    blind = replace(written, task_changes=[change(task, TaskState.CANCELLED)])
    assert await repository.submit(blind) is CommitResult.FENCED
    assert (await repository.get_task(BOB, task.id)).state is TaskState.COMPLETED
    assert await repository.submit(replace(blind, consumed=[task.id], mail_seen=1)) is CommitResult.COMMITTED
    assert (await repository.get_task(BOB, task.id)).state is TaskState.COMPLETED


async def test_an_end_does_not_pass_a_completion(repository: Repository, keeper: Keeper) -> None:
    """CONTRACT ST13."""
    row, task = await kept(keeper)
    await repository.act(BOB, task.id, DONE)
    assert await repository.submit(ending(row, ExecutionState.COMPLETED)) is CommitResult.FENCED


async def test_transitions_in_flight_together_do_not_hide_a_completion(repository: Repository, keeper: Keeper) -> None:
    """The first overrules what the second has seen: both are refused, also where one flush writes them."""
    row, task = await kept(keeper)
    await repository.act(BOB, task.id, DONE)
    first = transition(row, task_changes=[change(task)])
    second = transition(replace(row, last_seq=first.last_seq), consumed=[task.id], mail_seen=1)
    answers = await asyncio.gather(repository.submit(first), repository.submit(second))
    assert list(answers) == [CommitResult.FENCED, CommitResult.FENCED]


async def test_what_is_made_handed_over_and_ended_in_one_breath_has_ended(
    repository: Repository, keeper: Keeper
) -> None:
    row, task = await keeper.put(), made()
    handing = change(task, TaskState.OPEN, groups=("heads",), due_time=MOMENT)
    written = []
    for content in ({"tasks": [task]}, {"task_changes": [handing]}, {"task_changes": [change(task)]}):
        written.append(transition(row, **content))
        row = replace(row, last_seq=written[-1].last_seq)
    answers = await asyncio.gather(*(repository.submit(each) for each in written))
    assert answers == [CommitResult.COMMITTED] * 3
    found = await repository.get_task(BOB, task.id)
    assert (found.state, found.assignees, found.groups, found.due_time) == (TaskState.EXPIRED, (), ("heads",), MOMENT)
    assert (found.escalated, found.version) == (True, 3)


async def test_one_for_which_nobody_waits_is_completed_without_a_word(repository: Repository, keeper: Keeper) -> None:
    row, task = await kept(keeper, made(waited=False))
    await keeper.commit(ending(row))
    done = await repository.act(BOB, task.id, DONE)
    assert (done.task.state, done.posted) == (TaskState.COMPLETED, None)


async def test_a_request_is_done_once(repository: Repository, keeper: Keeper) -> None:
    """CONTRACT EX9."""
    _, task = await kept(keeper)
    request = Request("r", Method.DELEGATE_TASK, b"1" * 16)
    first = (await repository.act(BOB, task.id, Delegate("carol"), request)).task
    assert (await repository.act(BOB, task.id, Delegate("carol"), request)).task == first
    other = replace_request(request, Method.CLAIM_TASK)
    assert isinstance(await outcome(repository.act(CAROL, task.id, Claim(), other)), RequestIdReusedError)
    refused = Request("free", Method.CLAIM_TASK, b"2" * 16)
    assert isinstance(await outcome(repository.act(ANN, task.id, Claim(), refused)), TaskNotAssignedError)
    assert (await repository.act(CAROL, task.id, Claim(), refused)).task.claimed_by == "carol"


def replace_request(request: Request, method: Method) -> Request:
    return Request(request.id, method, request.content_hash)


async def test_what_is_condemned_or_removed_takes_its_tasks_along(repository: Repository, keeper: Keeper) -> None:
    free = made(waited=False)
    row, task = await kept(keeper, made(), free)
    assert await repository.condemn(keeper.incarnation, row.id, end) is not None
    assert (await repository.get_task(BOB, task.id)).state is TaskState.CANCELLED
    assert (await repository.get_task(BOB, free.id)).state is TaskState.OPEN
    await repository.delete_workflow(Scope(ORG), str(keeper.workflow.id), "", True, "ann")
    assert await repository.reap(10) == 1
    assert await listed(repository, ADMIN) == []


@pytest.mark.parametrize(
    "content",
    [
        lambda task: {"tasks": [task, task]},
        lambda task: {"tasks": [task], "task_changes": [change(task)]},
        lambda task: {"task_changes": [change(task, TaskState.COMPLETED)]},
        lambda task: {"tasks": [replace(task, title="x" * 257)]},
        lambda task: {"tasks": [replace(task, description="\0")]},
    ],
)
async def test_what_contradicts_itself_or_cannot_be_kept_is_refused(
    repository: Repository, keeper: Keeper, content: Any
) -> None:
    row, task = await keeper.put(), made()
    assert isinstance(await outcome(repository.submit(transition(row, **content(task)))), PersistenceError)
    assert await listed(repository, ADMIN) == []
