"""Leases: who stops renewing loses what it owns, and can write nothing any more."""

from __future__ import annotations

import asyncio
from functools import partial
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace

from persistence.errors import ExecutionNotFoundError
from persistence.model import SUSPECT_DEATHS, Execution, ExecutionDetail, Scope
from persistence.repository import Repository
from persistence.transition import CommitResult
from tests.conformance.builders import SCOPE, Keeper, chain, ending, ids, in_seconds, step, transition, until

TTL = 0.2
COMMITTED, FENCED = CommitResult.COMMITTED, CommitResult.FENCED


@pytest.fixture
async def other(repository: Repository) -> UUID:
    """A second process, whose lease outlives the test."""
    other = uuid4()
    await repository.register(other, "other", 300)
    return other


@pytest.fixture
async def dying(repository: Repository) -> UUID:
    """A process that will not renew its lease."""
    dying = uuid4()
    await repository.register(dying, "dying", TTL)
    return dying


async def test_a_live_owner_keeps_what_it_owns(repository: Repository, keeper: Keeper, other: UUID) -> None:
    row = await keeper.put()
    assert not await repository.claim(other, 10)
    assert await repository.claim_one(other, row.org, row.id) is None
    assert await repository.renew(keeper.incarnation, 300)


async def test_what_a_dead_process_owned_is_claimed(
    repository: Repository, keeper: Keeper, other: UUID, dying: UUID
) -> None:
    rows = [await keeper.put(incarnation=dying, epoch=4) for _ in range(3)]
    alive = await keeper.put()
    taken: list[ExecutionDetail] = []

    async def all_taken() -> bool:
        taken.extend(await repository.claim(other, 2))
        return len(taken) == 3

    await until(all_taken)
    assert set(ids(taken)) == set(ids(rows))
    assert {(each.execution.incarnation, each.execution.epoch) for each in taken} == {(other, 5)}
    assert (await keeper.read(alive)).execution == alive


async def test_a_renewed_lease_lasts(repository: Repository, keeper: Keeper, other: UUID) -> None:
    """Renewed well past its first end, the lease protects; unrenewed it ends."""
    incarnation, lasts = uuid4(), 2.0
    await repository.register(incarnation, "renewing", lasts)
    assert await repository.renew(incarnation, 300)
    row = await keeper.put(incarnation=incarnation)
    first_end = in_seconds(lasts)

    async def is_past_the_first_end() -> bool:
        assert not await repository.claim(other, 10)
        return in_seconds(0) > first_end

    await until(is_past_the_first_end)
    assert await repository.renew(incarnation, TTL)
    [detail] = await until(lambda: repository.claim(other, 10))
    assert detail.execution.id == row.id


async def test_a_lease_that_has_ended_is_not_renewed(repository: Repository, other: UUID) -> None:
    assert await repository.renew(other, 0.05)

    async def has_ended() -> bool:
        # Each question that finds it alive gives it less time than passes until the next.
        return not await repository.renew(other, 0.001)

    await until(has_ended)
    assert not await repository.renew(other, 300)
    assert not await repository.renew(uuid4(), 300)


async def test_a_lapsed_lease_is_taken_up_again(
    repository: Repository, keeper: Keeper, other: UUID, dying: UUID
) -> None:
    """What was taken over meanwhile stays with who took it; the rest is written by its old owner."""
    lost, kept = await keeper.put(incarnation=dying), await keeper.put(incarnation=dying)
    [detail] = await until(lambda: repository.claim(other, 1))
    assert not await repository.renew(dying, 300)
    assert await repository.renew(dying, 300, lapsed=True)
    assert await repository.renew(dying, 300)
    left = kept if detail.execution.id == lost.id else lost
    assert not await repository.claim(other, 10)
    assert await repository.undriven(dying, []) == [left.id]
    assert await repository.submit(transition(left)) is COMMITTED
    assert await repository.submit(transition(lost if left is kept else kept)) is FENCED


async def test_a_retired_lease_is_never_taken_up_again(repository: Repository, dying: UUID) -> None:
    await repository.retire(dying)
    assert not await repository.renew(dying, 300, lapsed=True)
    assert not await repository.renew(uuid4(), 300, lapsed=True)


async def takeover(repository: Repository, dying: UUID, other: UUID, row: Execution) -> Execution:
    [detail] = await until(lambda: repository.claim(other, 10))
    assert (detail.execution.id, detail.execution.incarnation) == (row.id, other)
    assert not await repository.renew(dying, 300)
    return detail.execution  # type: ignore[no-any-return]


async def test_a_zombie_writes_nothing(repository: Repository, keeper: Keeper, other: UUID, dying: UUID) -> None:
    row = await keeper.put(incarnation=dying)
    assert await repository.submit(transition(row)) is COMMITTED
    zombie = await repository.get_execution(SCOPE, row.id)
    taken = await takeover(repository, dying, other, row)
    before = await keeper.read(row)
    late = [
        transition(zombie, steps=[step()]),
        transition(zombie, 0, progress=7),
        ending(zombie),
        transition(zombie, epoch=taken.epoch),
        transition(zombie, release=True),
    ]
    for each in late:
        assert await repository.submit(each) is FENCED
    assert await repository.release(dying) == 0
    assert await repository.load(dying, row.id) is None
    assert await keeper.read(row) == before
    assert await repository.submit(transition(taken)) is COMMITTED


