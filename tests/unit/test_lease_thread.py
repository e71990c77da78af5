"""What the thread that keeps the lease says to the tenure, whose loop may hear of it late."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from persistence.memory import MemoryRepository
from service.app import build_engine
from service.config import Config
from service.engine.handlers.registry import Registry
from service.engine.running.lease_thread import _Owner


async def test_a_lease_that_was_lost_again_lets_nothing_begin() -> None:
    tenure = build_engine(Config(), MemoryRepository(), Registry()).runner.tenure
    owner, seen = _Owner(tenure), list[bool]()
    owner.fence()
    owner.resume(uuid4())
    asyncio.get_running_loop().call_soon(lambda: seen.append(tenure.may_begin))
    owner.fence()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (seen, tenure.may_begin) == ([False], False)
    owner.resume(again := uuid4())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (tenure.may_begin, tenure.incarnation) == (True, again)
