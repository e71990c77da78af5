"""What batches need: workflows that are looked up once for all requests, and reads a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias, TypeVar

from persistence.errors import UnavailableError
from persistence.model import Scope, Workflow
from service.engine.definition import Definition

READS = 8
"""Reads of one batch at a time: some calls have connections too."""

Resolve: TypeAlias = Callable[[Scope, str, int], Awaitable[tuple[Workflow, Definition]]]
"""Finds a revision and what it means."""

_Item = TypeVar("_Item")


class Meanings:
    """What the requests of one call mean: each workflow that they name is looked up once, with what that raises."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._found: dict[tuple[Scope, str, int], tuple[Workflow, Definition] | Exception] = {}
        self._lost: UnavailableError | None = None

    async def look_up(self, keys: Iterable[tuple[Scope, str, int]]) -> None:
        """Look up what `of` is to give."""
        await at_a_time(READS, dict.fromkeys(keys), self._look_up)

    async def _look_up(self, key: tuple[Scope, str, int]) -> None:
        if self._lost is not None:  # whoever does not answer is not asked for each of the others
            self._found[key] = self._lost
            return
        try:
            self._found[key] = await self._resolve(*key)
        except Exception as error:
            self._found[key] = error
            self._lost = error if isinstance(error, UnavailableError) else None

    async def of(self, scope: Scope, reference: str, revision: int) -> tuple[Workflow, Definition]:
        """Return a revision and what it means, or raise what its look-up raised."""
        found = self._found[scope, reference, revision]
        if isinstance(found, Exception):
            raise found.with_traceback(None)
        return found


async def at_a_time(most: int, items: Iterable[_Item], act: Callable[[_Item], Awaitable[None]]) -> None:
    """Act on each item, which raises nothing, on so many at a time."""
    left = iter(items)

    async def some() -> None:
        for item in left:
            await act(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(most):
            group.create_task(some())
