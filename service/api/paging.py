"""Sizes of pages (AIP-158): 0 is the default, what is too large is clamped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from google.protobuf.message import Message

from service.engine.slices import Slicing, Work

Row = TypeVar("Row", bound=Message)

DEFAULT_PAGE = 50
LARGEST_PAGE = 200

LARGEST_PAGE_BYTES = 3 * 1024 * 1024
"""A page ends before it is larger, since no gRPC message may have more than 4 MiB; it has one row at least."""


def page_limit(page_size: int, largest: int = LARGEST_PAGE) -> int:
    """Return how many rows a page holds."""
    return min(page_size or DEFAULT_PAGE, largest)


def fitting(rows: Iterable[Row]) -> list[Row]:
    """Return the first rows that fit on one page together."""
    page = _Page[Row]()
    for row in rows:
        if not page.takes(row):
            break
    return page.rows


async def fitting_in_slices(works: Iterable[Work[Row]]) -> list[Row]:
    """Return the first rows that fit on one page together; no more are made."""
    page, slicing = _Page[Row](), Slicing()
    for work in works:
        # Each alone may be shorter than a slice, and all of them together long.
        if not page.takes(await slicing.do(work)):
            break
    return page.rows


class _Page(Generic[Row]):
    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._size = 0

    def takes(self, row: Row) -> bool:
        """Take a row if it fits, and return whether it did."""
        self._size += row.ByteSize()
        if self.rows and self._size > LARGEST_PAGE_BYTES:
            return False
        self.rows.append(row)
        return True
