"""In which order executions are claimed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from persistence.memory.tables import ExecutionRow
from persistence.model import Execution


def waits_since(execution: Execution) -> datetime:
    """Return since when an execution that nobody drives may be taken."""
    return execution.wake_time or execution.create_time


def in_turn(rows: Iterable[ExecutionRow]) -> list[ExecutionRow]:
    """Return the rows by priority, of each the first of every org, then the second; what a death left comes first."""
    turns: Counter[tuple[int, str]] = Counter()
    placed = []
    for place, row in enumerate(rows):
        execution = row.execution
        if execution.incarnation is None:
            turns[execution.priority, execution.org] += 1
        turn = turns[execution.priority, execution.org] if execution.incarnation is None else 0
        placed.append((-execution.priority, turn, place, row))
    return [row for *_, row in sorted(placed, key=lambda each: each[:3])]


def deaths(execution: Execution) -> int:
    """Return the deaths that the execution comes to when it is taken now."""
    return execution.deaths + (execution.incarnation is not None)
