"""What the planner asks to be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """Run the handler with these parameters for at most `timeout` seconds. `variables` is what expressions see."""

    path: str
    attempt: int
    handler: str
    params: Any
    timeout: float
    variables: Mapping[str, Any] = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class CancelAttempt:
    """Stop this attempt, and say when it has stopped."""

    path: str
    attempt: int


Effect = StartAttempt | CancelAttempt
