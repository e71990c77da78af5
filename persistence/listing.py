"""What lists of a store hold, in which order, and where a page begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from persistence.model import ExecutionState, StepState


@dataclass(frozen=True, slots=True)
class WorkflowFilter:
    """Which workflows a list holds."""

    name_prefix: str = ""
    tags: Sequence[str] = ()


class ExecutionOrder(StrEnum):
    """Order of a list. Equal keys are ordered newest first."""

    NEWEST = "NEWEST"
    LONGEST = "LONGEST"
    LAST_ENDED = "LAST_ENDED"


@dataclass(frozen=True, slots=True)
class ExecutionFilter:
    """Which executions a list holds: all conditions must hold, an empty one always does.

    `workflow` is an id or a name. Ranges include their begin and exclude their end, but for that of ids, which includes
    both: all ids that begin alike are one. `source` is the execution that they were made from. `is_dry_run` is None for
    all.
    """

    workflow: str = ""
    states: Sequence[ExecutionState] = ()
    owner: str = ""
    tags: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    correlation_id: str = ""
    created_from: datetime | None = None
    created_until: datetime | None = None
    ended_from: datetime | None = None
    ended_until: datetime | None = None
    lowest_id: UUID | None = None
    highest_id: UUID | None = None
    source: UUID | None = None
    is_dry_run: bool | None = None


@dataclass(frozen=True, slots=True)
class StepFilter:
    """Which steps a list holds: both conditions must hold, an empty one always does."""

    states: frozenset[StepState] = frozenset()
    handler: str = ""


class StepPlace(NamedTuple):
    """Where a step stands in a list, as `Step` has it: item by item, behind the step that runs them."""

    position: int
    items: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PageKey:
    """Position in an ordered list: the sort value of the last row seen (None for NEWEST, or unreadable) and its id."""

    value: float | datetime | None
    id: UUID
