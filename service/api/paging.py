"""Sizes of pages (AIP-158): 0 is the default, what is too large is clamped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import Message

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
    page: list[Row] = []
    size = 0
    for row in rows:
        size += row.ByteSize()
        if page and size > LARGEST_PAGE_BYTES:
            break
        page.append(row)
    return page
