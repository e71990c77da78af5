"""Breakpoints, wire to domain and back."""

from __future__ import annotations

from collections.abc import Iterable, MutableSequence

from flowkeep.v1.execution_pb2 import Breakpoint as BreakpointMessage
from flowkeep.v1.workflow_breakpoints_pb2 import WorkflowBreakpoints
from persistence.breakpoints import Breakpoint
from persistence.model import Workflow
from service.api.times import timestamp


def read_breakpoints(given: Iterable[BreakpointMessage]) -> tuple[Breakpoint, ...]:
    """Return what messages tell."""
    return tuple(Breakpoint(each.path, each.condition) for each in given)


def put_breakpoints(target: MutableSequence[BreakpointMessage], points: Iterable[Breakpoint]) -> None:
    """Tell where an execution is held."""
    target.extend(BreakpointMessage(path=point.path, condition=point.condition) for point in points)


def next_breakpoints(workflow: Workflow) -> WorkflowBreakpoints | None:
    """Return where the next executions of a workflow are held, None for nowhere."""
    if (kept := workflow.breakpoints) is None:
        return None
    message = WorkflowBreakpoints(breakpoints_id=str(kept.id), set_by=kept.by, executions_left=kept.left)
    put_breakpoints(message.breakpoints, kept.points)
    message.set_time.CopyFrom(timestamp(kept.time))
    message.expire_time.CopyFrom(timestamp(kept.until))
    return message
