"""Claims: what is free and due, most urgent first, each to one process."""

from __future__ import annotations

import asyncio
from collections import Counter
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace

from persistence.model import UNREAD, ExecutionState, Scope
from persistence.repository import Repository
from persistence.transition import CommitResult
from service.engine.ids import uuid7
from tests.conformance.builders import (
    FOREIGN_ORG,
    MOMENT,
    ORG,
    Keeper,
    after,
    document,
    ending,
    execution,
    ids,
    in_seconds,
    new,
    now,
    parking,
    seen,
    step,
    transition,
    until,
)
from tests.conformance.conftest import OpenRepository


async def register(repository: Repository) -> UUID:
    incarnation = uuid4()
    await repository.register(incarnation, "another", 300)
    return incarnation


async def test_a_claim_returns_the_execution_as_taken(repository: Repository, keeper: Keeper) -> None:
    row = execution(keeper.workflow, None, priority=5, last_seq=2)
    await repository.create(new(row, input={"a": [1]}, steps=[step()], result=None))
    [detail] = await repository.claim(keeper.incarnation, 10)
    assert detail.execution == replace(row, incarnation=keeper.incarnation, epoch=2, wake_time=None)
    assert (detail.input, detail.result, detail.steps) == ({"a": [1]}, None, (step(input=UNREAD),))
    assert await keeper.read(row) == replace(detail, steps=(step(),))
    assert not await repository.claim(keeper.incarnation, 10)


async def test_what_is_owned_ended_or_not_due_is_left(repository: Repository, keeper: Keeper) -> None:
    await keeper.put()
    await keeper.put_ended()
    await keeper.put_free(wake_time=in_seconds(60))
    due = await keeper.put_free(wake_time=in_seconds(-60))
    assert ids(await repository.claim(keeper.incarnation, 10)) == [due.id]
    assert not await repository.claim(await register(repository), 10)


async def test_what_awaits_a_handler_is_left_to_who_has_it(repository: Repository, keeper: Keeper) -> None:
    rows = [await keeper.put() for _ in range(3)]
    for row, names in zip(rows, (("a",), ("a", "b"), ()), strict=True):
        parked = parking(row, in_seconds(60), awaits=names)
        assert await repository.submit(parked) is CommitResult.COMMITTED
    assert not await repository.claim(keeper.incarnation, 10)
    assert not await repository.claim(keeper.incarnation, 10, handlers=("c",))
    assert not await repository.claim(keeper.incarnation, 10, handlers=("b",), without=[ORG])
    [taken] = await repository.claim(keeper.incarnation, 10, handlers=("b", "c"))
    assert (taken.execution.id, taken.execution.wake_time) == (rows[1].id, None)
    # What it awaited is forgotten when it is taken, and when it is given up without a word.
    await repository.release(keeper.incarnation, [rows[1].id])
    again = [each.execution for each in await repository.claim(keeper.incarnation, 10, handlers=("a",))]
    assert {each.id for each in again} == {rows[0].id, rows[1].id}
    for each in again:
        assert await repository.submit(parking(each, in_seconds(60))) is CommitResult.COMMITTED
    assert not await repository.claim(keeper.incarnation, 10, handlers=("a", "b"))


