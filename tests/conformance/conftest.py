"""Every test of this folder runs on every store: they must not be told apart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from persistence.memory import MemoryRepository
from persistence.model import Workflow
from persistence.repository import Repository
from service.engine.ids import uuid7
from tests.conformance.builders import ORG, Keeper, document
from tests.patience import PATIENCE

OpenRepository = Callable[[], Awaitable[Repository]]


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest) -> str:
    """Address of an empty store: nothing for memory, a database for Postgres."""
    return "" if request.param == "memory" else str(request.getfixturevalue("database_dsn"))


@pytest_asyncio.fixture
async def open_repository(store: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OpenRepository]:
    """Opens one more repository over the same store, as another replica would; none is ever in a hurry."""
    memory = MemoryRepository()
    opened: list[Repository] = []

    async def open_one() -> Repository:
        if not store:
            return memory
        from persistence.postgres import PostgresRepository, replicas  # the memory store works without it

        monkeypatch.setattr(replicas, "_SHORTEST_RENEWAL", replicas._LONGEST_RENEWAL)
        repository = await PostgresRepository.open(
            store, command_timeout=PATIENCE, acquire_timeout=PATIENCE, unknown_timeout=PATIENCE
        )
        opened.append(repository)
        return repository

    yield open_one
    for repository in opened:
        await repository.close()


@pytest_asyncio.fixture
async def repository(open_repository: OpenRepository) -> Repository:
    """A repository over an empty store."""
    return await open_repository()


@pytest_asyncio.fixture
async def workflow(repository: Repository) -> Workflow:
    """A workflow of ORG."""
    return await repository.create_workflow(ORG, uuid7(), document("research"), "ann")


@pytest_asyncio.fixture
async def incarnation(repository: Repository) -> UUID:
    """A process with a lease that outlives the test."""
    incarnation = uuid4()
    await repository.register(incarnation, "replica", 300)
    return incarnation


@pytest.fixture
def keeper(repository: Repository, workflow: Workflow, incarnation: UUID) -> Keeper:
    """Makes executions of the workflow, owned by the process unless said otherwise."""
    return Keeper(repository, workflow, incarnation)
