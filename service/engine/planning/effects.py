"""What the planner asks to be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service.engine.failure import Failure

AttemptKey = tuple[str, int, int]
"""Path, iteration and number."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What stands in the place of what a step gives: this failure, or else this output."""

    output: Any = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """Run the handler with these parameters for at most `timeout` seconds.

    `variables` is what expressions see, but of `steps` what a handler is shown. One that is `resumed` runs already, on
    a worker that another process gave it to: nothing is to begin, but its end is to be heard of. One with an `answer`
    comes to that, and calls no handler. One that `is_dry` calls none that may send something.
    """

    path: str
    attempt: int
    handler: str
    params: Any
    timeout: float
    variables: Mapping[str, Any] = field(compare=False, repr=False)
    iteration: int = 1
    resumed: bool = False
    answer: Answer | None = None
    is_dry: bool = False

    @property
    def key(self) -> AttemptKey:
        """What the attempt is told by in its execution."""
        return self.path, self.iteration, self.attempt


@dataclass(frozen=True, slots=True)
class CancelAttempt:
    """Stop this attempt, and say when it has stopped."""

    path: str
    attempt: int
    iteration: int = 1

    @property
    def key(self) -> AttemptKey:
        """What the attempt is told by in its execution."""
        return self.path, self.iteration, self.attempt


Effect = StartAttempt | CancelAttempt
