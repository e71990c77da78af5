"""A parsed, checked workflow: frozen values that the planner reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, ClassVar
from uuid import UUID

from service.engine import paths
from service.engine.expressions import Expression, Template
from service.engine.wishes import NONE, Wishes, WorkerSelector

LEAST_PAUSE = 0.01
"""Seconds between two attempts: an execution that fails without end leaves the others their time."""

PREVIOUS = "previous"
"""What the steps of a round see the steps of the one before as."""

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


class OnItemError(StrEnum):
    """What happens when a step of an item has failed for good."""

    STOP = "STOP"
    COLLECT = "COLLECT"


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
class Call:
    """A handler runs the step, in attempts."""

    handler: str
    params: Template

    @property
    def size(self) -> int:
        """About how many bytes of memory its expressions take."""
        return self.params.size


@dataclass(frozen=True, slots=True)
class Transform:
    """The planner computes the output."""

    handler: ClassVar[str] = "transform"
    value: Expression | Template

    @property
    def size(self) -> int:
        """About how many bytes of memory its expressions take."""
        return self.value.size


@dataclass(frozen=True, slots=True)
class Decide:
    """The planner finds the first outcome that holds, the one without an expression in any case.

    When none does, the outcome is `otherwise`, and not matched.
    """

    handler: ClassVar[str] = "condition"
    outcomes: tuple[tuple[str, Expression | None], ...]
    otherwise: str

    @property
    def size(self) -> int:
        """About how many bytes of memory its expressions take."""
        return sum(expression.size for _, expression in self.outcomes if expression is not None)


@dataclass(frozen=True, slots=True)
class Pause:
    """The planner lets the step wait for the time that the parameters tell."""

    handler: ClassVar[str] = "wait"
    params: Template

    @property
    def size(self) -> int:
        """About how many bytes of memory its expressions take."""
        return self.params.size


@dataclass(frozen=True, slots=True)
class Ask:
    """The planner makes a task for people, and lets the step wait for the one who completes it."""

    handler: ClassVar[str] = "create_task"
    params: Template

    @property
    def size(self) -> int:
        """About how many bytes of memory its expressions take."""
        return self.params.size


@dataclass(frozen=True, slots=True)
class Listen:
    """The planner lets the step wait for signals."""

    handler: ClassVar[str] = "wait_signal"
    params: Template

    @property
    def size(self) -> int:
        """About how many bytes of memory its expressions take."""
        return self.params.size


def index_name(item_name: str) -> str:
    """Return what expressions see the number of an item as that they see by this name."""
    return "index" if item_name == "item" else f"{item_name}_index"


@dataclass(frozen=True, slots=True)
class Repeat:
    """The planner runs a block for each item of a list, so many at a time; with `until`, in rounds until that is true.

    Of rounds, each begins when the one before has ended, sees its steps as `previous`, and nobody knows how many there
    will be. `gives_last`: the output is that of the last one, null if there is none, and not the list of all. The body
    sees an item as `item_name`.
    """

    handler: ClassVar[str] = "for_each"
    items: Expression
    body: Block
    max_parallel: int = 10
    on_item_error: OnItemError = OnItemError.STOP
    until: Expression | None = None
    gives_last: bool = False
    item_name: str = "item"

    @property
    def index_name(self) -> str:
        """What the body sees the number of an item as."""
        return index_name(self.item_name)

    @property
    def size(self) -> int:
        """About how many bytes of memory its own expressions take, those of the body aside."""
        own = self.body.output, self.until
        return self.items.size + sum(each.size for each in own if each is not None)


Action = Call | Transform | Decide | Pause | Ask | Listen | Repeat
"""What a step does. All but a Call are run by the planner itself, without attempts."""


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One node of a workflow; times in seconds. `depends_on` is as written, empty with SEQUENTIAL.

    `worker` says which workers may run it, if workers have its handler.
    """

    id: str
    action: Action
    timeout: float
    display_name: str = ""
    depends_on: tuple[str, ...] = ()
    condition: Expression | None = None
    retry: RetryPolicy = RetryPolicy()
    on_error: OnError = OnError.STOP
    assign: tuple[tuple[str, Expression], ...] = ()
    delivery: Delivery = Delivery.AT_LEAST_ONCE
    total_timeout: float | None = None
    worker: WorkerSelector | None = None

    def wishes(self, execution_id: UUID) -> Wishes:
        """Return what the step of an execution wishes of a worker."""
        return NONE if self.worker is None else self.worker.wishes(execution_id)

    @property
    def handler(self) -> str:
        """The name of what it runs, as it is shown to people."""
        return self.action.handler


@dataclass(frozen=True)
class Block:
    """Steps that run together: the root of a definition, or the body of a `for_each`. Ids are unique in it.

    Without an `output`, the output is that of the last steps, as the ordering says.
    """

    steps: tuple[StepSpec, ...]
    ordering: Ordering = Ordering.SEQUENTIAL
    output: Template | None = None

    @cached_property
    def by_id(self) -> Mapping[str, StepSpec]:
        """The steps by id."""
        return {step.id: step for step in self.steps}

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


@dataclass(frozen=True)
class Definition:
    """A workflow that passed every check. `document` is the canonical JSON it was parsed from.

    `max_bytes` is what an execution of it may write.
    """

    name: str
    root: Block
    timeout: float
    description: str = ""
    tags: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    input_schema: Mapping[str, Any] | None = None
    default_priority: int = 0
    document: Mapping[str, Any] = field(default_factory=dict)
    max_bytes: int = MAX_BYTES

    @cached_property
    def blocks(self) -> Mapping[str, Block]:
        """The blocks by the place of the step that runs them; the place of the root is empty."""
        return dict(_blocks("", self.root))

    @cached_property
    def places(self) -> Mapping[str, StepSpec]:
        """The steps of all blocks by their places, such as `fan_out.fetch`: each before those of its body."""
        return dict(_places("", self.root))

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """What number each place has in the order of `places`, from 1."""
        return {place: position for position, place in enumerate(self.places, start=1)}

    @cached_property
    def variables(self) -> frozenset[str]:
        """The names of the variables that steps assign."""
        return frozenset(name for spec in self.places.values() for name, _ in spec.assign)

    def find(self, path: str) -> StepSpec | None:
        """Return the step that has the path `path` in executions, None if there is none."""
        # Behind each step around it stands the number of an item; a path that was written by hand may have others.
        return self.places.get(paths.place(path)) if path.count("[") == path.count(".") else None


def _places(place: str, block: Block) -> Iterator[tuple[str, StepSpec]]:
    for step in block.steps:
        at = paths.join(place, step.id)
        yield at, step
        if isinstance(step.action, Repeat):
            yield from _places(at, step.action.body)


def _blocks(place: str, block: Block) -> Iterator[tuple[str, Block]]:
    yield place, block
    for step in block.steps:
        if isinstance(step.action, Repeat):
            yield from _blocks(paths.join(place, step.id), step.action.body)
