"""Handlers that workers have registered, and workers that processes tell each other of."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from persistence.errors import PersistenceError
from persistence.model import StepState
from persistence.repository import Repository
from persistence.workers import AwaitedWorker, ConnectedWorker, Holding, Standing, WorkerAttempt, WorkerHandler
from tests.conformance.builders import Keeper, step, transition

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
    labels = {"region": "eu", "é": ""}
    changed = worker("w2", running=3, is_draining=True, capacity=9, handlers=["c"], version="2", labels=labels)
    await repository.announce_workers(one, [changed])
    (other, found) = await repository.list_workers("acme")
    assert other.name == "w0"
    assert (found.running, found.is_draining, found.capacity) == (3, True, 9)
    assert (list(found.handlers), found.version, found.connect_time) == (["c"], "2", TIME)
    assert (found.labels, other.labels) == (labels, {})
    assert not await repository.list_workers("globex")
    await repository.retire(two)
    assert [each.name for each in await repository.list_workers("acme")] == ["w2"]
    await repository.announce_workers(one, [])
    assert not await repository.list_workers("acme")


async def test_what_is_awaited_of_workers_is_found_by_their_handlers(repository: Repository):
    rows = [AwaitedWorker(*each) for each in (("acme", "a", "é"), ("acme", "a", "x" * 5_000), ("acme", "b", "é"))]
    other = AwaitedWorker("globex", "a", "é")
    for row in (*rows, other, rows[0]):
        await repository.keep_awaited_worker(row)
    assert await repository.list_awaited_workers([("acme", "a"), ("acme", "c")]) == [rows[1], rows[0]]
    assert await repository.list_awaited_workers([("globex", "a"), ("acme", "b")]) == [rows[2], other]
    assert not await repository.list_awaited_workers([])


async def test_what_is_awaited_of_workers_and_cannot_be_kept_is_refused(repository: Repository):
    with pytest.raises(PersistenceError):
        await repository.keep_awaited_worker(AwaitedWorker("acme", "a", "\0"))
    assert not await repository.list_awaited_workers([("acme", "a")])


# --- attempts whose workers hang on another process than the one that drives their execution


async def an_attempt(keeper: Keeper, **changes: Any) -> WorkerAttempt:
    """The first attempt of the step "fetch", which runs unless `changes` say else."""
    row = await keeper.put()
    await keeper.commit(transition(row, steps=[step(**changes)]))
    return WorkerAttempt(row.org, row.id, "fetch", 1, 1)


async def a_process(repository: Repository) -> UUID:
    """A process with a lease."""
    incarnation = uuid4()
    await repository.register(incarnation, "holder", 300)
    return incarnation


async def test_a_process_holds_an_attempt_that_runs(repository: Repository, keeper: Keeper):
    attempt = await an_attempt(keeper)
    holder = await a_process(repository)
    (stands,) = await repository.hold_attempts(holder, [(attempt, b"")], take=True)
    assert stands == Standing(is_running=True, is_newest=True, is_held=True, state=StepState.RUNNING)
    assert await repository.find_attempts({attempt: ""}) == {attempt: Holding(holder, b"", is_live=True)}
    (stands,) = await repository.hold_attempts(holder, [(attempt, b"half")], take=False)
    assert (stands.is_held, stands.report) == (True, b"")
    await repository.hold_attempts(holder, [(attempt, b"")], take=False)
    assert await repository.find_attempts({attempt: ""}) == {attempt: Holding(holder, b"half", is_live=True)}
    await repository.drop_attempts(holder, [attempt])
    assert not await repository.find_attempts({attempt: ""})


async def test_an_attempt_goes_to_the_process_that_its_worker_comes_to(repository: Repository, keeper: Keeper):
    """With what is known of it; the one that held it before hears so, and cannot forget it any more."""
    attempt = await an_attempt(keeper)
    before, after = await a_process(repository), await a_process(repository)
    await repository.hold_attempts(before, [(attempt, b"half")], take=True)
    (refused,) = await repository.hold_attempts(after, [(attempt, b"x")], take=False)
    assert (refused.is_running, refused.is_held) == (True, False)
    (taken,) = await repository.hold_attempts(after, [(attempt, b"")], take=True)
    assert (taken.is_held, taken.report) == (True, b"half")
    (gone,) = await repository.hold_attempts(before, [(attempt, b"late")], take=False)
    assert (gone.is_running, gone.is_held) == (True, False)
    await repository.drop_attempts(before, [attempt])
    assert await repository.find_attempts({attempt: ""}) == {attempt: Holding(after, b"half", is_live=True)}


async def test_what_a_process_without_a_lease_held_is_shown_as_such(repository: Repository, keeper: Keeper):
    attempt = await an_attempt(keeper)
    holder = uuid4()
    await repository.hold_attempts(holder, [(attempt, b"done")], take=True)
    assert await repository.find_attempts({attempt: ""}) == {attempt: Holding(holder, b"done", is_live=False)}


async def test_the_holder_hears_why_an_attempt_is_to_stop(repository: Repository, keeper: Keeper):
    attempt = await an_attempt(keeper)
    holder = await a_process(repository)
    assert not await repository.find_attempts({attempt: "CANCELLED"})
    await repository.hold_attempts(holder, [(attempt, b"")], take=True)
    await repository.find_attempts({attempt: "CANCELLED"})
    (stands,) = await repository.hold_attempts(holder, [(attempt, b"")], take=False)
    assert (stands.is_held, stands.stop) == (True, "CANCELLED")


FAILED_ATTEMPT = {"attempt": 1, "start_time": None, "end_time": "", "failure": {"code": "LOST", "message": ""}}


@pytest.mark.parametrize(
    ("changes", "is_newest", "code"),
    [
        ({"attempt": 2, "failed_attempts": (FAILED_ATTEMPT,)}, False, "LOST"),
        ({"attempt": 2}, False, ""),
        ({"state": StepState.COMPLETED, "output": 1}, True, ""),
        ({"state": StepState.CANCELLED}, True, ""),
        ({"state": StepState.FAILED, "failure": {"code": "BROKEN", "message": ""}}, True, "BROKEN"),
        (
            {"state": StepState.FAILED, "attempt": 3, "failure": {"code": "BROKEN", "message": ""}},
            False,
            "",
        ),
    ],
)
async def test_an_attempt_that_runs_no_more_is_not_held(
    repository: Repository, keeper: Keeper, changes: dict[str, Any], is_newest: bool, code: str
):
    attempt = await an_attempt(keeper, **changes)
    holder = await a_process(repository)
    (stands,) = await repository.hold_attempts(holder, [(attempt, b"late")], take=True)
    state = changes.get("state", StepState.RUNNING)
    assert stands == Standing(is_running=False, is_newest=is_newest, state=state, code=code)
    assert not await repository.find_attempts({attempt: ""})


async def test_attempts_that_never_were_or_are_of_others_are_not_held(repository: Repository, keeper: Keeper):
    attempt = await an_attempt(keeper)
    holder = await a_process(repository)
    others = [
        attempt._replace(org="globex"),
        attempt._replace(path="other"),
        attempt._replace(iteration=2),
        attempt._replace(execution_id=uuid4()),
    ]
    stand = await repository.hold_attempts(holder, [(each, b"") for each in (*others, attempt)], take=True)
    assert [each.is_held for each in stand] == [False] * 4 + [True]
    assert stand[0] == Standing(is_running=False)
    assert set(await repository.find_attempts(dict.fromkeys([*others, attempt], ""))) == {attempt}
