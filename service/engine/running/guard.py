"""What an execution is driven under, so that one that cannot go on ends."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType


class Guard:
    """Ends an execution when what runs inside breaks: nobody above could do more, and it would stand still.

    An object, and not a generator: it is entered for each happening and each commit, and costs a quarter of that.
    """

    __slots__ = ("_fail",)

    def __init__(self, fail: Callable[[BaseException], None]) -> None:
        self._fail = fail

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self._fail(error)
        return True
