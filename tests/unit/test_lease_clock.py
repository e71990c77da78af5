"""A machine that was suspended: the lease went on meanwhile, and the timers of the event loop did not."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

import pytest

from persistence.errors import UnavailableError
from persistence.memory import MemoryRepository
from persistence.processes import Lease
from persistence.replicas import ReplicaRepository
from service.app import Surroundings, build_engine
from service.config import Config
from service.engine.clock import StoreClock, monotonic
from service.engine.handlers.registry import Registry
from service.engine.running.leases import FENCE, LeaseKeeper
from tests.patience import PATIENCE

TTL = 600.0
"""So long that no timer of the event loop fires within a test."""


class Replicas:
    """A store that answers to a renewal when it is let."""

    def __init__(self) -> None:
        self.registered: asyncio.Queue[UUID] = asyncio.Queue()
        self.renewals: asyncio.Queue[asyncio.Future[Lease | None]] = asyncio.Queue()
        self.retired: asyncio.Queue[UUID] = asyncio.Queue()

    async def register(self, incarnation: UUID, name: str, ttl: float) -> Lease:
        self.registered.put_nowait(incarnation)
        return Lease(datetime.now(UTC), has_others=False)

    async def renew(self, incarnation: UUID, ttl: float, *, lapsed: bool = False) -> Lease | None:
        answer: asyncio.Future[Lease | None] = asyncio.get_running_loop().create_future()
        self.renewals.put_nowait(answer)
        return await answer

    async def retire(self, incarnation: UUID) -> None:
        self.retired.put_nowait(incarnation)


class Machine:
    """A process that keeps a lease, on a machine that can be suspended."""

    def __init__(self) -> None:
        self.suspended = 0.0
        self.replicas = Replicas()
        clock = StoreClock(lambda: time.monotonic() + self.suspended)
        engine = build_engine(Config(), MemoryRepository(), Registry(), Surroundings(clock))
        self.tenure = engine.runner.tenure
        self.first = self.tenure.incarnation
        self._keepers = (cast(ReplicaRepository, self.replicas), self.tenure, clock, TTL)

    @asynccontextmanager
    async def keeping(self, *, is_renewing: bool = False) -> AsyncIterator[LeaseKeeper]:
        """Have the lease kept; `is_renewing`: all the time, so that a renewal is on its way."""
        keeper = LeaseKeeper(*self._keepers, renew=0.0 if is_renewing else TTL)
        await keeper.register(alone=False)
        assert await self.replicas.registered.get() == self.first
        task = asyncio.create_task(keeper.keep())
        await asyncio.sleep(0)
        try:
            yield keeper
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def began_anew(self) -> bool:
        """Return whether the process goes on under another incarnation, as soon as it has one."""
        incarnation = await asyncio.wait_for(self.replicas.registered.get(), PATIENCE)
        assert await self.replicas.retired.get() == self.first
        return self.tenure.incarnation == incarnation != self.first and self.tenure.may_begin


async def test_nothing_begins_after_a_suspension_beyond_the_fence() -> None:
    machine = Machine()
    async with machine.keeping():
        machine.suspended = FENCE * TTL - 60.0
        assert machine.tenure.may_begin
        machine.suspended = FENCE * TTL
        assert not machine.tenure.may_begin


async def test_a_process_that_was_suspended_between_renewals_begins_anew_at_the_next_look() -> None:
    machine = Machine()
    async with machine.keeping() as keeper:
        machine.suspended = 10 * TTL
        keeper.look()
        assert await machine.began_anew()


async def test_a_suspension_that_ends_before_the_fence_changes_nothing() -> None:
    machine = Machine()
    async with machine.keeping() as keeper:
        machine.suspended = FENCE * TTL / 2
        keeper.look()
        for _ in range(10):
            await asyncio.sleep(0)
        assert machine.replicas.registered.empty()
        assert machine.replicas.renewals.empty()
        assert (machine.tenure.may_begin, machine.tenure.incarnation) == (True, machine.first)


async def test_a_process_that_was_suspended_during_a_renewal_does_not_wait_for_the_answer() -> None:
    machine = Machine()
    async with machine.keeping(is_renewing=True) as keeper:
        await machine.replicas.renewals.get()
        machine.suspended = 10 * TTL
        keeper.look()
        assert await machine.began_anew()


@pytest.mark.parametrize("is_looked", [False, True])
async def test_a_connection_that_a_suspension_broke_counts_as_the_suspension(is_looked: bool) -> None:
    machine = Machine()
    async with machine.keeping(is_renewing=True) as keeper:
        answer = await machine.replicas.renewals.get()
        machine.suspended = 10 * TTL
        answer.set_exception(UnavailableError("connection reset"))
        if is_looked:
            keeper.look()
        assert await machine.began_anew()


async def test_an_answer_from_before_a_suspension_lets_nothing_begin() -> None:
    machine = Machine()
    async with machine.keeping(is_renewing=True):
        answer = await machine.replicas.renewals.get()
        machine.suspended = 10 * TTL
        answer.set_result(Lease(datetime.now(UTC), has_others=False))
        held = machine.tenure.ownership.held_until
        while machine.tenure.ownership.held_until == held:
            assert not machine.tenure.may_begin
            await asyncio.sleep(0)
        assert await machine.began_anew()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no clock of this name")
def test_the_fence_goes_by_the_clock_that_counts_suspended_time() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= monotonic() <= time.clock_gettime(time.CLOCK_BOOTTIME)
    assert StoreClock().monotonic is monotonic
