"""Servers to attack. What a test prints of them stands in the summary of the run."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from tests.hostile.attacked import Attacked, Servers
from tests.hostile.attacker import Attacker
from tests.hostile.bare_server import Bare, serving_bare
from tests.integration.web import Web, serving_web

Attack = Callable[..., Awaitable[Attacked]]


@pytest.fixture(scope="session")
def web() -> Iterator[Web]:
    """What serves HTTP to the attacked servers, their keys too."""
    with serving_web() as server:
        yield server


@pytest.fixture(scope="session")
def listener() -> Iterator[socket.socket]:
    """What the attacked servers may connect to, and a test may answer as it likes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


@pytest_asyncio.fixture(scope="session")
async def attacker() -> AsyncIterator[Attacker]:
    """The process that attacks."""
    attacker = Attacker()
    yield attacker
    await attacker.close()


@pytest_asyncio.fixture(scope="session")
async def bare(attacker: Attacker) -> AsyncIterator[Bare]:
    """A server that is nothing but gRPC, to tell what of a flood's cost is gRPC's."""
    async with serving_bare(attacker) as server:
        yield server


@pytest_asyncio.fixture(scope="session")
async def servers(web: Web, listener: socket.socket, attacker: Attacker) -> AsyncIterator[Servers]:
    """The servers of this session."""
    async with AsyncExitStack() as stack:
        yield Servers(stack, web, listener, attacker)


@pytest_asyncio.fixture
async def attack(servers: Servers, record_property: Callable[[str, object], None]) -> AsyncIterator[Attack]:
    """Gives a server with these settings, as `await attack(max_streams=5)`, and looks after it until the test ends."""
    used: list[Attacked] = []
    async with AsyncExitStack() as stack:

        async def server(**settings: Any) -> Attacked:
            attacked = await servers.with_settings(settings)
            if attacked not in used:
                used.append(attacked)
                await stack.enter_async_context(attacked.watched())
            return attacked

        yield server
    for attacked in used:
        for figure in attacked.figures:
            record_property("figure", figure)


@pytest_asyncio.fixture
async def attacked(attack: Attack) -> Attacked:
    """A server with the usual settings, on which callers are known by their tokens."""
    return await attack()
