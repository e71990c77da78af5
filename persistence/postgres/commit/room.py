"""How much a batch takes, and of whom: what is large is written by itself, and what is small need not wait for it."""

from __future__ import annotations

from typing import TypeAlias

from persistence.postgres.commit.units import Creation, Refusal, Submission

Queued: TypeAlias = "Creation | Submission | Refusal"

ITEMS = 1_000
BYTES = 4 << 20

BYTES_OF_LARGE = 1 << 20
"""Bytes of a batch with something large: whoever comes while it is written waits until it has been."""


class Room:
    """What one batch still takes.

    What is large shares a batch with its own org alone. While anybody has something small, no two batches of what is
    large follow each other: so what is small waits for one of them at most, and what is large always comes next.
    """

    def __init__(self, *, large_waits: bool) -> None:
        self.large_waits = large_waits
        """Whether the last batch had something large: now it is the turn of what is small, if there is any."""
        self._items, self._bytes = ITEMS, BYTES
        self._org = ""

    @property
    def is_empty(self) -> bool:
        """Whether nothing was taken."""
        return self._items == ITEMS

    @property
    def is_left(self) -> bool:
        """Whether anything more is taken."""
        return self._items > 0 and self._bytes > 0

    def passes(self, item: Queued) -> bool:
        """Return whether an item, and what its org has behind it, is left for a later batch."""
        if self._org:
            return item.org != self._org
        return item.is_large and (self.large_waits or not self.is_empty)

    def take(self, item: Queued) -> None:
        """Count an item."""
        if item.is_large and not self._org:
            self._org, self._bytes = item.org, BYTES_OF_LARGE
        self._items -= 1
        self._bytes -= item.size
