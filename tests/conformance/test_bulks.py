"""Operations in bulk: each step is one commit, which one process makes, and nothing is done twice or left out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

import pytest

from persistence.bulks import (
    MOST_RUNNING,
    Advanced,
    Bulk,
    BulkAction,
    BulkOutcome,
    BulkResult,
    BulkState,
    NewBulk,
    message_id,
)
from persistence.errors import BulkNotFoundError, RequestIdReusedError, TooManyBulksError
from persistence.listing import ExecutionFilter, ExecutionOrder
from persistence.memory import MemoryRepository
from persistence.model import Ending, Execution, ExecutionState, MessageKind, Scope
from persistence.posting import Posting
from persistence.repository import Repository
from persistence.requests import Method, Request
from service.engine.ids import uuid7
from tests.conformance.builders import CANCELLED, FOREIGN_ORG, FOREIGN_OWNER, MOMENT, ORG, OWNER, SCOPE, Keeper, ending

if TYPE_CHECKING:
    from persistence.postgres import PostgresRepository

OPEN = (ExecutionState.PENDING, ExecutionState.RUNNING, ExecutionState.PAUSED)
DONE, REFUSED, NOT_FOUND = BulkOutcome
RUNNING, PAUSED = ExecutionState.RUNNING, ExecutionState.PAUSED


def bulk(action: BulkAction = BulkAction.CANCEL, **changes: Any) -> NewBulk:
    """What cancels all that is open, unless changed."""
    given: dict[str, Any] = {
        "id": uuid7(),
        "scope": SCOPE,
        "created_by": OWNER,
        "action": action,
        "options": {},
        "reason": "enough",
        "filter": ExecutionFilter(states=OPEN),
        "asked": {"states": ["RUNNING"]},
        "limit": 1_000,
        "rate": 0,
        "matched": 3,
        "matched_more": False,
    }
    return NewBulk(**{**given, **changes})


async def taken(repository: Repository, incarnation: UUID, new: NewBulk) -> Bulk:
    """Start an operation and take it, as the only one that is free."""
    await repository.start_bulk(new)
    [mine] = await repository.take_bulks(incarnation, [], 5)
    return mine


async def advance(repository: Repository, mine: Bulk, most: int = 100) -> Advanced:
    """One step of an operation."""
    found = await repository.find_for_bulk(mine, most)
    after = await repository.advance_bulk(mine, found, is_last=len(found) < most)
    assert after is not None
    return after


async def results(repository: Repository, of: NewBulk, *outcomes: BulkOutcome) -> list[BulkResult]:
    return [each for _, each in await repository.list_bulk_results(SCOPE, of.id, outcomes, 0, 1_000)]


async def kinds(repository: Repository, incarnation: UUID) -> dict[UUID, list[str]]:
    """What the executions of a process were sent."""
    return {each.execution_id: [m.kind for m in each.messages] for each in await repository.deliver(incarnation)}


def done(*rows: Execution) -> list[BulkResult]:
    return [BulkResult(row.id, DONE) for row in rows]


async def test_each_execution_that_is_there_gets_its_message_once_from_the_newest_on(
    repository: Repository, keeper: Keeper, incarnation: UUID
) -> None:
    first, parked = await keeper.put(), await keeper.put_free(wake_time=MOMENT)
    ended, third = await keeper.put_ended(), await keeper.put()
    mine = await taken(repository, incarnation, bulk(options={"hard": True}))
    later = await keeper.put()
    assert await repository.find_for_bulk(mine, 2) == [third.id, parked.id]
    step = await advance(repository, mine, 2)
    assert [mail.execution_id for mail in step.mail] and step.unowned == 1
    mail_of_third = next(mail for mail in step.mail if mail.execution_id == third.id)
    [message] = mail_of_third.messages
    assert mail_of_third.sent == 1
    assert (message.id, message.sender) == (third.id, OWNER)
    assert message.body == {"reason": "enough", "hard": True, "bulk_id": str(mine.id)}
    assert step.bulk.state is BulkState.RUNNING and step.bulk.counts == {DONE: 2, REFUSED: 0, NOT_FOUND: 0}
    rest = await advance(repository, step.bulk, 2)
    assert rest.bulk.state is BulkState.COMPLETED and rest.bulk.end_time is not None
    assert rest.bulk == await repository.get_bulk(SCOPE, mine.id)
    assert await results(repository, mine) == done(third, parked, first)
    assert await kinds(repository, incarnation) == {row.id: ["CANCEL"] for row in (first, third)}
    for row, mail in ((first, 1), (parked, 1), (third, 1), (ended, 0), (later, 0)):
        now = await repository.get_execution(SCOPE, row.id)
        assert now.mail == mail
        assert now.wake_time != MOMENT  # what sleeps is awake


@pytest.mark.parametrize(
    ("action", "state", "before", "outcome", "sent"),
    [
        (BulkAction.CANCEL, RUNNING, (), DONE, ["CANCEL"]),
        (BulkAction.CANCEL, RUNNING, ("PAUSE",), DONE, ["PAUSE", "CANCEL"]),
        (BulkAction.CANCEL, ExecutionState.CANCELLING, (), DONE, []),
        (BulkAction.CANCEL, ExecutionState.CANCELLED, (), DONE, []),
        (BulkAction.CANCEL, ExecutionState.COMPLETED, (), REFUSED, []),
        (BulkAction.PAUSE, RUNNING, (), DONE, ["PAUSE"]),
        (BulkAction.PAUSE, RUNNING, ("PAUSE",), DONE, ["PAUSE"]),
        (BulkAction.PAUSE, ExecutionState.FAILED, (), REFUSED, []),
        (BulkAction.RESUME, RUNNING, (), REFUSED, []),
        (BulkAction.RESUME, RUNNING, ("PAUSE",), DONE, ["PAUSE", "RESUME"]),
        (BulkAction.TERMINATE, ExecutionState.CANCELLING, (), DONE, ["TERMINATE"]),
        (BulkAction.TERMINATE, RUNNING, ("TERMINATE",), DONE, ["TERMINATE"]),
    ],
)
async def test_it_is_judged_as_a_single_call_is(
    repository: Repository,
    keeper: Keeper,
    incarnation: UUID,
    action: BulkAction,
    state: ExecutionState,
    before: Sequence[str],
    outcome: BulkOutcome,
    sent: list[str],
) -> None:
    ending_of: Ending | None = CANCELLED if state is ExecutionState.CANCELLING else None
    row = await keeper.put(state=state, ending=ending_of)
    for kind in before:
        await repository.post(SCOPE, row.id, Posting(uuid4(), MessageKind(kind), "bob", {}))
    mine = await taken(repository, incarnation, bulk(action, filter=ExecutionFilter()))
    await advance(repository, mine)
    [result] = await results(repository, mine)
    assert result.outcome is outcome and bool(result.reason) is (outcome is REFUSED)
    assert (await kinds(repository, incarnation)).get(row.id, []) == sent


async def test_what_ends_or_goes_between_being_found_and_its_turn_is_told(
    repository: Repository, keeper: Keeper, incarnation: UUID
) -> None:
    row, mine = await keeper.put(), await taken(repository, incarnation, bulk())
    found = [*await repository.find_for_bulk(mine, 5), UUID(int=7)]
    await keeper.commit(ending(row))
    after = await repository.advance_bulk(mine, found, is_last=True)
    assert after is not None and not after.mail and after.bulk.counts == {DONE: 0, REFUSED: 1, NOT_FOUND: 1}
    refused = BulkResult(row.id, REFUSED, f"execution {row.id} has ended: COMPLETED")
    assert await results(repository, mine) == [refused, BulkResult(UUID(int=7), NOT_FOUND)]
    assert await results(repository, mine, REFUSED) == [refused]
    assert await repository.list_bulk_results(SCOPE, mine.id, [], 1, 9) == [(2, BulkResult(UUID(int=7), NOT_FOUND))]


async def test_a_step_is_made_once_by_the_process_that_has_it(
    repository: Repository, keeper: Keeper, incarnation: UUID
) -> None:
    row, mine = await keeper.put(), await taken(repository, incarnation, bulk())
    assert await repository.take_bulks(incarnation, [mine.id], 5) == []
    assert await repository.take_bulks(uuid4(), [], 5) == []  # has no lease
    other = uuid4()
    await repository.register(other, "other", 300)
    assert await repository.take_bulks(other, [], 5) == []  # the lease of the first one runs
    await repository.retire(incarnation)
    assert await repository.take_bulks(other, [mine.id], 5) == []
    [theirs] = await repository.take_bulks(other, [], 5)
    assert (theirs.incarnation, theirs.epoch) == (other, mine.epoch + 1)
    found = await repository.find_for_bulk(theirs, 5)
    assert await repository.advance_bulk(mine, found, is_last=True) is None
    made = await asyncio.gather(*(repository.advance_bulk(theirs, found, is_last=False) for _ in range(5)))
    assert sum(each is not None for each in made) == 1
    [after] = filter(None, made)
    assert await results(repository, mine) == done(row) and after.bulk.cursor == row.id
    assert (await repository.get_execution(SCOPE, row.id)).mail == 1
    [again] = await repository.take_bulks(other, [], 5)  # forgotten by its process, as after a lost answer
    assert (again.epoch, again.cursor, again.counts) == (theirs.epoch + 1, row.id, after.bulk.counts)


async def test_it_ends_at_its_limit(repository: Repository, keeper: Keeper, incarnation: UUID) -> None:
    _, second = await keeper.put(), await keeper.put()
    mine = await taken(repository, incarnation, bulk(limit=1))
    assert mine.left == 1
    assert (await advance(repository, mine, mine.left)).bulk.state is BulkState.COMPLETED
    assert await results(repository, mine) == done(second)


async def test_once_it_is_stopped_nothing_follows(repository: Repository, keeper: Keeper, incarnation: UUID) -> None:
    row, mine = await keeper.put(), await taken(repository, incarnation, bulk())
    stopped = await repository.stop_bulk(SCOPE, mine.id, "bob")
    assert (stopped.state, stopped.stopped_by) == (BulkState.STOPPED, "bob") and stopped.end_time is not None
    assert await repository.advance_bulk(mine, [row.id], is_last=True) is None
    assert await repository.take_bulks(incarnation, [], 5) == []
    assert await repository.stop_bulk(SCOPE, mine.id, "ann") == stopped
    late = await repository.record_bulk(mine, done(row), is_last=True)  # of what was under way
    assert late is not None and late.state is BulkState.STOPPED and late.counts[DONE] == 1
    assert await repository.record_bulk(mine, done(row), is_last=True) is None


async def test_what_was_done_outside_is_recorded(repository: Repository, keeper: Keeper, incarnation: UUID) -> None:
    row = await keeper.put_ended(ExecutionState.FAILED)
    mine = await taken(
        repository, incarnation, bulk(BulkAction.RETRY, filter=ExecutionFilter(states=[ExecutionState.FAILED]))
    )
    assert await repository.find_for_bulk(mine, 5) == [row.id]
    begun = await repository.reserve_bulk(mine, [row.id])
    assert begun is not None and begun.under_way == (row.id,)
    [again] = await repository.take_bulks(incarnation, [], 5)  # as after a crash: it is known what was begun
    assert again.under_way == (row.id,)
    assert await repository.record_bulk(begun, done(row), is_last=True) is None
    assert await repository.reserve_bulk(again, [uuid4()]) is None  # first comes what is under way
    after = await repository.record_bulk(again, [BulkResult(row.id, REFUSED, "ä")], is_last=True)
    assert after is not None and after.state is BulkState.COMPLETED and after.under_way == ()
    assert await repository.reserve_bulk(after, [row.id]) is None
    assert await results(repository, mine) == [BulkResult(row.id, REFUSED, "ä")]


async def test_what_was_under_way_when_it_was_stopped_is_recorded_by_whoever_follows(
    repository: Repository, keeper: Keeper, incarnation: UUID
) -> None:
    row = await keeper.put_ended(ExecutionState.FAILED)
    mine = await taken(repository, incarnation, bulk(BulkAction.RETRY, filter=ExecutionFilter()))
    assert await repository.reserve_bulk(mine, [row.id]) is not None
    await repository.stop_bulk(SCOPE, mine.id, "bob")
    assert await repository.take_bulks(incarnation, [mine.id], 5) == []
    [again] = await repository.take_bulks(incarnation, [], 5)
    assert (again.state, again.under_way, again.epoch) == (BulkState.STOPPED, (row.id,), mine.epoch + 1)
    after = await repository.record_bulk(again, done(row), is_last=False)
    assert after is not None and (after.state, after.stopped_by, after.counts[DONE]) == (BulkState.STOPPED, "bob", 1)
    assert await repository.take_bulks(incarnation, [], 5) == []


async def test_what_has_left_the_states_of_the_filter_is_left_alone(
    repository: Repository, keeper: Keeper, incarnation: UUID
) -> None:
    row, cancelled = await keeper.put(state=RUNNING), await keeper.put_ended(ExecutionState.CANCELLED)
    mine = await taken(repository, incarnation, bulk(filter=ExecutionFilter(states=[PAUSED])))
    after = await repository.advance_bulk(mine, [cancelled.id, row.id], is_last=True)
    assert after is not None and not after.mail
    [stood_so, result] = await results(repository, mine)
    assert [stood_so] == done(cancelled)  # as was asked for, and nothing is sent
    assert result.outcome is REFUSED and result.reason.endswith("it is RUNNING")
    assert (await repository.get_execution(SCOPE, row.id)).mail == 0


async def test_a_request_that_is_forgotten_still_finds_its_operation(repository: Repository) -> None:
    request = Request("r", Method.START_BULK, b"1")
    first = await repository.start_bulk(bulk(options={"timeout": 1.5}), request)
    if isinstance(repository, MemoryRepository):
        repository._tables.requests.clear()
    else:
        async with cast("PostgresRepository", repository)._database.session() as session:
            await session.execute("DELETE FROM requests")
    with pytest.raises(RequestIdReusedError):
        await repository.start_bulk(bulk(options={"timeout": 2.5}), request)
    assert await repository.start_bulk(bulk(options={"timeout": 1.5}), request) == first
    assert await repository.start_bulk(bulk(), request) == first  # known again, by its hash
    assert await repository.list_bulks(SCOPE, [], None, 5) == [first]


async def test_one_that_cannot_be_read_keeps_no_other_from_being_taken(
    repository: Repository, incarnation: UUID
) -> None:
    odd, sound = await repository.start_bulk(bulk()), await repository.start_bulk(bulk())
    if isinstance(repository, MemoryRepository):
        return  # it holds nothing that could be damaged
    async with cast("PostgresRepository", repository)._database.session() as session:
        await session.execute("""UPDATE bulks SET filter = '{"states": 1}' WHERE id = $1""", odd.id)
    assert [each.id for each in await repository.take_bulks(incarnation, [], 5)] == [sound.id]


async def test_a_scope_sees_what_it_may(repository: Repository, keeper: Keeper, incarnation: UUID) -> None:
    own, _ = await keeper.put(owner="bob"), await keeper.put()
    mine = await taken(repository, incarnation, bulk(scope=FOREIGN_OWNER, created_by="bob"))
    assert await repository.find_for_bulk(mine, 5) == [own.id]
    for scope, is_seen in ((SCOPE, True), (FOREIGN_OWNER, True), (Scope(ORG, "carl"), False), (FOREIGN_ORG, False)):
        found = await repository.list_bulks(scope, [], None, 5)
        assert found == ([mine] if is_seen else [])
        if not is_seen:
            for call in (
                repository.get_bulk(scope, mine.id),
                repository.stop_bulk(scope, mine.id, "x"),
                repository.list_bulk_results(scope, mine.id, [], 0, 5),
            ):
                with pytest.raises(BulkNotFoundError):
                    await call
    # Whatever is found by mistake, another's is left alone.
    [other] = [
        each.id
        for each in await repository.list_executions(
            Scope(ORG, OWNER), ExecutionFilter(), ExecutionOrder.NEWEST, None, 5
        )
    ]
    after = await repository.advance_bulk(mine, [other], is_last=True)
    assert after is not None and after.bulk.counts[NOT_FOUND] == 1


async def test_a_request_starts_one_and_an_org_has_so_many(repository: Repository) -> None:
    request = Request("r", Method.START_BULK, b"1")
    where = ExecutionFilter("research", OPEN, "ann", ("x",), {"a": "ä"}, "c", MOMENT, None, None, MOMENT)
    first = await repository.start_bulk(bulk(filter=where, rate=7, matched_more=True, asked={"tags": ["x"]}), request)
    assert first.filter == where and first.asked == {"tags": ["x"]} and first.rate == 7 and first.matched_more
    assert await repository.start_bulk(bulk(), request) == first
    with pytest.raises(RequestIdReusedError):
        await repository.start_bulk(bulk(), Request("r", Method.START_BULK, b"2"))
    begun = await asyncio.gather(
        *(repository.start_bulk(bulk()) for _ in range(MOST_RUNNING + 3)), return_exceptions=True
    )
    assert sum(isinstance(each, TooManyBulksError) for each in begun) == 4
    await repository.start_bulk(bulk(scope=FOREIGN_ORG))
    await repository.stop_bulk(SCOPE, first.id, "ann")
    last = await repository.start_bulk(bulk())
    found = await repository.list_bulks(SCOPE, [], None, 100)
    assert len(found) == MOST_RUNNING + 1 and found[0] == last
    assert await repository.list_bulks(SCOPE, [BulkState.STOPPED], None, 5) == [
        await repository.get_bulk(SCOPE, first.id)
    ]
    assert await repository.list_bulks(SCOPE, [], found[-2].id, 5) == found[-1:]
    assert await repository.forget_bulks(10) == 0


def test_a_message_is_the_same_whoever_makes_it() -> None:
    cancel, pause, execution = bulk(), bulk(BulkAction.PAUSE), uuid4()
    assert message_id(cancel, execution) == execution
    assert message_id(pause, execution) == message_id(pause, execution) != message_id(bulk(), execution)
