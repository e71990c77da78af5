"""What a handler is to the engine.

What handlers are written against, and people's files import, is `flowkeep.handlers` of the client distribution. The
engine takes it from here, and nowhere else.

HandlerError        a handler failed, with a code of its own
HandlerLoadError    a module named at start gives no handlers
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec

from flowkeep.handlers import Effect, HandlerError, StepContext, Suspend, handler
from flowkeep.handlers.declaration import Declaration, declarations
from flowkeep.handlers.errors import rebuilt
from service.engine.definition import Action
from service.engine.expressions import Expression, Template
from service.engine.handlers.queues import Place
from service.engine.handlers.threads import Slots, threads
from service.engine.schema import Problem, Schema, locate
from service.engine.schema_places import Path
from service.engine.schema_weight import weigh
from service.engine.wishes import Wishes

__all__ = [
    "OF_ANSWER",
    "Declaration",
    "Effect",
    "Handler",
    "HandlerError",
    "HandlerLoadError",
    "Params",
    "Source",
    "StepContext",
    "Suspend",
    "declarations",
    "handler",
    "rebuilt",
]


OF_ANSWER = frozenset({"status", "headers", "body"})
"""What CEL about an answer of HTTP sees."""


class HandlerLoadError(Exception):
    """A module, file or entry point gives no handlers; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Source:
    """CEL among the params of a step, to be compiled and checked with the workflow. A condition gives a bool.

    `names` are the variables that it sees in place of those of the execution: its handler evaluates it.
    """

    path: Path
    text: str
    is_condition: bool = False
    names: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Params:
    """The params of a step as they are compiled: as written, as a template, and the CEL among them by its path."""

    given: Mapping[str, Any]
    template: Template
    cel: Mapping[Path, Expression]


async def _by_the_planner(params: Mapping[str, Any], context: StepContext) -> Any:
    raise TypeError("the planner runs this step itself")


@dataclass(frozen=True)
class Handler:
    """What a step can run. `run` gets params that `validate` found right, and returns JSON or a Suspend.

    One without `run` is run by the planner itself: `compile` makes an action of params without a fault. Where it is not
    `is_templated`, they are compiled with the workflow as they stand, and hold no templates.

    `check` finds what the schema cannot say, in params that meet it, except that while a workflow is checked any string
    may stand where a template does. `sources` finds CEL, in any params. `credentials` finds, in params that are right,
    what is a secret beside that which the schema marks as `writeOnly`. `close` frees what `run` keeps open.
    `is_threaded`: it runs in a thread, or in what else `slots` are of, which an attempt must have before it begins.
    `queue_up` gives a place in the queue for a worker that meets wishes: only handlers of workers have it. What does
    not look at its context, and says so by `takes_context`, may be given anything in its place: to make one costs more
    than most calls.
    """

    name: str
    run: Callable[[Mapping[str, Any], StepContext], Awaitable[Any]] = _by_the_planner
    description: str = ""
    params_schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "object"})
    effect: Effect = Effect.IDEMPOTENT
    check: Callable[[Mapping[str, Any]], Iterable[Problem]] | None = None
    sources: Callable[[Mapping[str, Any]], Iterable[Source]] | None = None
    credentials: Callable[[Mapping[str, Any]], Iterable[Path]] | None = None
    close: Callable[[], Awaitable[None]] | None = None
    is_threaded: bool = False
    slots: Callable[[], Slots] = threads
    takes_context: bool = True
    compile: Callable[[Params], Action] | None = None
    is_templated: bool = True
    queue_up: Callable[[Wishes], Place] | None = None

    @property
    def is_remote(self) -> bool:
        """Whether workers run it."""
        return self.queue_up is not None

    @property
    def is_unseen(self) -> bool:
        """Whether nobody can tell how often an attempt is made, or whether it is.

        A worker can, and is never given two by one name.
        """
        return self.effect is Effect.NONE and not self.is_remote

    def validate(self, params: Mapping[str, Any], opaque: Collection[Path] = ()) -> list[tuple[str, str]]:
        """Return all that is wrong with `params`, with templates filled in: path in them and message."""
        return [(locate("", problem.path), problem.message) for problem in self.problems(params, opaque)]

    def problems(self, params: Mapping[str, Any], opaque: Collection[Path] = ()) -> list[Problem]:
        """Return all that is wrong with `params`. `opaque` are the paths of templates, which are not judged."""
        problems = self._schema.problems(params, opaque)
        if problems or self.check is None:
            return problems
        hidden = set(opaque)
        return [
            problem
            for problem in self.check(params)
            if not any(problem.path[:length] in hidden for length in range(len(problem.path) + 1))
        ]

    @cached_property
    def has_marks(self) -> bool:
        """Whether the schema marks anything as `writeOnly`."""
        return b'"writeOnly":true' in msgspec.json.encode(self.params_schema)

    @cached_property
    def _schema(self) -> Schema:
        # Whatever it weighs, it is the server's own; the params that it is for are not.
        return Schema(self.params_schema, weigh(self.params_schema, is_bounded=False))
