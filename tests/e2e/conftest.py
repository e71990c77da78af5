"""A server that is a process of its own, a client of it, and the world that its steps call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from flowkeep import Client
from tests.e2e.commands import BROKEN, GREETING, IMPOSSIBLE, SLEEP, at
from tests.e2e.effects import EffectServer, effect_server
from tests.e2e.process import ServerProcess, flowkeep, running
from tests.folders import new_folder
from tests.patience import PATIENCE


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder for data and sockets."""
    with new_folder("flowkeep-e2e-") as folder:
        yield folder


@pytest_asyncio.fixture(scope="session")
async def prepared() -> AsyncIterator[Path]:
    """A data folder with a migrated database that nothing runs on, for copies: making one takes much longer."""
    with new_folder("flowkeep-e2e-") as folder:
        made = await flowkeep("migrate", "--data-dir", str(folder / "data"))
        assert made.code == 0, made
        yield folder / "data"


@pytest_asyncio.fixture
async def effects() -> AsyncIterator[EffectServer]:
    """The world outside."""
    async with effect_server() as effects:
        yield effects


@pytest_asyncio.fixture
async def server(
    request: pytest.FixtureRequest, prepared: Path, folder: Path, effects: EffectServer
) -> AsyncIterator[ServerProcess]:
    """A server that runs, with settings if a test names some; at the end it must have had nothing to complain about."""
    async with running(ServerProcess(folder, settings=getattr(request, "param", {})), prepared) as server:
        yield server


@pytest_asyncio.fixture
async def client(server: ServerProcess) -> AsyncIterator[Client]:
    """A client of the server, which outlives its restarts."""
    async with Client(server.target, timeout=PATIENCE) as client:
        yield client


@pytest_asyncio.fixture(scope="module")
async def target(prepared: Path) -> AsyncIterator[str]:
    """Address of a server with the workflows of `commands`."""
    with new_folder("flowkeep-e2e-") as folder:
        async with running(ServerProcess(folder, listen="127.0.0.1:0"), prepared) as server:
            for document in (GREETING, SLEEP, BROKEN, IMPOSSIBLE):
                await at(server.target, "apply", "-", given=document)
            yield server.target
