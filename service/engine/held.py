"""What takes memory for as long as something uses it, counted by org."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Collection

from persistence.shares import TIMES


class Held:
    """Counts the bytes of objects until they are let go of. Orgs share them as they share places (`Shares`)."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._orgs: Counter[str] = Counter()

    def hold(self, org: str, value: object, size: int) -> None:
        """Count an object of an org for as long as it lives."""
        self._count(org, size)
        weakref.finalize(value, self._count, org, -size).atexit = False

    def is_full(self, org: str) -> bool:
        """Whether an org holds as much as it may."""
        return self._orgs[org] >= TIMES * self._free

    @property
    def full(self) -> Collection[str]:
        """The orgs that hold as much as they may."""
        return [org for org in list(self._orgs) if self.is_full(org)]

    def _count(self, org: str, size: int) -> None:
        self._free -= size
        self._orgs[org] += size
        if not self._orgs[org]:
            del self._orgs[org]
