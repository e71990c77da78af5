"""When the runs of executions began and ended: an execution that was reopened has several."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING
from uuid import UUID

from flowkeep.v1.execution_pb2 import Execution as ExecutionMessage
from persistence.transition import CommitResult
from tests.simulation.folding import opened

if TYPE_CHECKING:
    from tests.simulation.world import World

CANCELLED = ExecutionMessage.STATE_CANCELLED


class Runs:
    """The commits of `reopened` and `finished`, by execution, as their writers told of them."""

    def __init__(self, world: World) -> None:
        self._begins: dict[UUID, list[float]] = defaultdict(list)
        self._ends: dict[UUID, list[tuple[float, str]]] = defaultdict(list)
        for write in world.history.writes:
            if write.result is not CommitResult.COMMITTED:
                continue
            if any(event.kind == "reopened" for event in write.events):
                self._begins[write.execution_id].append(write.committed)
            if write.events and write.events[-1].kind == "finished":
                finished = opened(write.events[-1:])[0].finished
                how = finished.failure.code if finished.state == CANCELLED else ""
                self._ends[write.execution_id].append((write.committed, how))

    def number(self, execution_id: UUID, time: float) -> int:
        """Return which run an execution was in at a time, 1 in its first and at its end."""
        return 1 + sum(begin <= time for begin in self._begins[execution_id])

    def end(self, execution_id: UUID, number: int) -> tuple[float, str] | None:
        """Return when a run of an execution ended, and what somebody asked for who ended it, if somebody did.

        None for a run that has not ended.
        """
        ends = self._ends[execution_id]
        return ends[number - 1] if number <= len(ends) else None

    def was_cancelled(self, execution_id: UUID) -> bool:
        """Return whether any run of an execution was cancelled."""
        return any(how for _, how in self._ends[execution_id])

    def begins_between(self, execution_id: UUID, begin: float, end: float) -> bool:
        """Return whether an execution was reopened in a span of time."""
        return any(begin <= time <= end for time in self._begins[execution_id])
