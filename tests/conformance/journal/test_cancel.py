"""Wishes to cancel: messages that are kept once, heard by who drives the execution next, and above any other end."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from persistence.errors import ExecutionFinishedError
from persistence.model import Execution, ExecutionState, MessageKind, Posted, Scope
from persistence.repository import Repository
from persistence.transition import CommitResult
from tests.conformance.builders import (
    CANCELLED,
    ORG,
    SCOPE,
    Keeper,
    after,
    ending,
    ids,
    in_seconds,
    now,
    outcome,
    parking,
    seen,
    transition,
)
from tests.conformance.conftest import OpenRepository

COMMITTED, FENCED = CommitResult.COMMITTED, CommitResult.FENCED
OTHER_ENDS = [ExecutionState.COMPLETED, ExecutionState.FAILED, ExecutionState.TIMED_OUT]


async def test_the_wish_is_kept(repository: Repository, keeper: Keeper) -> None:
    row, before = await keeper.put(), now()
    asked = await repository.request_cancel(Scope(ORG, "ann"), row.id, "ann", "no more 🐳")
    assert asked.message is not None
    assert (asked.message.kind, asked.message.sender) == (MessageKind.CANCEL, "ann")
    assert asked.message.body == {"reason": "no more 🐳"}
    assert before <= asked.message.time <= now()
    assert asked.execution == replace(row, mail=1)
    assert await repository.get_execution(SCOPE, row.id) == asked.execution
    detail = await repository.load(keeper.incarnation, row.id)
    assert detail is not None
    assert (detail.execution, list(detail.messages)) == (asked.execution, [asked.message])


async def test_a_wish_that_stands_is_left_as_it_is(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    first = await repository.request_cancel(SCOPE, row.id, "ann", "first")
    for _ in range(3):
        assert await repository.request_cancel(SCOPE, row.id, "bob", "second") == first


async def test_of_many_wishes_at_once_one_stands(open_repository: OpenRepository, keeper: Keeper) -> None:
    row = await keeper.put()
    replicas = [keeper.repository, await open_repository()]
    answers = await asyncio.gather(
        *(replicas[number % 2].request_cancel(SCOPE, row.id, f"user {number}", "") for number in range(16))
    )
    assert len({answer.message.sender for answer in answers if answer.message}) == 1
    assert [answer.execution.mail for answer in answers] == [1] * 16
    assert (await keeper.read(row)).execution.mail == 1


async def test_without_owner_it_is_claimable_at_once(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put_free(wake_time=in_seconds(3600))
    asked = await repository.request_cancel(SCOPE, row.id, "ann", "")
    assert asked.execution.wake_time is not None
    assert asked.execution.wake_time <= now()
    [detail] = await repository.claim(keeper.incarnation, 10)
    assert list(detail.messages) == [asked.message]


async def test_one_that_was_due_already_does_not_lose_its_place(repository: Repository, keeper: Keeper) -> None:
    first, second = await keeper.put_free(wake_time=in_seconds(-60)), await keeper.put_free(wake_time=in_seconds(-30))
    await repository.request_cancel(SCOPE, first.id, "ann", "")
    assert ids(await repository.claim(keeper.incarnation, 10)) == [first.id, second.id]


async def test_on_a_cancelled_one_it_changes_nothing(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    await repository.request_cancel(SCOPE, row.id, "ann", "first")
    cancelled = await keeper.commit(ending(row, ExecutionState.CANCELLED, **seen(row)))
    assert cancelled.mail == 1
    assert await repository.request_cancel(SCOPE, row.id, "bob", "second") == Posted(cancelled, None)
    unasked = await keeper.put_ended(ExecutionState.CANCELLED)
    assert await repository.request_cancel(SCOPE, unasked.id, "bob", "") == Posted(unasked, None)


async def test_on_one_that_is_cancelling_it_changes_nothing(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    await repository.request_cancel(SCOPE, row.id, "ann", "first")
    cancelling = await keeper.commit(transition(row, state=ExecutionState.CANCELLING, ending=CANCELLED, **seen(row)))
    assert await repository.request_cancel(SCOPE, row.id, "bob", "second") == Posted(cancelling, None)
    assert await repository.deliver(keeper.incarnation) == []


@pytest.mark.parametrize("state", OTHER_ENDS)
async def test_on_another_end_it_is_refused(repository: Repository, keeper: Keeper, state: ExecutionState) -> None:
    row = await keeper.put()
    ended = await keeper.commit(ending(row, state))
    for _ in range(2):
        with pytest.raises(ExecutionFinishedError) as caught:
            await repository.request_cancel(SCOPE, row.id, "ann", "")
        assert (caught.value.execution_id, caught.value.state) == (row.id, state)
    assert await repository.get_execution(SCOPE, row.id) == ended


@pytest.mark.parametrize("state", OTHER_ENDS)
async def test_a_wish_that_came_first_fences_another_end(
    repository: Repository, keeper: Keeper, state: ExecutionState
) -> None:
    row = await keeper.put()
    asked = await repository.request_cancel(SCOPE, row.id, "ann", "")
    assert await repository.submit(ending(row, state)) is FENCED
    assert await repository.get_execution(SCOPE, row.id) == asked.execution
    # It is still ours, and goes on knowing of the wish.
    detail = await repository.load(keeper.incarnation, row.id)
    assert detail is not None
    await keeper.commit(ending(detail.execution, ExecutionState.CANCELLED, **seen(row)))


async def test_who_has_seen_the_wish_may_end_otherwise(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    await repository.request_cancel(SCOPE, row.id, "ann", "")
    ended = await keeper.commit(ending(row, ExecutionState.FAILED, **seen(row)))
    assert (ended.state, ended.mail) == (ExecutionState.FAILED, 1)


async def test_a_wish_does_not_fence_the_steps_on_the_way(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    asked = await repository.request_cancel(SCOPE, row.id, "ann", "")
    going_on = await keeper.commit(transition(row))
    assert going_on.last_seq == 2
    [mail] = await repository.deliver(keeper.incarnation)
    assert list(mail.messages) == [asked.message]
    ended = await keeper.commit(ending(going_on, ExecutionState.CANCELLED))
    assert ended.state is ExecutionState.CANCELLED


async def test_a_refused_end_fences_what_is_behind_it(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    await repository.request_cancel(SCOPE, row.id, "ann", "")
    first = transition(row)
    second = ending(after(row, first))
    third = transition(after(after(row, first), second))
    pending = [repository.submit(each) for each in (first, second, third)]
    assert await asyncio.gather(*pending) == [COMMITTED, FENCED, FENCED]
    assert (await keeper.read(row)).execution.last_seq == 2


async def test_one_of_cancel_and_completion_wins(open_repository: OpenRepository, keeper: Keeper) -> None:
    canceller = await open_repository()

    async def race(row: Execution) -> None:
        asked, written = await asyncio.gather(
            outcome(canceller.request_cancel(SCOPE, row.id, "ann", "")), keeper.repository.submit(ending(row))
        )
        after_all = await keeper.repository.get_execution(SCOPE, row.id)
        if isinstance(asked, ExecutionFinishedError):
            assert written is COMMITTED
            assert (after_all.state, after_all.mail) == (ExecutionState.COMPLETED, 0)
        else:
            assert written is FENCED
            assert (after_all.state, after_all.mail) == (ExecutionState.RUNNING, 1)

    for _ in range(5):
        rows = [await keeper.put() for _ in range(20)]
        await asyncio.gather(*(race(row) for row in rows))


async def test_no_parked_execution_sleeps_through_a_wish(open_repository: OpenRepository, keeper: Keeper) -> None:
    """Whichever of parking and wish comes first, the execution is claimable afterwards."""
    canceller = await open_repository()
    for _ in range(20):
        row = await keeper.put()
        pending = keeper.repository.submit(parking(row, in_seconds(3600)))
        await asyncio.gather(canceller.request_cancel(SCOPE, row.id, "ann", ""), pending)
        assert ids(await keeper.repository.claim(keeper.incarnation, 10)) == [row.id]
        await keeper.repository.release(keeper.incarnation)
        [detail] = await keeper.repository.claim(keeper.incarnation, 10)
        await keeper.commit(ending(detail.execution, ExecutionState.CANCELLED, **seen(row)))


async def test_a_wish_is_kept_through_changes_of_owner(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put_free()
    await repository.request_cancel(SCOPE, row.id, "ann", "why not")
    [first] = await repository.claim(keeper.incarnation, 1)
    await repository.release(keeper.incarnation)
    [second] = await repository.claim(keeper.incarnation, 1)
    for each in (first, second):
        assert [(found.sender, found.body) for found in each.messages] == [("ann", {"reason": "why not"})]
