"""Values of enums, as the constraints of tables list them."""

from __future__ import annotations

from collections.abc import Iterable


def listed(values: Iterable[str]) -> str:
    """Return the values in their order, quoted, with commas between them."""
    return ", ".join(f"'{value}'" for value in sorted(values))
