"""Where something stands in params, and what may be said of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

_MAX_SHOWN_KEY = 40


class Found(Protocol):
    """What is wrong with a value, and where in it."""

    @property
    def field(self) -> str:
        """Where, empty for the whole."""
        ...

    @property
    def description(self) -> str:
        """What."""
        ...


Check = Callable[[Any], Sequence[Found]]
"""Finds what keeps a value from being kept and sent as JSON."""


def located(path: Sequence[str | int]) -> str:
    """Return a path as people write it: `a.b`, `a[3]`, `a["not a name"]`; long keys are cut."""
    field = ""
    for key in path:
        if isinstance(key, int):
            field = f"{field}[{key}]"
            continue
        shown = key if len(key) <= _MAX_SHOWN_KEY else key[:_MAX_SHOWN_KEY] + "…"
        if not shown.isidentifier():
            field = f"{field}[{json.dumps(shown)}]"
            continue
        field = f"{field}.{shown}" if field else shown
    return field
