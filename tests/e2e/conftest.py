"""A server that is a process of its own, a client of it, and the world that its steps call."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from flowkeep import Client
from tests.e2e.effects import EffectServer, effect_server
from tests.e2e.process import ServerProcess


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder; its path is short, for sockets, and every account may pass it."""
    folder = Path(tempfile.mkdtemp(prefix="flowkeep-e2e-", dir="/tmp"))
    folder.chmod(0o711)  # started by root, Postgres runs as another account
    yield folder
    shutil.rmtree(folder)


@pytest_asyncio.fixture
async def effects() -> AsyncIterator[EffectServer]:
    """The world outside."""
    async with effect_server() as effects:
        yield effects


@pytest_asyncio.fixture
async def server(folder: Path, effects: EffectServer) -> AsyncIterator[ServerProcess]:
    """A server that runs; at the end it must have had nothing to complain about."""
    server = ServerProcess(folder)
    await server.start()
    yield server
    await server.close()
    print(server.log)
    assert not server.complaints


@pytest_asyncio.fixture
async def client(server: ServerProcess) -> AsyncIterator[Client]:
    """A client of the server, which outlives its restarts."""
    async with Client(server.target) as client:
        yield client
