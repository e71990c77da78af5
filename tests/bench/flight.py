"""Many jobs, some of them at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import TypeVar

T = TypeVar("T")


async def fly(jobs: Iterable[Coroutine[None, None, T]], width: int) -> list[T]:
    """Run all jobs, `width` at a time; return what they gave, in the order of their ends."""
    waiting, results = iter(jobs), list[T]()

    async def work() -> None:
        for job in waiting:
            results.append(await job)

    async with asyncio.TaskGroup() as workers:
        for _ in range(width):
            workers.create_task(work())
    return results
