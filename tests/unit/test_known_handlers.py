"""What an org's workers have is remembered for as long as one of them is connected, and 30 days more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

from persistence.memory.repository import MemoryRepository
from persistence.workers import FORGOTTEN
from service.engine.handlers.registry import Registry
from service.engine.workers.known import REFRESHED, KnownHandlers
from service.engine.workers.model import Declared, Registration
from service.engine.workers.pool import Workers


async def test_handlers_of_a_worker_that_is_connected_for_long_are_not_forgotten() -> None:
    began, passed = datetime.now(UTC), 0.0
    repository, workers = MemoryRepository(lambda: began + timedelta(seconds=passed)), Workers()
    known = KnownHandlers(repository, Registry([]), workers)
    links = [cast(Any, SimpleNamespace()) for _ in range(2)]
    for number, (name, link) in enumerate(zip(("stays", "leaves"), links, strict=True)):
        said = Registration("acme", "ann", str(number), name, "1", 1, (Declared(name),))
        workers.attach(said, await known.register(said, passed), link)
    workers.detach(workers.all[1], links[1])
    for _ in range(3):
        passed += FORGOTTEN.total_seconds() / 2 + REFRESHED
        await known.renew(passed)
    (row,) = await repository.list_worker_handlers("acme")
    assert (row.name, row.seen_time) == ("stays", began + timedelta(seconds=passed))
    passed += REFRESHED / 2  # too soon to write again
    await known.renew(passed)
    assert await repository.list_worker_handlers("acme") == [row]
    assert row.seen_time == (await repository.list_worker_handlers("acme"))[0].seen_time
