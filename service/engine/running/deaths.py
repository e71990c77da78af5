"""The owners that died in a row while they drove an execution, as its present owner knows it."""

from __future__ import annotations

from collections.abc import Set

from service.engine.planning.effects import AttemptKey


class Deaths:
    """How many there were, and the attempts that they may have died of: those that ran when this owner took it up."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.inherited: Set[AttemptKey] = frozenset()

    def are_over(self, running: Set[AttemptKey]) -> bool:
        """Whether an attempt that ended here shows that the execution does no harm: nothing inherited is `running`."""
        return bool(self.count) and self.inherited.isdisjoint(running)