async def test_what_awaits_a_handler_and_is_due_is_for_all(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    await repository.submit(parking(row, in_seconds(-1), awaits=("a",)))
    assert ids(await repository.claim(keeper.incarnation, 10, handlers=("a", "b"))) == [row.id]


async def test_higher_priority_first_then_the_longer_wait(repository: Repository, keeper: Keeper) -> None:
    order = [(9, -1), (5, -30), (5, -20), (5, -10), (0, -99), (-3, -100)]
    shuffled = [order[index] for index in (3, 0, 5, 1, 4, 2)]
    rows = [await keeper.put_free(priority=priority, wake_time=in_seconds(wait)) for priority, wait in shuffled]
    wanted = [rows[shuffled.index(each)].id for each in order]
    assert ids(await repository.claim(keeper.incarnation, 2)) == wanted[:2]
    assert ids(await repository.claim(keeper.incarnation, 3)) == wanted[2:5]
    assert ids(await repository.claim(keeper.incarnation, 10)) == wanted[5:]


async def test_executions_of_every_org_are_claimed(repository: Repository, keeper: Keeper) -> None:
    theirs = await repository.create_workflow(FOREIGN_ORG.org, uuid7(), document(), "eve")
    row = execution(theirs)
    await repository.create(new(row))
    mine = await keeper.put_free()
    assert set(ids(await repository.claim(keeper.incarnation, 10))) == {row.id, mine.id}


async def test_orgs_take_turns_within_a_priority(repository: Repository, keeper: Keeper) -> None:
    """An org with a long queue does not keep the others waiting."""
    many = [await keeper.put_free(wake_time=in_seconds(-100 + number)) for number in range(20)]
    few = []
    for org in ("b-org", "c-org"):
        theirs = await repository.create_workflow(org, uuid7(), document(), "eve")
        for number in range(2):
            few.append(execution(theirs, wake_time=in_seconds(-10 + number)))
            await repository.create(new(few[-1]))
    urgent = await keeper.put_free(priority=7, wake_time=in_seconds(-1))
    wanted = [urgent, many[0], few[0], few[2], many[1], few[1], few[3], many[2], many[3]]
    assert ids(await repository.claim(keeper.incarnation, 9)) == [row.id for row in wanted]
    assert ids(await repository.claim(keeper.incarnation, 100)) == [row.id for row in many[4:]]


async def test_of_some_orgs_nothing_is_taken_but_what_the_dead_left(repository: Repository, keeper: Keeper) -> None:
    theirs = await repository.create_workflow("b-org", uuid7(), document(), "eve")
    row = execution(theirs)
    await repository.create(new(row))
    mine = await keeper.put_free()
    orphan = await keeper.put(incarnation=uuid4())
    assert set(ids(await repository.claim(keeper.incarnation, 10, without=[ORG, "d-org"]))) == {row.id, orphan.id}
    assert ids(await repository.claim(keeper.incarnation, 10)) == [mine.id]


async def test_each_execution_goes_to_one_process(open_repository: OpenRepository, keeper: Keeper) -> None:
    rows = [await keeper.put_free() for _ in range(60)]
    claimed: list[UUID] = []

    async def claim_all() -> None:
        repository = await open_repository()
        incarnation = await register(repository)
        while taken := await repository.claim(incarnation, 7):
            assert len(taken) <= 7
            assert all(each.execution.incarnation == incarnation and each.execution.epoch == 2 for each in taken)
            claimed.extend(ids(taken))

    await asyncio.gather(*(claim_all() for _ in range(4)))
    late = await keeper.repository.claim(keeper.incarnation, 100)
    assert Counter([*claimed, *ids(late)]) == Counter(ids(rows))


async def test_a_claimed_execution_takes_transitions_of_its_new_owner(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put_free()
    [detail] = await repository.claim(keeper.incarnation, 1)
    assert await repository.submit(transition(detail.execution, epoch=1)) is CommitResult.FENCED
    assert await repository.submit(transition(detail.execution)) is CommitResult.COMMITTED
    assert (await keeper.read(row)).execution.last_seq == 2


# --- giving up


async def test_a_parked_execution_waits_for_its_time(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    wake_time = in_seconds(0.3)
    parked = await keeper.commit(parking(row, wake_time))
    assert (parked.incarnation, parked.wake_time, parked.epoch) == (None, wake_time, row.epoch)
    assert await repository.next_wake_time() == wake_time
    # Asked from now on, however long it was on its way: what is given before its time is seen.
    [detail] = await until(lambda: repository.claim(keeper.incarnation, 10))
    assert now() >= wake_time
    assert (detail.execution.id, detail.execution.epoch) == (row.id, row.epoch + 1)
    assert await repository.next_wake_time() is None


async def test_parked_without_a_time_is_due_at_once(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    parked = await keeper.commit(parking(row, None))
    assert parked.wake_time is not None
    assert abs((now() - parked.wake_time).total_seconds()) < 5
    assert ids(await repository.claim(keeper.incarnation, 10)) == [row.id]


async def test_parked_without_having_seen_what_binds_is_due_at_once(repository: Repository, keeper: Keeper) -> None:
    row, other = await keeper.put(), await keeper.put()
    for each in (row, other):
        await repository.request_cancel(Scope(each.org), each.id, "ann", "")
    await keeper.commit(parking(row, in_seconds(3600)))
    await keeper.commit(parking(other, in_seconds(3600), **seen(other)))
    assert ids(await repository.claim(keeper.incarnation, 10)) == [row.id]


async def test_the_next_wake_time_is_the_earliest_of_those_nobody_owns(repository: Repository, keeper: Keeper) -> None:
    assert await repository.next_wake_time() is None
    await keeper.put()
    await keeper.put_ended()
    assert await repository.next_wake_time() is None
    for seconds in (30, 10, 20):
        await keeper.put_free(wake_time=MOMENT.replace(second=seconds), priority=-seconds)
    assert await repository.next_wake_time() == MOMENT.replace(second=10)


async def test_released_executions_are_due_at_once(repository: Repository, keeper: Keeper) -> None:
    rows = [await keeper.put() for _ in range(3)]
    other = await register(repository)
    foreign, parked = await keeper.put(incarnation=other), await keeper.put_free(wake_time=in_seconds(60))
    asked = [rows[0].id, foreign.id, parked.id, (await keeper.put_ended()).id, uuid4(), rows[0].id]
    assert await repository.release(keeper.incarnation, asked) == 1
    assert await repository.release(keeper.incarnation, asked) == 0
    assert await repository.release(keeper.incarnation, []) == 0
    assert ids(await repository.claim(other, 10)) == [rows[0].id]
    assert await repository.release(keeper.incarnation) == 2
    assert await repository.release(keeper.incarnation) == 0
    assert set(ids(await repository.claim(other, 10))) == {rows[1].id, rows[2].id}
    assert (await keeper.read(foreign)).execution == foreign
    assert (await keeper.read(parked)).execution == parked


async def test_a_released_execution_takes_no_transition_of_its_old_owner(
    repository: Repository, keeper: Keeper
) -> None:
    row = await keeper.put()
    await repository.release(keeper.incarnation, [row.id])
    assert await repository.submit(transition(row)) is CommitResult.FENCED
    [detail] = await repository.claim(keeper.incarnation, 1)
    assert await repository.submit(transition(row)) is CommitResult.FENCED
    assert await repository.submit(transition(detail.execution)) is CommitResult.COMMITTED


# --- one at a time


async def test_a_free_execution_is_taken_whatever_its_time(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put_free(wake_time=in_seconds(3600))
    detail = await repository.claim_one(keeper.incarnation, row.org, row.id)
    assert detail is not None
    assert detail.execution == replace(row, incarnation=keeper.incarnation, epoch=2, wake_time=None)
    assert await keeper.read(row) == detail


async def test_nothing_is_taken_from_anybody(repository: Repository, keeper: Keeper) -> None:
    other = await register(repository)
    owned, ended = await keeper.put(), await keeper.put_ended()
    for incarnation in (other, keeper.incarnation):
        for execution_id in (owned.id, ended.id, uuid4()):
            assert await repository.claim_one(incarnation, owned.org, execution_id) is None
    assert (await keeper.read(owned)).execution == owned
    assert (await keeper.read(ended)).execution == ended


async def test_nothing_is_taken_under_another_org(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put_free()
    assert await repository.claim_one(keeper.incarnation, FOREIGN_ORG.org, row.id) is None
    assert (await keeper.read(row)).execution == row


async def test_of_many_at_once_one_takes_it(open_repository: OpenRepository, keeper: Keeper) -> None:
    row = await keeper.put_free(wake_time=in_seconds(3600))
    replicas = [keeper.repository, await open_repository()]
    incarnations = [await register(keeper.repository) for _ in range(12)]
    answers = await asyncio.gather(
        *(replicas[number % 2].claim_one(each, row.org, row.id) for number, each in enumerate(incarnations))
    )
    taken = [detail for detail in answers if detail is not None]
    assert len(taken) == 1
    assert (await keeper.read(row)).execution == taken[0].execution
    assert taken[0].execution.epoch == 2


async def test_only_the_owner_loads(repository: Repository, keeper: Keeper) -> None:
    row, free, ended = await keeper.put(), await keeper.put_free(), await keeper.put_ended()
    detail = await repository.load(keeper.incarnation, row.id)
    assert detail == await keeper.read(row)
    assert detail.execution.epoch == row.epoch
    other = await register(repository)
    for incarnation, execution_id in (
        (other, row.id),
        (keeper.incarnation, free.id),
        (keeper.incarnation, ended.id),
        (keeper.incarnation, uuid4()),
    ):
        assert await repository.load(incarnation, execution_id) is None


async def test_a_load_sees_what_was_submitted_before(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    first = transition(row, steps=[step()])
    await repository.submit(first)
    detail = await repository.load(keeper.incarnation, row.id)
    assert detail is not None
    assert (detail.execution.last_seq, detail.steps) == (2, (step(input=UNREAD),))
    await repository.submit(ending(after(row, first)))
    assert await repository.load(keeper.incarnation, row.id) is None


@pytest.mark.parametrize("state", [state for state in ExecutionState if not state.is_end])
async def test_every_open_state_is_claimable(repository: Repository, keeper: Keeper, state: ExecutionState) -> None:
    row = await keeper.put_free(state=state)
    [detail] = await repository.claim(keeper.incarnation, 10)
    assert (detail.execution.id, detail.execution.state) == (row.id, state)
