"""Sizes of pages (AIP-158): 0 is the default, what is too large is clamped."""

from __future__ import annotations

DEFAULT_PAGE = 50
LARGEST_PAGE = 200


def page_limit(page_size: int, largest: int = LARGEST_PAGE) -> int:
    """Return how many rows a page holds."""
    return min(page_size or DEFAULT_PAGE, largest)
