"""Breakpoints, wire to domain and back."""

from __future__ import annotations

from collections.abc import Iterable, MutableSequence

from flowkeep.v1.execution_pb2 import Breakpoint as BreakpointMessage
from persistence.breakpoints import Breakpoint


def read_breakpoints(given: Iterable[BreakpointMessage]) -> tuple[Breakpoint, ...]:
    """Return what messages tell."""
    return tuple(Breakpoint(each.path, each.condition) for each in given)


def put_breakpoints(target: MutableSequence[BreakpointMessage], points: Iterable[Breakpoint]) -> None:
    """Tell where an execution is held."""
    target.extend(BreakpointMessage(path=point.path, condition=point.condition) for point in points)
