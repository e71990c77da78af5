"""Where an execution is held before a step begins, as both stores keep it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec
from msgspec.structs import replace

from persistence.errors import PersistenceError


class Breakpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """Holds an execution before a step begins: the one at this place of the definition, or at this path of an item.

    `condition` is one in CEL on what the step would be called with, empty for always.
    """

    path: str
    condition: str = ""


class Halt(StrEnum):
    """How far an execution goes that is debugged. The names are what the database holds."""

    NONE = ""
    """To the next breakpoint."""

    NEXT = "NEXT"
    """To whatever step begins next."""

    STEP = "STEP"
    """To one step, or to the next breakpoint."""


class Breakpoints(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where an execution is held: at `points`, as `by` wants it, each time; and once, before the next step or before
    `step`, as `let_on_by` wants it, who has resumed it.
    """

    by: str
    points: tuple[Breakpoint, ...] = ()
    halt: Halt = Halt.NONE
    step: str = ""
    let_on_by: str = ""


class WorkflowBreakpoints(msgspec.Struct, frozen=True):
    """Where the next executions of a workflow are held, as `by` wants it: so many as are `left`, until a time."""

    id: UUID
    by: str
    points: tuple[Breakpoint, ...]
    time: datetime
    left: int
    until: datetime


class BreakpointsMetError(PersistenceError):
    """A new execution is to take up other breakpoints of its workflow than it does, or none; nothing was written."""

    def __init__(self, pending: WorkflowBreakpoints | None) -> None:
        super().__init__("the breakpoints of the workflow have changed")
        self.pending = pending


def fits(takes: UUID | None, own: Breakpoints | None, pending: WorkflowBreakpoints | None) -> bool:
    """Return whether a new execution takes up what its workflow has for it: it `takes` this, or has its `own`."""
    if takes is not None:
        return pending is not None and pending.id == takes
    return pending is None or own is not None


def halting(kept: Breakpoints | None, by: str, halt: Halt = Halt.NONE, step: str = "") -> Breakpoints | None:
    """Return where an execution is held that somebody lets go on so far; None when it is held nowhere."""
    if halt is Halt.NONE:
        return replace(kept, halt=halt, step="", let_on_by="") if kept is not None and kept.points else None
    return replace(kept or Breakpoints(by), halt=halt, step=step, let_on_by=by)


def halted(kept: Breakpoints | None) -> Breakpoints | None:
    """Return where an execution is held after it was held once."""
    return halting(kept, "")


def setting(kept: Breakpoints | None, by: str, points: tuple[Breakpoint, ...]) -> Breakpoints | None:
    """Return where an execution is held after somebody has set its breakpoints; None, where these are none."""
    return replace(kept or Breakpoints(by), by=by, points=points) if points else None
