"""Gives tests a real server on a store of its own, with the real client."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
import pytest_asyncio
import structlog

import flowkeep
from persistence.postgres import notifications
from persistence.postgres.commit import session
from persistence.postgres.repository import PostgresRepository
from persistence.repository import Repository
from service import app
from service.api import answering
from service.calls.call_grpc import call_grpc
from service.calls.channels import Channels
from service.engine import finds
from service.engine.egress.egress import Egress
from service.engine.egress.guard import Guard
from service.engine.egress.routes import Routes
from service.engine.handlers.call_api import call_api
from service.engine.handlers.model import Handler
from service.engine.running import runner
from tests.folders import new_folder
from tests.integration.callee import V1, V1ALPHA, Callee, serving_orders
from tests.integration.postgres_store import PostgresStore
from tests.integration.postgres_store import opened as opened_store
from tests.integration.stage import PACE, Served, Stage, serving
from tests.integration.web import Web, serving_web
from tests.kept import Kept
from tests.patience import PATIENCE, judged
from tests.remembered import remember_handlers, remember_packages

remember_packages()
remember_handlers()

OpenRepository = Callable[..., AbstractAsyncContextManager[Repository]]
Serve = Callable[..., Awaitable[Served]]
OpenGrpc = Callable[..., Handler]
Engines = list[app.Engine]

UNHURRIED = {"command_timeout": PATIENCE, "acquire_timeout": PATIENCE, "unknown_timeout": PATIENCE}
"""A store that keeps callers waiting for as long as tests wait for anything."""


Log = list[MutableMapping[str, Any]]
OURS_TO_MEND = ("call failed", "task failed", "execution cannot go on", "loop failed, and begins again", "claim failed")


@pytest.fixture(autouse=True)
def mistakes() -> Iterator[Log]:
    """What the server logs as its own mistakes. A test that expects one clears the list."""
    found: Log = []

    def keep(logger: Any, method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if entry["event"] in OURS_TO_MEND:
            found.append(entry)
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[keep])
    yield found
    structlog.configure(**before)
    assert not found


@pytest.fixture(autouse=True)
def engines(monkeypatch: pytest.MonkeyPatch) -> Engines:
    """The engines of all servers that are started. A test in which looks have to find something clears the list."""
    built: Engines = []

    def build(*arguments: Any, **named: Any) -> app.Engine:
        built.append(before(*arguments, **named))
        return built[-1]

    before = app.build_engine
    monkeypatch.setattr(app, "build_engine", build)
    # What tells of it is on its way, for as long as a busy machine likes; where nothing is, a test waits in vain.
    monkeypatch.setattr(finds, "PATIENCE", PATIENCE / 2)
    return built


async def found(engines: Engines) -> Counter[str]:
    """What looks have found that nothing had told of, by all servers.

    Without timers: a process asks but twice an interval when the next one is due, so one that is due before the next
    question is found by a look, as is promised.
    """
    counts: Counter[str] = Counter()
    for engine in list(engines):
        await judged(engine.hub.finds, without=["timers"])
        counts += engine.hub.finds.counts
    del counts["timers"]
    return counts


@pytest.fixture
def said(mistakes: Log) -> Callable[[str], Log]:
    """What the server logs, by event, each with its level."""
    entries: deque[MutableMapping[str, Any]] = deque()

    def keep(logger: Any, method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        entries.append({**entry, "level": method})
        if entry["event"] in OURS_TO_MEND:
            mistakes.append(entry)
        raise structlog.DropEvent

    structlog.configure(processors=[keep])
    return lambda event: [entry for entry in list(entries) if entry["event"] == event]


@pytest.fixture
def base() -> Iterator[Path]:
    """A new folder that every account may enter."""
    with new_folder() as folder:
        yield folder


@pytest.fixture
def root(base: Path) -> Path:
    """Where an embedded Postgres of the test's own may lie."""
    return base / "fk"


@pytest.fixture
def web() -> Iterator[Web]:
    """An HTTP server that answers as the test says."""
    with serving_web() as server:
        yield server


@pytest_asyncio.fixture
async def caller() -> AsyncIterator[Handler]:
    """The handler call_api, as a developer has it: it may call this machine."""
    handler = call_api(Egress(Guard(has_loopback=True)))
    yield handler
    assert handler.close is not None
    await handler.close()


