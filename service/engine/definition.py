"""A parsed, checked workflow: frozen values that the planner reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from service.engine.expressions import Expression, Template

LEAST_PAUSE = 0.01
"""Seconds between two attempts: an execution that fails without end leaves the others their time."""

MAX_BYTES = 64 << 20
"""Bytes that an execution may write where the settings say nothing."""


class Ordering(StrEnum):
    """How the order of steps is decided."""

    SEQUENTIAL = "SEQUENTIAL"
    GRAPH = "GRAPH"


class OnError(StrEnum):
    """What happens when a step has failed for good."""

    STOP = "STOP"
    CONTINUE = "CONTINUE"
    RETRY = "RETRY"


class Delivery(StrEnum):
    """What is guaranteed of the number of times a handler is called."""

    AT_LEAST_ONCE = "AT_LEAST_ONCE"
    AT_MOST_ONCE = "AT_MOST_ONCE"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and when a failed attempt is repeated; times in seconds."""

    max_attempts: int = 1
    initial_interval: float = 1.0
    backoff_coefficient: float = 2.0
    max_interval: float = 60.0
    jitter: float = 0.1
    non_retryable_codes: frozenset[str] = frozenset()

    def pause(self, failed_attempt: int, draw: float) -> float:
        """Return the seconds between attempt `failed_attempt` and the next; `draw` in [0, 1) places the jitter."""
        try:
            pause = self.initial_interval * self.backoff_coefficient ** (failed_attempt - 1)
        except OverflowError:
            pause = self.max_interval
        return max(LEAST_PAUSE, min(pause, self.max_interval) * (1.0 + self.jitter * (2.0 * draw - 1.0)))


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One node of a workflow; times in seconds. `depends_on` is as written, empty with SEQUENTIAL."""

    id: str
    handler: str
    params: Template
    timeout: float
    display_name: str = ""
    depends_on: tuple[str, ...] = ()
    condition: Expression | None = None
    retry: RetryPolicy = RetryPolicy()
    on_error: OnError = OnError.STOP
    assign: tuple[tuple[str, Expression], ...] = ()
    delivery: Delivery = Delivery.AT_LEAST_ONCE
    total_timeout: float | None = None


@dataclass(frozen=True)
class Definition:
    """A workflow that passed every check. `document` is the canonical JSON it was parsed from.

    `max_bytes` is what an execution of it may write.
    """

    name: str
    steps: tuple[StepSpec, ...]
    timeout: float
    ordering: Ordering = Ordering.SEQUENTIAL
    description: str = ""
    tags: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    input_schema: Mapping[str, Any] | None = None
    default_priority: int = 0
    output: Template | None = None
    document: Mapping[str, Any] = field(default_factory=dict)
    max_bytes: int = MAX_BYTES

    @cached_property
    def by_id(self) -> Mapping[str, StepSpec]:
        """The steps by id."""
        return {step.id: step for step in self.steps}

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """The places of the steps, from 1, by id."""
        return {step.id: place for place, step in enumerate(self.steps, start=1)}

    @cached_property
    def predecessors(self) -> Mapping[str, tuple[str, ...]]:
        """Ids of the steps that must have ended before a step may start."""
        if self.ordering is Ordering.GRAPH:
            return {step.id: step.depends_on for step in self.steps}
        before = ((), *((step.id,) for step in self.steps))
        return {step.id: waits for step, waits in zip(self.steps, before, strict=False)}

    @cached_property
    def successors(self) -> Mapping[str, tuple[str, ...]]:
        """Ids of the steps that wait for a step, in the order of the definition."""
        found: dict[str, list[str]] = {step.id: [] for step in self.steps}
        for step in self.steps:
            for before in self.predecessors[step.id]:
                found[before].append(step.id)
        return {step_id: tuple(after) for step_id, after in found.items()}

    @cached_property
    def sinks(self) -> tuple[str, ...]:
        """Ids of the steps that no other waits for."""
        return tuple(step.id for step in self.steps if not self.successors[step.id])
