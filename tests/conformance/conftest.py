"""Every test of this folder runs on every store: they must not be told apart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from persistence.memory import MemoryRepository
from persistence.model import Workflow
from persistence.repository import Repository
from service.engine.ids import uuid7
from tests.conformance.builders import ORG, Keeper, document

if TYPE_CHECKING:
    from tests.kept import Kept

OpenRepository = Callable[[], Awaitable[Repository]]


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest) -> Kept | None:
    """An empty store: none for memory, a database for Postgres."""
    return None if request.param == "memory" else request.getfixturevalue("kept")


@pytest_asyncio.fixture
async def open_repository(store: Kept | None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OpenRepository]:
    """Opens one more repository over the same store, as another replica would; none is ever in a hurry."""
    memory = MemoryRepository()
    async with AsyncExitStack() as opened:

        async def open_one() -> Repository:
            if store is None:
                return memory
            from persistence.postgres import replicas  # the memory store works without it

            monkeypatch.setattr(replicas, "_SHORTEST_RENEWAL", replicas._LONGEST_RENEWAL)
            return await opened.enter_async_context(store.repository(pool_size=10))

        yield open_one


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
