"""The inbox: who gets which messages, until a transition has seen them; and what a process owns without driving it."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace

from persistence.errors import PersistenceError, RequestIdReusedError
from persistence.memory import MemoryRepository
from persistence.model import Execution, ExecutionState, Mail, Message, MessageKind
from persistence.repository import Repository
from persistence.transition import CommitResult, Letter
from service.engine.ids import uuid7
from tests.conformance.builders import (
    CANCELLED,
    FOREIGN_ORG,
    MOMENT,
    ORG,
    SCOPE,
    Keeper,
    ending,
    execution,
    ids,
    in_seconds,
    new,
    now,
    parking,
    seen,
    transition,
)


def told(body: object = "well", **changes: object) -> Message:
    message = Message(uuid7(), MessageKind.CHILD_ENDED, MOMENT, "child", {"state": body})
    return replace(message, **changes)


async def send(keeper: Keeper, to: Execution, *messages: Message) -> None:
    """Let another execution send something in a transition of its own."""
    sender = await keeper.put()
    await keeper.commit(transition(sender, letters=[Letter(to.id, message) for message in messages]))


async def delivered(repository: Repository, incarnation: UUID) -> dict[UUID, list[Message]]:
    return {mail.execution_id: list(mail.messages) for mail in await repository.deliver(incarnation)}


async def kept(repository: Repository) -> int:
    """How many messages there are in the tables, of whatever execution."""
    if isinstance(repository, MemoryRepository):
        return sum(map(len, repository._tables.messages.values()))
    from persistence.postgres import PostgresRepository  # the memory store works without it

    assert isinstance(repository, PostgresRepository)
    async with repository._database.session() as session:
        return int(await session.fetchval("SELECT count(*) FROM messages"))


async def test_what_is_owned_and_not_driven_is_found(repository: Repository, keeper: Keeper) -> None:
    rows = [await keeper.put() for _ in range(3)]
    await keeper.put(incarnation=uuid4())
    every = [row.id for row in rows]
    assert await repository.undriven(keeper.incarnation, []) == every
    assert await repository.undriven(keeper.incarnation, [every[0], every[2]]) == [every[1]]
    assert await repository.undriven(keeper.incarnation, every) == []


async def test_a_message_is_delivered_until_a_transition_has_seen_it(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    posted = await repository.request_cancel(SCOPE, row.id, "bob", "enough")
    for _ in range(2):
        assert await repository.deliver(keeper.incarnation) == [Mail(row.id, 1, (posted.message,))]  # type: ignore[arg-type]
    cancelling = transition(row, state=ExecutionState.CANCELLING, ending=CANCELLED, **seen(row))
    assert await repository.submit(cancelling) is CommitResult.COMMITTED
    assert await repository.deliver(keeper.incarnation) == []


async def test_what_the_owner_has_taken_is_left_out(repository: Repository, keeper: Keeper) -> None:
    row, other, first, second = await keeper.put(), await keeper.put(), told(), told()
    await send(keeper, row, first, second)
    await send(keeper, other, first)
    left = await repository.deliver(keeper.incarnation, {(row.id, first.id)})
    assert [(mail.execution_id, list(mail.messages)) for mail in left] == [(row.id, [second]), (other.id, [first])]


async def test_what_was_taken_and_given_up_is_woken_all_the_same(repository: Repository, keeper: Keeper) -> None:
    row, message = await keeper.put(), told()
    await send(keeper, row, message)
    await keeper.commit(parking(row, in_seconds(3600)))
    await repository.deliver(keeper.incarnation, {(row.id, message.id)})
    assert ids(await repository.claim(keeper.incarnation, 10)) == [row.id]


async def test_only_the_owner_gets_it_under_its_epoch(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    await repository.request_cancel(SCOPE, row.id, "bob", "enough")
    assert await repository.deliver(uuid4()) == []
    await repository.release(keeper.incarnation)
    assert await repository.deliver(keeper.incarnation) == []
    await repository.claim(keeper.incarnation, 1)
    assert [mail.epoch for mail in await repository.deliver(keeper.incarnation)] == [2]


async def test_a_fenced_transition_consumes_and_sends_nothing(repository: Repository, keeper: Keeper) -> None:
    row, other = await keeper.put(), await keeper.put()
    posted = await repository.request_cancel(SCOPE, row.id, "bob", "enough")
    late = transition(replace(row, epoch=2), letters=[Letter(other.id, told())], **seen(row))
    assert await repository.submit(late) is CommitResult.FENCED
    assert await delivered(repository, keeper.incarnation) == {row.id: [posted.message]}


async def test_a_transition_sends_messages_to_others(repository: Repository, keeper: Keeper) -> None:
    first, second = await keeper.put(), await keeper.put()
    later, sooner = told(time=in_seconds(1)), told(time=in_seconds(-1))
    await send(keeper, first, later, sooner)
    await send(keeper, second, told())
    mail = await delivered(repository, keeper.incarnation)
    assert mail[first.id] == [sooner, later]  # in the order in which they were sent
    assert list(mail) == [first.id, second.id]
    assert (await keeper.read(first)).execution == first  # whose row is as it was
    await keeper.commit(transition(first, consumed=[sooner.id]))
    assert (await delivered(repository, keeper.incarnation))[first.id] == [later]


async def test_a_message_that_is_sent_twice_arrives_once(repository: Repository, keeper: Keeper) -> None:
    row, message = await keeper.put(), told()
    await send(keeper, row, message, message)
    await send(keeper, row, replace(message, body={"state": "other"}))
    assert await delivered(repository, keeper.incarnation) == {row.id: [message]}


async def test_messages_in_flight_together_are_all_consumed(repository: Repository, keeper: Keeper) -> None:
    row, messages = await keeper.put(), [told() for _ in range(3)]
    await send(keeper, row, *messages)
    pending = []
    for message in messages:
        pending.append(repository.submit(transition(row, consumed=[message.id])))
        row = replace(row, last_seq=row.last_seq + 1)
    assert set(await asyncio.gather(*pending)) == {CommitResult.COMMITTED}
    assert await repository.deliver(keeper.incarnation) == []


async def test_what_does_not_bind_may_be_passed_by_an_end(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    await send(keeper, row, told())
    await keeper.commit(ending(row))
    assert await kept(repository) == 1
    await repository.reap(100)
    assert await kept(repository) == 0


async def test_who_takes_an_execution_gets_what_nobody_has_seen(repository: Repository, keeper: Keeper) -> None:
    one, other, message = await keeper.put_free(), await keeper.put_free(), told()
    await send(keeper, one, message)
    await send(keeper, other, message)
    claimed = await repository.claim_one(keeper.incarnation, ORG, one.id)
    [taken] = await repository.claim(keeper.incarnation, 10)
    loaded = await repository.load(keeper.incarnation, other.id)
    assert claimed is not None and loaded is not None
    assert [list(each.messages) for each in (claimed, taken, loaded)] == [[message]] * 3


async def test_a_parked_execution_with_a_message_is_woken(repository: Repository, keeper: Keeper) -> None:
    row, other = await keeper.put_free(wake_time=in_seconds(3600)), await keeper.put_free(wake_time=in_seconds(3600))
    await send(keeper, row, told())
    assert await repository.claim(keeper.incarnation, 10) == []
    assert list(await delivered(repository, keeper.incarnation)) == [row.id]
    assert await repository.deliver(keeper.incarnation) == []
    woken = (await keeper.read(row)).execution
    assert woken.wake_time is not None and woken.wake_time <= now()
    assert (await keeper.read(other)).execution == other
    assert ids(await repository.claim(keeper.incarnation, 10)) == [row.id]


async def test_one_that_is_parked_beside_a_message_is_woken(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    await send(keeper, row, told())
    await keeper.commit(parking(row, in_seconds(3600)))
    await repository.deliver(keeper.incarnation)
    assert ids(await repository.claim(keeper.incarnation, 10)) == [row.id]


@pytest.mark.parametrize(
    "letters",
    [
        {"kind": MessageKind.CANCEL},
        {"id": UUID(int=1)},
        {"sender": "x" * 257},
        {"body": {"a": "\0"}},
    ],
    ids=["what binds", "the id of what binds", "too long", "NUL"],
)
async def test_what_cannot_be_sent_is_refused(
    repository: Repository, keeper: Keeper, letters: dict[str, object]
) -> None:
    row = await keeper.put()
    to = UUID(int=1) if "id" in letters else uuid7()
    with pytest.raises(PersistenceError):
        await repository.submit(transition(row, letters=[Letter(to, told(**letters))]))
    assert (await keeper.read(row)).execution == row


async def test_what_is_sent_stands_with_an_event(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    with pytest.raises(PersistenceError):
        await repository.submit(transition(row, 0, letters=[Letter(uuid7(), told())]))


async def test_messages_go_with_their_execution(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    await repository.request_cancel(SCOPE, row.id, "ann", "")
    await keeper.commit(ending(row, ExecutionState.CANCELLED))
    assert await kept(repository) == 1
    await repository.delete_workflow(SCOPE, keeper.workflow.name, "", True, "ann")
    for _ in range(2):  # the execution, and what it leaves
        await repository.reap(100)
    assert await kept(repository) == 0


async def test_a_request_id_finds_what_it_started(repository: Repository, keeper: Keeper) -> None:
    asked = new(execution(keeper.workflow, request_id="r-1"))
    made = await repository.create(asked)
    found = await repository.find_request(ORG, "r-1", [asked.content_hash])
    assert found is not None
    assert found.id == made.execution.id
    with pytest.raises(RequestIdReusedError):
        await repository.find_request(ORG, "r-1", [b"another"])
    assert await repository.find_request(ORG, "r-2", [asked.content_hash]) is None
    assert await repository.find_request(FOREIGN_ORG.org, "r-1", [asked.content_hash]) is None