@pytest_asyncio.fixture
async def open_grpc() -> AsyncIterator[OpenGrpc]:
    """Gives call_grpc, by default as a developer has it; closed at the end."""
    made: list[Handler] = []

    def new(guard: Guard | None = None, routes: Routes | None = None) -> Handler:
        made.append(call_grpc(Channels(guard or Guard(has_loopback=True), routes)))
        return made[-1]

    yield new
    for each in made:
        assert each.close is not None
        await each.close()


@pytest.fixture
def grpc_caller(open_grpc: OpenGrpc) -> Handler:
    """The handler call_grpc, as a developer has it: it may call this machine."""
    return open_grpc()


@pytest_asyncio.fixture
async def callee() -> AsyncIterator[Callee]:
    """A gRPC service with both versions of the reflection."""
    async with serving_orders(V1, V1ALPHA) as served:
        yield served


@pytest.fixture
def stage() -> Stage:
    """Handlers that the test steers."""
    return Stage()


@pytest.fixture
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancel is answered when it has taken effect, however long that takes; no look comes between the two."""
    monkeypatch.setattr(runner, "EFFECT", PATIENCE)
    monkeypatch.setitem(PACE, "claim_interval", 1000.0)


@pytest.fixture
def open_repository(request: pytest.FixtureRequest, kept_for_all: Kept) -> OpenRepository:
    """Opens one more repository over the test's database, as another process would.

    That is one of its own where it looks behind the store, or has that be another than usual; else the kept one.
    """
    if "database_dsn" in request.fixturenames:
        database_dsn = request.getfixturevalue("database_dsn")
        return lambda **options: opened(database_dsn, **options)
    kept: Kept = request.getfixturevalue("kept")
    return lambda **options: opened(kept.dsn, **options) if options != UNHURRIED else kept.repository(pool_size=4)


@asynccontextmanager
async def opened(dsn: str, **options: Any) -> AsyncIterator[Repository]:
    """A repository, closed at the end."""
    repository = await PostgresRepository.open(dsn, **{"pool_size": 4, **options})
    yield repository
    await repository.close()


@pytest_asyncio.fixture
async def store(database_dsn: str, admin: asyncpg.Connection) -> AsyncIterator[PostgresStore]:
    """A store with a workflow and an owner, without a server."""
    async with opened_store(database_dsn, admin) as store:
        yield store


@pytest_asyncio.fixture
async def patient(
    database_dsn: str, admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[PostgresStore]:
    """A store that waits for what the test locks for as long as tests wait for anything."""
    monkeypatch.setitem(session.SETTINGS, "lock_timeout", "0")
    monkeypatch.setattr(session, "_COMMAND_TIMEOUT", PATIENCE)
    async with opened_store(database_dsn, admin, **UNHURRIED) as store:
        yield store


@pytest_asyncio.fixture
async def serve(
    request: pytest.FixtureRequest,
    open_repository: OpenRepository,
    stage: Stage,
    engines: Engines,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Serve]:
    """Starts servers over the test's database: `serve(handlers, setting=…)`, by default with the stage's handlers.

    No call of theirs is refused, nor a connection given up, because the machine is slow.

    In the end no look may have found what a wake-up should have brought, unless a test has `wrap` spoil a store, or
    is marked as `tampered`.
    """
    is_spoilt = request.node.get_closest_marker("tampered") is not None
    monkeypatch.setattr(answering, "LONGEST", PATIENCE)
    monkeypatch.setattr(notifications, "_PATIENCE", PATIENCE)
    async with AsyncExitStack() as all_servers:

        async def start(
            handlers: Any = None, wrap: Callable[[Repository], Any] | None = None, **settings: Any
        ) -> Served:
            nonlocal is_spoilt
            is_spoilt |= wrap is not None
            server = await all_servers.enter_async_context(AsyncExitStack())
            repository = await server.enter_async_context(open_repository(**UNHURRIED))
            handlers = stage.handlers() if handlers is None else handlers
            context = serving(wrap(repository) if wrap else repository, handlers, **settings)
            target = await server.enter_async_context(context)
            client = await all_servers.enter_async_context(flowkeep.Client(target))
            channel = await all_servers.enter_async_context(grpc.aio.insecure_channel(target))
            return Served(target, client, channel, server.aclose)

        yield start
        stage.release()
        counts = Counter[str]() if is_spoilt else await found(engines)
    assert not counts, counts


@pytest_asyncio.fixture
async def served(serve: Serve) -> Served:
    """A server with the usual settings."""
    return await serve()


@pytest.fixture
def client(served: Served) -> flowkeep.Client:
    """A client of a server with the usual settings."""
    return served.client
