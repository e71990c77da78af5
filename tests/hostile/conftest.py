"""Servers to attack. What a test prints of them stands in the summary of the run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest_asyncio

from tests.hostile.attacked import Attacked, Servers

Attack = Callable[..., Awaitable[Attacked]]


@pytest_asyncio.fixture(scope="session")
async def servers() -> AsyncIterator[Servers]:
    """The servers of this session."""
    async with AsyncExitStack() as stack:
        yield Servers(stack)


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
