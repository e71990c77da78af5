"""Calls that are made again under their request ids: they are answered, and are not judged again.

What a call is judged by may have changed since it was made: the time, the workflow or the execution, perhaps by that
call itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from persistence.errors import QueueFullError, UnavailableError
from persistence.repository import ExecutionRepository
from persistence.requests import Asked, Request

T = TypeVar("T")


async def unless_asked(
    store: ExecutionRepository,
    org: str,
    request: Request | None,
    make: Callable[[], Awaitable[T]],
    again: Callable[[Asked], Awaitable[T]],
) -> T:
    """Return what `make` gives, or what `again` gives of a call that was made before.

    An equal call may be made at the same time, and be what `make` is refused for: so it is looked for after a refusal,
    too. Raises what the two raise, RequestIdReusedError.
    """
    if request is None:
        return await make()
    if (first := await store.find_asked(org, request)) is not None:
        return await again(first)
    try:
        return await make()
    except (UnavailableError, QueueFullError):
        raise  # of the store, not of what is asked
    except Exception:
        if (first := await store.find_asked(org, request)) is None:
            raise
    return await again(first)