async def test_ownership_goes_back_and_forth(repository: Repository, keeper: Keeper, other: UUID) -> None:
    """Each change of owner raises the epoch, and every earlier pair of owner and epoch is fenced."""
    row = await keeper.put()
    held = [row]
    for owner in (other, keeper.incarnation, other):
        await repository.release(held[-1].incarnation or uuid4(), [row.id])
        [detail] = await repository.claim(owner, 1)
        held.append(detail.execution)
    assert [each.epoch for each in held] == [1, 2, 3, 4]
    for earlier in held[:-1]:
        assert await repository.submit(transition(earlier)) is FENCED
    assert await repository.submit(transition(held[-1])) is COMMITTED


async def test_an_owner_without_any_lease_is_dead(repository: Repository, keeper: Keeper, other: UUID) -> None:
    row = await keeper.put(incarnation=uuid4())
    assert ids(await repository.claim(other, 10)) == [row.id]


async def test_a_process_without_lease_takes_nothing(repository: Repository, keeper: Keeper, other: UUID) -> None:
    row = await keeper.put_free()
    stranger = uuid4()
    assert not await repository.claim(stranger, 10)
    assert await repository.claim_one(stranger, row.org, row.id) is None
    await repository.register(stranger, "stranger", 300)
    await repository.retire(stranger)
    assert not await repository.claim(stranger, 10)
    assert await repository.claim_one(stranger, row.org, row.id) is None
    assert ids(await repository.claim(other, 10)) == [row.id]


async def test_retiring_gives_all_back_at_once(repository: Repository, keeper: Keeper, other: UUID) -> None:
    leaving = uuid4()
    await repository.register(leaving, "leaving", 300)
    rows = [await keeper.put(incarnation=leaving) for _ in range(3)]
    parked = await keeper.put_free(wake_time=in_seconds(60))
    await repository.retire(leaving)
    assert not await repository.renew(leaving, 300)
    for row in rows:
        assert (await keeper.read(row)).execution.incarnation is None
        assert await repository.submit(transition(row)) is FENCED
    assert set(ids(await repository.claim(other, 10))) == set(ids(rows))
    assert (await keeper.read(parked)).execution == parked
    for row in rows:
        assert await repository.submit(transition(row)) is FENCED
    await repository.retire(leaving)
    await repository.retire(uuid4())


async def test_the_single_owner_ends_all_other_leases(repository: Repository, keeper: Keeper, other: UUID) -> None:
    rows = [await keeper.put(), await keeper.put(incarnation=uuid4())]
    own = await keeper.put(incarnation=other)
    await repository.retire_others(other)
    assert not await repository.renew(keeper.incarnation, 300)
    assert await repository.renew(other, 300)
    assert set(ids(await repository.claim(other, 10))) == set(ids(rows))
    assert (await keeper.read(own)).execution == own


async def test_created_by_a_process_that_died_meanwhile(repository: Repository, keeper: Keeper, dying: UUID) -> None:
    """An execution that was accepted is driven, even if its creator never gets to it."""
    await until(lambda: _gone(repository, dying))
    row = await keeper.put(incarnation=dying)
    assert ids(await repository.claim(keeper.incarnation, 10)) == [row.id]


async def _gone(repository: Repository, incarnation: UUID) -> bool:
    return not await repository.renew(incarnation, 0.001)


# --- deaths


async def die(repository: Repository, by: UUID, row: Execution, times: int) -> None:
    """Let owners of the execution die, one after the other; afterwards it belongs to a dead one."""
    for _ in range(times):
        owner = uuid4()
        await repository.register(owner, "dying", 300)
        [detail] = await until(partial(repository.claim, owner, 1, suspects=1))
        assert detail.execution.id == row.id
        assert await repository.submit(transition(detail.execution)) is COMMITTED
        await until(partial(_ends, repository, owner))


async def _ends(repository: Repository, incarnation: UUID) -> bool:
    return await repository.renew(incarnation, 0.001) is None


async def test_deaths_of_owners_are_counted(repository: Repository, keeper: Keeper, other: UUID) -> None:
    row = await keeper.put_free()
    await die(repository, other, row, 2)
    [detail] = await repository.claim(other, 1, suspects=1)
    assert detail.execution.deaths == 2
    assert await repository.submit(transition(detail.execution, survived=True)) is COMMITTED
    assert (await keeper.read(row)).execution.deaths == 0


