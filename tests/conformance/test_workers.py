"""Handlers that workers have registered, and workers that processes tell each other of."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from persistence.errors import PersistenceError
from persistence.repository import Repository
from persistence.workers import ConnectedWorker, WorkerHandler

TIME = datetime(2030, 1, 31, 9, tzinfo=UTC)
SCHEMA = {"type": "object", "properties": {"é": {"type": "integer"}}}


def handler(name: str, **fields: Any) -> WorkerHandler:
    return WorkerHandler(**{"name": name, "description": "", "params_schema": SCHEMA, "effect": "none", **fields})


def worker(name: str, org: str = "acme", **fields: Any) -> ConnectedWorker:
    given = {"subject": "s", "worker_id": f"id of {name}", "version": "1", "handlers": ["a", "b"], "capacity": 4}
    times = {"connect_time": TIME, "heartbeat_time": TIME}
    return ConnectedWorker(**{"org": org, "name": name, **given, "running": 0, "is_draining": False, **times, **fields})


async def test_handlers_of_an_org_are_kept_and_replaced(repository: Repository):
    await repository.keep_worker_handlers("acme", [handler("b"), handler("a", description="one")])
    await repository.keep_worker_handlers("globex", [handler("a", effect="external")])
    await repository.keep_worker_handlers("acme", [handler("a", description="two", version="2")])
    kept = await repository.list_worker_handlers("acme")
    assert kept == [handler("a", description="two", version="2"), handler("b")]
    assert all(each.seen_time is not None for each in kept)
    assert await repository.find_worker_handlers("acme", ["b", "c"]) == [handler("b")]
    assert await repository.find_worker_handlers("globex", ["a", "b"]) == [handler("a", effect="external")]
    assert not await repository.list_worker_handlers("nobody")


async def test_a_handler_that_cannot_be_kept_is_refused(repository: Repository):
    with pytest.raises(PersistenceError):
        await repository.keep_worker_handlers("acme", [handler("ok"), handler("bad", description="a\0b")])
    assert not await repository.list_worker_handlers("acme")


async def test_workers_of_live_processes_are_shown_as_announced_last(repository: Repository):
    one, two, dead = uuid4(), uuid4(), uuid4()
    await repository.register(one, "one", 300)
    await repository.register(two, "two", 300)
    await repository.announce_workers(one, [worker("w1"), worker("w2"), worker("w3", org="globex")])
    await repository.announce_workers(two, [worker("w0")])
    await repository.announce_workers(dead, [worker("w9")])
    shown = [(each.name, each.server) for each in await repository.list_workers("acme")]
    assert shown == [("w0", "two"), ("w1", "one"), ("w2", "one")]
    changed = worker("w2", running=3, is_draining=True, capacity=9, handlers=["c"], version="2")
    await repository.announce_workers(one, [changed])
    (other, found) = await repository.list_workers("acme")
    assert other.name == "w0"
    assert (found.running, found.is_draining, found.capacity) == (3, True, 9)
    assert (list(found.handlers), found.version, found.connect_time) == (["c"], "2", TIME)
    assert not await repository.list_workers("globex")
    await repository.retire(two)
    assert [each.name for each in await repository.list_workers("acme")] == ["w2"]
    await repository.announce_workers(one, [])
    assert not await repository.list_workers("acme")
