"""Where an execution is held before a step begins, as both stores keep it."""

from __future__ import annotations

from enum import StrEnum

import msgspec
from msgspec.structs import replace


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
    """Where `by` wants an execution held: at `points`, each time; and once, before the next step or before `step`."""

    by: str
    points: tuple[Breakpoint, ...] = ()
    halt: Halt = Halt.NONE
    step: str = ""


def halting(kept: Breakpoints | None, by: str, halt: Halt = Halt.NONE, step: str = "") -> Breakpoints | None:
    """Return where an execution is held that somebody lets go on so far; None when it is held nowhere."""
    points = kept.points if kept is not None else ()
    if halt is Halt.NONE:
        return replace(kept, halt=halt, step="") if kept is not None and points else None
    return Breakpoints(by, points, halt, step)


def halted(kept: Breakpoints | None) -> Breakpoints | None:
    """Return where an execution is held after it was held once."""
    return halting(kept, "")


def setting(by: str, points: tuple[Breakpoint, ...]) -> Breakpoints | None:
    """Return where an execution is held after somebody has set its breakpoints; None for nowhere."""
    return Breakpoints(by, points) if points else None