async def test_of_transitions_in_flight_together_any_may_survive(
    repository: Repository, keeper: Keeper, other: UUID
) -> None:
    row = await keeper.put()
    assert await repository.disown(keeper.incarnation, row.id, row.epoch)
    [detail] = await repository.claim(other, 1)
    assert detail.execution.deaths == 1
    first, second, *others = chain(detail.execution, 4)
    written = (first, replace(second, survived=True), *others)
    assert set(await asyncio.gather(*map(repository.submit, written))) == {COMMITTED}
    assert (await keeper.read(row)).execution.deaths == 0


async def test_what_is_disowned_is_claimed_at_once_with_a_death_more(
    repository: Repository, keeper: Keeper, other: UUID
) -> None:
    row, kept = await keeper.put(), await keeper.put()
    assert not await repository.disown(other, row.id, row.epoch)
    assert not await repository.disown(keeper.incarnation, row.id, row.epoch + 1)
    assert not await repository.disown(keeper.incarnation, uuid4(), 1)
    assert await repository.disown(keeper.incarnation, row.id, row.epoch)
    assert not await repository.disown(keeper.incarnation, row.id, row.epoch)
    assert await repository.submit(transition(row)) is FENCED
    assert await repository.load(keeper.incarnation, row.id) is None
    [detail] = await repository.claim(other, 10)
    taken = detail.execution
    assert (taken.id, taken.epoch, taken.deaths) == (row.id, row.epoch + 1, 1)
    assert await repository.submit(transition(kept)) is COMMITTED


async def test_leaving_is_no_death(repository: Repository, keeper: Keeper, other: UUID) -> None:
    row = await keeper.put()
    await repository.retire(keeper.incarnation)
    [detail] = await repository.claim(other, 1)
    assert (detail.execution.id, detail.execution.deaths) == (row.id, 0)


async def test_suspects_are_taken_only_by_who_has_room_for_them(
    repository: Repository, keeper: Keeper, other: UUID
) -> None:
    rows = [await keeper.put_free() for _ in range(3)]
    for _ in range(SUSPECT_DEATHS):
        owner = uuid4()
        await repository.register(owner, "dying", 300)
        taken = await repository.claim(owner, 10, suspects=10)
        assert set(ids(taken)) == set(ids(rows))
        await until(partial(_ends, repository, owner))
    harmless = await keeper.put_free()
    assert ids(await repository.claim(other, 10)) == [harmless.id]
    [first] = await repository.claim(other, 10, suspects=1)
    assert first.execution.deaths == SUSPECT_DEATHS
    # Given up as well, they stay suspects.
    await repository.release(other)
    assert ids(await repository.claim(other, 10)) == [harmless.id]
    assert len(await repository.claim(other, 10, suspects=5)) == 3


async def test_an_execution_tells_who_drives_it_and_what_is_claimed_before_it(
    repository: Repository, keeper: Keeper, dying: UUID, other: UUID
) -> None:
    driven, orphaned = await keeper.put(), await keeper.put(incarnation=dying)
    queued = [await keeper.put(incarnation=None, wake_time=in_seconds(-each)) for each in (30, 20, 10)]
    urgent = await keeper.put(incarnation=None, wake_time=in_seconds(-5), priority=7)
    parked = await keeper.put(incarnation=None, wake_time=in_seconds(3600), priority=9)

    async def before(row: Execution, most: int = 10) -> int:
        found = await repository.who_drives(SCOPE, row.id, most)
        assert not found.server
        return found.before

    assert [await before(each) for each in (urgent, *queued, parked)] == [0, 1, 2, 3, 0]
    assert await before(queued[-1], 2) == 2
    workflow = urgent.workflow_id
    queue = await repository.queue(SCOPE, workflow, 10, 10)
    assert [(each.id, place) for each, place in queue.waiting] == [
        (each.id, place) for place, each in enumerate((urgent, *queued))
    ]
    assert (queue.is_whole, queue.servers >= 1) == (True, True)
    for limit, most in ((3, 10), (10, 3), (4, 4)):
        queue = await repository.queue(SCOPE, workflow, limit, most)
        assert (len(queue.waiting), queue.is_whole) == (min(limit, most), limit == most)
    for scope in (Scope("another"), Scope(SCOPE.org, "nobody")):
        assert (await repository.queue(scope, workflow, 10, 10)).waiting == []
    assert (await repository.queue(SCOPE, UUID(int=1), 10, 10)).waiting == []
    found = await repository.who_drives(SCOPE, driven.id, 10)
    assert found.server
    assert found.lease_until is not None
    assert (found.lease_until > found.time, found.before) == (True, 0)

    async def has_died() -> bool:
        found = await repository.who_drives(SCOPE, orphaned.id, 10)
        assert found.server == "dying"
        return found.lease_until is not None and found.lease_until < found.time

    await until(has_died)
    await repository.retire_others(other)
    assert (await repository.who_drives(SCOPE, orphaned.id, 10)).lease_until is None
    for hidden in (Scope("another"), Scope(SCOPE.org, "nobody")):
        with pytest.raises(ExecutionNotFoundError):
            await repository.who_drives(hidden, driven.id, 10)
