"""The owners that died in a row while they drove an execution, as its present owner knows it."""

from __future__ import annotations

from collections.abc import Iterable

from persistence.model import StepKey
from service.engine.planning.state import State


class Deaths:
    """How many there were, and the steps that they may have died of: those that ran in the `state` that they left.

    The attempts that ran then were cut off. Some of the steps may wait for a while until they are begun again, and
    nothing is shown of them before they have ended. Nor of what the owners may have begun before it was recorded.
    """

    def __init__(self, count: int, state: State) -> None:
        self.count = count
        self._suspects = list(state.running) if count else []

    def suspect(self, steps: Iterable[StepKey]) -> None:
        """Count steps among those that an owner may have died of: it begins them before their start is recorded."""
        self._suspects.extend(steps)

    def are_over(self, state: State) -> bool:
        """Whether an attempt that ended here, with this `state`, shows that the execution does no harm."""
        while self._suspects and not self._is_open(state):
            self._suspects.pop()  # what has ended is not looked at again
        return bool(self.count) and not self._suspects and not state.inherited

    def _is_open(self, state: State) -> bool:
        path, iteration = self._suspects[-1]
        step = state.open.get(path)
        return step is not None and step.iteration == iteration
