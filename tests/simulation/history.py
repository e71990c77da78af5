"""What was seen from outside the product: the witness whose word the checker takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from persistence.model import Event
from persistence.transition import CommitResult


@dataclass(frozen=True, slots=True)
class Write:
    """A transition that reached the store, with the times of its decision and of its commit."""

    execution_id: UUID
    process: str
    incarnation: UUID
    epoch: int
    base_seq: int
    events: tuple[Event, ...]
    decided: float
    committed: float
    result: CommitResult | None
    has_changed_row: bool
    consumed: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """An execution that was taken."""

    execution_id: UUID
    incarnation: UUID
    epoch: int
    time: float


@dataclass(slots=True)
class Call:
    """An effect: one call of a handler."""

    execution_id: UUID
    path: str
    attempt: int
    token: str
    process: str
    incarnation: UUID | None
    epoch: int
    begun: float
    iteration: int = 1
    given: Any = None
    """What it was called with."""
    is_harmless: bool = False
    """Whether its handler declares that it has no effect outside."""
    ended: float | None = None
    stopped: float | None = None
    """When it was told to stop."""
    outcome: str = ""


@dataclass(slots=True)
class Answer:
    """What a caller was told: of `order`, ok / definite / unknown, and what."""

    kind: str
    order: int
    time: float
    outcome: str
    execution_id: UUID | None = None
    detail: str = ""
    is_changed: bool = False
    path: str = ""
    """Of the step whose task was completed."""
    iteration: int = 1


@dataclass(slots=True)
class Stream:
    """What one watcher got over all of its connections."""

    order: int
    execution_id: UUID
    events: list[Event] = field(default_factory=list)
    has_ended: bool = False
    problems: list[str] = field(default_factory=list)
    connections: int = 0


@dataclass(slots=True)
class History:
    """All of it."""

    writes: list[Write] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    messages: dict[tuple[UUID, UUID, int], float] = field(default_factory=dict)
    """When what was sent to an execution was kept, by its id, that of the message, and the run of the execution."""
    bulk_messages: dict[tuple[UUID, UUID], list[float]] = field(default_factory=dict)
    """When an operation in bulk sent an execution its message, by their ids."""
    calls: list[Call] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    disturbances: list[tuple[str, float, float]] = field(default_factory=list)
    """Process, or "store", and from when to when it could not work."""
    pauses: list[tuple[str, float, float]] = field(default_factory=list)
    halts: list[tuple[int, float, float]] = field(default_factory=list)
    """Pauses of workflows, by the numbers of these: when each was answered, and its resume asked for."""
    """Process, and from when to when it stood still."""
    deaths: dict[str, float] = field(default_factory=dict)
    """When each process ended."""
    problems: list[str] = field(default_factory=list)
    """Violations that were seen as they happened."""
    landed: list[str] = field(default_factory=list)
    """Faults that hit something that was going on."""
    trace: list[tuple[Any, ...]] = field(default_factory=list)

    def note(self, time: float, *what: Any) -> None:
        """Add a line to the trace."""
        self.trace.append((time, *what))

    def lines(self) -> list[str]:
        """Return the trace as text."""
        return [f"{entry[0]:10.4f}  " + "  ".join(map(str, entry[1:])) for entry in self.trace]
