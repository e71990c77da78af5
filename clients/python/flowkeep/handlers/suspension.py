"""The answer of a handler that is not done yet."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flowkeep.handlers import arguments
from flowkeep.handlers.errors import invalid


@dataclass(frozen=True, slots=True)
class Suspend:
    """An answer of a handler: park the step, and complete it with `output` at `until`, however far that is.

    Raises HandlerError, INVALID_OUTPUT, when `until` is no time with a time zone or lies outside the calendar.
    """

    until: datetime
    output: Any = None
    reason: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "until", invalid("Suspend.until", arguments.moment, self.until))
        object.__setattr__(self, "reason", invalid("Suspend.reason", arguments.text, self.reason))
