"""What lets an execution go on after its end: one commit with one winner, after which anybody may claim it."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from persistence.errors import (
    ExecutionNotFoundError,
    ExecutionStateError,
    RequestIdReusedError,
    WorkflowNotFoundError,
)
from persistence.model import Edit, Execution, ExecutionState, MessageKind, StepCounts, StepState
from persistence.posting import Posting
from persistence.repository import Repository
from persistence.requests import Asked, Method, Request
from persistence.signals import Signal
from persistence.transition import CommitResult, Reopened, Reopening
from tests.conformance.builders import (
    FOREIGN_ORG,
    FOREIGN_OWNER,
    MOMENT,
    ORG,
    SCOPE,
    Keeper,
    ending,
    events,
    ids,
    now,
    outcome,
    step,
    transition,
)

FAILED = ExecutionState.FAILED
PAIRS, AT_ONCE = 400, 20


def reopening(row: Execution, **changes: Any) -> Reopening:
    """What reopens an execution that stands so."""
    [event] = events(row.last_seq)
    before = Reopening(row.id, row.last_seq, 2, StepCounts(total=3, completed=1), MOMENT, MOMENT, 700, event)
    return replace(before, **changes)


def asked(keyword: str) -> Request:
    return Request("r", Method.RETRY, keyword.encode())


async def failed(repository: Repository, keeper: Keeper) -> Execution:
    """An execution that has failed, with a failed step and a result of its reasons."""
    row = await keeper.put()
    ended = ending(row, FAILED, failure={"code": "X", "message": "x"}, steps=[step(state=StepState.FAILED)])
    assert await repository.submit(ended) is CommitResult.COMMITTED
    return await repository.get_execution(SCOPE, row.id)


@pytest.mark.parametrize("state", [FAILED, ExecutionState.TIMED_OUT, ExecutionState.CANCELLED])
async def test_it_is_open_again_nobodys_and_claimable_at_once(
    repository: Repository, keeper: Keeper, state: ExecutionState
) -> None:
    row, begin = await keeper.put_ended(state), now()
    edit = Edit("fetch", 2, {"n": 1e300, "text": "ä", "nothing": None})
    answer = await repository.reopen(SCOPE, reopening(row, edit=edit))
    after = answer.execution
    assert answer.is_new and after.wake_time is not None and begin <= after.wake_time <= now()
    expected = replace(
        row,
        state=ExecutionState.RUNNING,
        run=2,
        last_seq=row.last_seq + 1,
        reopened_seq=row.last_seq + 1,
        counts=StepCounts(total=3, completed=1),
        start_time=MOMENT,
        end_time=None,
        deadline_time=MOMENT,
        bytes=700,
        epoch=row.epoch + 1,
        wake_time=after.wake_time,
    )
    assert after == expected == await repository.get_execution(SCOPE, row.id)
    detail = await repository.get_detail(SCOPE, row.id)
    assert (detail.edit, detail.result) == (edit, None)
    [event] = await repository.read_events(SCOPE, row.id, row.last_seq, 10)
    assert event == reopening(row).event
    [taken] = await repository.claim(keeper.incarnation, 10)
    assert (taken.execution.id, taken.edit, taken.execution.epoch) == (row.id, edit, row.epoch + 2)
    assert taken.execution.reopened_seq == row.last_seq + 1


async def test_it_goes_on_to_another_end_and_is_reopened_again_without_the_edit(
    repository: Repository, keeper: Keeper
) -> None:
    row = await failed(repository, keeper)
    await repository.reopen(SCOPE, reopening(row, edit=Edit("fetch", 2, None, is_skipped=True)))
    [taken] = await repository.claim(keeper.incarnation, 10)
    again = step(iteration=2)
    assert await repository.submit(transition(taken.execution, steps=[again])) is CommitResult.COMMITTED
    detail = await repository.load(keeper.incarnation, row.id)
    assert detail is not None and [each.iteration for each in detail.steps] == [1, 2]
    assert await repository.submit(ending(detail.execution, FAILED)) is CommitResult.COMMITTED
    ended = await repository.get_execution(SCOPE, row.id)
    assert (await repository.reopen(SCOPE, reopening(ended, run=3))).execution.run == 3
    assert (await repository.get_detail(SCOPE, row.id)).edit is None


async def test_of_two_at_once_one_wins_four_hundred_times(repository: Repository, keeper: Keeper) -> None:
    for _ in range(PAIRS // AT_ONCE):
        rows = await asyncio.gather(*(keeper.put_ended(FAILED) for _ in range(AT_ONCE)))
        calls = [outcome(repository.reopen(SCOPE, reopening(row))) for row in rows for _ in range(2)]
        answers = await asyncio.gather(*calls)
        for row, pair in zip(rows, zip(answers[::2], answers[1::2], strict=True), strict=True):
            assert sorted(isinstance(each, Reopened) for each in pair) == [False, True]
            [lost] = [each for each in pair if not isinstance(each, Reopened)]
            assert isinstance(lost, ExecutionStateError) and lost.state == "RUNNING"
            assert (await repository.get_execution(SCOPE, row.id)).last_seq == row.last_seq + 1


@pytest.mark.parametrize("state", [ExecutionState.COMPLETED, ExecutionState.RUNNING])
async def test_what_has_completed_or_runs_is_refused(
    repository: Repository, keeper: Keeper, state: ExecutionState
) -> None:
    row = await keeper.put(state=state)
    with pytest.raises(ExecutionStateError):
        await repository.reopen(SCOPE, reopening(row), asked("a"))
    assert await repository.get_execution(SCOPE, row.id) == row
    assert await repository.find_asked(ORG, asked("a")) is None


async def test_what_has_ended_otherwise_meanwhile_is_refused(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put_ended(FAILED)
    with pytest.raises(ExecutionStateError):
        await repository.reopen(SCOPE, reopening(replace(row, last_seq=row.last_seq - 1)))


@pytest.mark.parametrize("scope", [FOREIGN_ORG, FOREIGN_OWNER])
async def test_nobody_else_finds_it(repository: Repository, keeper: Keeper, scope: Any) -> None:
    row = await keeper.put_ended(FAILED)
    with pytest.raises(ExecutionNotFoundError):
        await repository.reopen(scope, reopening(row))


async def test_a_request_reopens_once(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put_ended(FAILED)
    assert (await repository.reopen(SCOPE, reopening(row), asked("a"))).is_new
    assert await repository.find_asked(ORG, asked("a")) == Asked(row.id)
    again = await repository.reopen(SCOPE, reopening(row), asked("a"))
    assert (again.is_new, again.execution.run) == (False, 2)
    with pytest.raises(RequestIdReusedError):
        await repository.reopen(SCOPE, reopening(row), asked("b"))
    with pytest.raises(RequestIdReusedError):
        await repository.find_asked(ORG, asked("b"))


async def test_what_it_was_sent_before_does_not_reach_the_next_run(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    await repository.request_cancel(SCOPE, row.id, "bob", "enough")
    assert await repository.submit(ending(row, ExecutionState.CANCELLED)) is CommitResult.COMMITTED
    await repository.reopen(SCOPE, reopening(await repository.get_execution(SCOPE, row.id)))
    [taken] = await repository.claim(keeper.incarnation, 10)
    assert (ids([taken]), taken.messages) == ([row.id], ())


async def test_that_of_a_deleted_workflow_stays_ended(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put_ended(FAILED)
    await repository.delete_workflow(SCOPE, str(row.workflow_id), "", False, "ann")
    with pytest.raises(WorkflowNotFoundError):
        await repository.reopen(SCOPE, reopening(row))


async def test_signals_that_its_end_has_passed_are_there_for_the_next_run_and_nothing_else(
    repository: Repository, keeper: Keeper
) -> None:
    """Those that were kept, and those that nobody had seen when it ended as CANCELLED, also after a look for them."""
    row = await keeper.put()
    kept = Signal(UUID(int=1), "go", {"n": 1}, "ann", MOMENT, 7)
    row = await keeper.commit(transition(row, signals=(kept,)))
    late = Posting(UUID(int=2), MessageKind.SIGNAL, "ann", {"name": "go", "payload": {"n": 2}, "size": 7})
    await repository.post(SCOPE, row.id, late)
    await repository.post(SCOPE, row.id, Posting(UUID(int=3), MessageKind.PAUSE, "ann", {"reason": ""}))
    ended = await keeper.commit(ending(row, ExecutionState.CANCELLED))
    await repository.reap(100)
    answer = await repository.reopen(SCOPE, reopening(ended))
    taken = await repository.claim_one(keeper.incarnation, ORG, row.id)
    assert taken is not None
    assert (list(taken.signals), [message.id for message in taken.messages]) == ([kept], [late.id])
    seen = transition(taken.execution, consumed=[late.id], mail_seen=2)
    assert await repository.submit(seen) is CommitResult.COMMITTED
    assert answer.execution.mail == 2
    assert (
        await repository.submit(ending(await repository.get_execution(SCOPE, row.id), mail_seen=2))
        is CommitResult.COMMITTED
    )


async def test_signals_to_what_has_completed_are_left_to_nobody(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    await repository.post(SCOPE, row.id, Posting(UUID(int=2), MessageKind.SIGNAL, "ann", {"name": "go", "payload": {}}))
    assert await repository.submit(ending(row, mail_seen=1)) is CommitResult.COMMITTED
    await repository.reap(100)
    assert await repository.deliver(keeper.incarnation) == []
