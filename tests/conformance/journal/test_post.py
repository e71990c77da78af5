"""What executions are sent beside a cancel: judged by where they stand and what they have yet to see."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from persistence.errors import (
    ExecutionFinishedError,
    ExecutionNotFoundError,
    ExecutionStateError,
    PersistenceError,
    RequestIdReusedError,
    SignalsFullError,
)
from persistence.model import EditedVariable, ExecutionState, MessageKind, Posted
from persistence.posting import Posting
from persistence.repository import Repository
from persistence.requests import Asked, Method, Request
from persistence.signals import MOST_WAITING, MOST_WAITING_BYTES, Signal
from persistence.transition import CommitResult
from service.engine.ids import uuid7
from tests.conformance.builders import (
    CANCELLED,
    FOREIGN_ORG,
    FOREIGN_OWNER,
    SCOPE,
    Keeper,
    ending,
    ids,
    in_seconds,
    now,
    outcome,
    transition,
)
from tests.conformance.conftest import OpenRepository

PAUSE, RESUME, SIGNAL, TERMINATE = (
    MessageKind.PAUSE,
    MessageKind.RESUME,
    MessageKind.SIGNAL,
    MessageKind.TERMINATE,
)


def posting(kind: MessageKind, **body: Any) -> Posting:
    return Posting(uuid7(), kind, "ann", body)


def paused(keyword: str) -> Request:
    return Request("r", Method.PAUSE, keyword.encode())


async def test_it_binds_and_is_delivered_in_order(repository: Repository, keeper: Keeper) -> None:
    row, before = await keeper.put(), now()
    sent = [posting(SIGNAL, name="go", payload={"n": 1}), posting(PAUSE), posting(RESUME)]
    messages = [(await repository.post(SCOPE, row.id, each)).message for each in sent]
    for message, each in zip(messages, sent, strict=True):
        assert message is not None
        assert (message.id, message.kind, message.sender, message.body) == (each.id, each.kind, "ann", each.body)
        assert before <= message.time <= now()
    detail = await repository.load(keeper.incarnation, row.id)
    assert detail is not None
    assert (detail.execution, list(detail.messages)) == (replace(row, mail=3), messages)
    assert await repository.submit(ending(row)) is CommitResult.FENCED


def signal(number: int, size: int) -> Signal:
    return Signal(UUID(int=number), "go", {"n": number}, "ann", now(), size)


async def test_signals_stand_with_the_execution_until_a_transition_says_otherwise(
    repository: Repository, keeper: Keeper
) -> None:
    """Also where several transitions are written at once."""
    row, kept = await keeper.put(), (signal(1, 7), signal(2, 7))
    first = transition(row, signals=kept)
    for each in (first, transition(replace(row, last_seq=first.last_seq))):
        assert await repository.submit(each) is CommitResult.COMMITTED
    detail = await repository.load(keeper.incarnation, row.id)
    assert detail is not None
    assert tuple(detail.signals) == kept
    after = replace(row, last_seq=detail.execution.last_seq)
    emptied = [transition(after, signals=kept[1:]), transition(replace(after, last_seq=after.last_seq + 1), signals=())]
    assert set(await asyncio.gather(*map(repository.submit, emptied))) == {CommitResult.COMMITTED}
    detail = await repository.load(keeper.incarnation, row.id)
    assert detail is not None
    assert not detail.signals


async def test_variables_that_somebody_has_set_stand_with_the_execution_until_it_says_otherwise(
    repository: Repository, keeper: Keeper
) -> None:
    row, edited = await keeper.put(), {"n": EditedVariable({"deep": [1, None]}, 2, 2), "m": EditedVariable(1.5, 2, 2)}
    first = transition(row, edited=edited)
    later = [transition(replace(row, last_seq=first.last_seq)), transition(replace(row, last_seq=first.last_seq + 1))]
    assert set(await asyncio.gather(*map(repository.submit, (first, *later)))) == {CommitResult.COMMITTED}
    taken = await repository.load(keeper.incarnation, row.id)
    assert taken is not None
    assert taken.edited == (await keeper.read(row)).edited == edited
    changed = {**edited, "n": EditedVariable(3, 5, 2)}
    assert await repository.submit(transition(taken.execution, edited=changed)) is CommitResult.COMMITTED
    assert (await keeper.read(row)).edited == changed


async def test_a_signal_is_refused_where_those_that_wait_leave_no_room(repository: Repository, keeper: Keeper) -> None:
    """Those that a transition has kept, and those that none has seen."""
    row = await keeper.put()
    request = Request("r", Method.SIGNAL, b"c")
    large = MOST_WAITING_BYTES // 2
    assert await repository.submit(transition(row, signals=[signal(1, large)])) is CommitResult.COMMITTED
    await repository.post(SCOPE, row.id, posting(SIGNAL, size=large))
    with pytest.raises(SignalsFullError):
        await repository.post(SCOPE, row.id, posting(SIGNAL, size=1), request)
    assert await repository.find_asked(SCOPE.org, request) is None
    await repository.post(SCOPE, row.id, posting(SIGNAL, size=0), request)
    assert await repository.find_asked(SCOPE.org, request) == Asked(row.id)
    for _ in range(MOST_WAITING - 3):
        await repository.post(SCOPE, row.id, posting(SIGNAL))
    with pytest.raises(SignalsFullError):
        await repository.post(SCOPE, row.id, posting(SIGNAL))
    await repository.post(SCOPE, row.id, posting(PAUSE))


async def test_what_gives_a_wait_up_has_seen_all_that_was_sent(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    posted = await repository.post(SCOPE, row.id, posting(SIGNAL))
    assert posted.message is not None
    given_up = transition(row, gives_up=True)
    assert await repository.submit(given_up) is CommitResult.FENCED
    assert (
        await repository.submit(replace(given_up, mail_seen=1, consumed=[posted.message.id])) is CommitResult.COMMITTED
    )


async def test_without_owner_it_is_claimable_at_once(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put_free(wake_time=in_seconds(3600))
    await repository.post(SCOPE, row.id, posting(SIGNAL))
    assert ids(await repository.claim(keeper.incarnation, 10)) == [row.id]


@pytest.mark.parametrize(
    ("unseen", "kind", "is_sent"),
    [
        ([], PAUSE, True),
        ([PAUSE], PAUSE, False),
        ([PAUSE, RESUME], PAUSE, True),
        ([], RESUME, None),
        ([PAUSE], RESUME, True),
        ([PAUSE, RESUME], RESUME, None),
        ([PAUSE], SIGNAL, True),
        ([TERMINATE], TERMINATE, False),
        ([TERMINATE], PAUSE, None),
        ([TERMINATE], SIGNAL, None),
    ],
)
async def test_it_is_judged_by_what_was_sent_before(
    repository: Repository, keeper: Keeper, unseen: list[MessageKind], kind: MessageKind, is_sent: bool | None
) -> None:
    row = await keeper.put()
    for each in unseen:
        assert (await repository.post(SCOPE, row.id, posting(each))).message is not None
    found = await outcome(repository.post(SCOPE, row.id, posting(kind)))
    if is_sent is None:
        assert isinstance(found, ExecutionStateError)
    else:
        assert isinstance(found, Posted)
        assert (found.message is not None) is is_sent
    assert (await keeper.read(row)).execution.mail == len(unseen) + bool(is_sent)


@pytest.mark.parametrize(
    ("state", "kind", "is_sent"),
    [
        (ExecutionState.PENDING, PAUSE, True),
        (ExecutionState.PAUSED, PAUSE, False),
        (ExecutionState.PAUSED, RESUME, True),
        (ExecutionState.CANCELLING, PAUSE, None),
        (ExecutionState.CANCELLING, SIGNAL, None),
        (ExecutionState.CANCELLING, TERMINATE, True),
    ],
)
async def test_it_is_judged_by_the_state(
    repository: Repository, keeper: Keeper, state: ExecutionState, kind: MessageKind, is_sent: bool | None
) -> None:
    row = await keeper.put()
    is_ending = state is ExecutionState.CANCELLING
    await keeper.commit(transition(row, state=state, ending=CANCELLED if is_ending else None))
    found = await outcome(repository.post(SCOPE, row.id, posting(kind)))
    assert isinstance(found, ExecutionStateError) if is_sent is None else (found.message is not None) is is_sent


async def test_what_is_refused_is_not_kept(repository: Repository, keeper: Keeper) -> None:
    row, request = await keeper.put(), paused("x")
    for scope, execution_id in [(FOREIGN_ORG, row.id), (FOREIGN_OWNER, row.id), (SCOPE, UUID(int=0))]:
        with pytest.raises(ExecutionNotFoundError):
            await repository.post(scope, execution_id, posting(PAUSE), request)
    await keeper.commit(ending(row))
    with pytest.raises(ExecutionFinishedError):
        await repository.post(SCOPE, row.id, posting(PAUSE), request)
    other = await keeper.put()
    assert (await repository.post(SCOPE, other.id, posting(PAUSE), request)).message is not None


async def test_a_repeated_request_sends_nothing(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    first = await repository.post(SCOPE, row.id, posting(PAUSE), paused("x"))
    assert await repository.post(SCOPE, row.id, posting(PAUSE), paused("x")) == Posted(first.execution, None)
    with pytest.raises(RequestIdReusedError):
        await repository.post(SCOPE, row.id, posting(PAUSE), paused("y"))


async def test_of_what_excludes_each_other_one_is_kept(open_repository: OpenRepository, keeper: Keeper) -> None:
    row = await keeper.put()
    await keeper.repository.post(SCOPE, row.id, posting(PAUSE))
    replicas = [keeper.repository, await open_repository()]
    found = await asyncio.gather(
        *(outcome(replicas[number % 2].post(SCOPE, row.id, posting(RESUME))) for number in range(8))
    )
    assert sum(isinstance(each, Posted) for each in found) == 1
    assert sum(isinstance(each, PersistenceError) for each in found) == 7
