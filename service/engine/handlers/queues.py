"""What an attempt must have before it begins, and may have to wait for: a thread, or a worker with room."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Protocol


class Place(Protocol):
    """A place in a queue, and then what it is for. Closed, that is given back: when what has it ends."""

    @property
    def resource(self) -> str:
        """What is waited for, as waiting steps name it."""
        ...

    @property
    def complaint(self) -> str:
        """Why an attempt does not begin, for people."""
        ...

    def __enter__(self) -> Place: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def bind(self) -> None:
        """Let the handler that this task runs have it."""
        ...

    async def granted(self, within: float) -> bool:
        """Return whether it is there, after so many seconds at most."""
        ...

    def when_granted(self, call: Callable[[], None]) -> None:
        """Call when it is there, unless the place is closed before."""
        ...

    def close(self) -> None:
        """Give it back, or leave the queue."""
        ...
