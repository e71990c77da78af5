"""Small workflows for the planner."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from persistence.dry_runs import DryRun, Mock, MockFailure
from service.engine.definition import (
    Action,
    Block,
    Call,
    Definition,
    OnItemError,
    Ordering,
    Repeat,
    StepSpec,
)
from service.engine.expressions import Template, compile_condition, compile_value
from service.engine.parsing.sources import IN_ASSIGN, IN_PARAMS, VARIABLES

OF_ITEM = frozenset({"item", "index", "previous"})
"""What expressions see beyond the rest in the body of a `for_each`; here they may be written anywhere."""

DRY_RUNS = [
    *(None,) * 7,
    DryRun(handlers={"work": Mock({"absent": 1}), "wait_signal": Mock(7)}, skips_waits=True),
    DryRun(
        mocks={"s1": Mock(None, MockFailure("NEVER", times=1)), "s0": Mock(failure=MockFailure("X", retryable=True))},
        default=Mock(1),
        defaulted=("s2", "s3.a0"),
    ),
]
"""What executions of random workflows may be given; most are no dry runs."""


def seconds(number: float) -> timedelta:
    """Return a span of time."""
    return timedelta(seconds=number)


def step(step_id: str, *, action: Action | None = None, params: Any = None, **fields: Any) -> StepSpec:
    """Return a step whose expressions are given as text."""
    return _step(step_id, action or Call("work", Template.parse(params or {}, IN_PARAMS | OF_ITEM)), **fields)


def each(
    step_id: str,
    items: str,
    *steps: StepSpec,
    ordering: Ordering = Ordering.SEQUENTIAL,
    output: Any = None,
    limit: int = 10,
    on_item_error: OnItemError = OnItemError.STOP,
    until: str = "",
    **fields: Any,
) -> StepSpec:
    """Return a step that runs others for each item of a list; with `until`, one after the other until that is true."""
    template = None if output is None else Template.parse(output, VARIABLES | OF_ITEM, "output")
    items_of = compile_value(items, VARIABLES | OF_ITEM)
    end = compile_condition(until, VARIABLES | OF_ITEM) if until else None
    action = Repeat(items_of, Block(steps, ordering, template), 1 if until else limit, on_item_error, end)
    return _step(step_id, action, **fields)


def _step(
    step_id: str,
    action: Action,
    *,
    condition: str = "",
    assign: Mapping[str, str] | None = None,
    **fields: Any,
) -> StepSpec:
    return StepSpec(
        id=step_id,
        action=action,
        timeout=fields.pop("timeout", 300.0),
        condition=compile_condition(condition, VARIABLES | OF_ITEM) if condition else None,
        assign=tuple((name, compile_value(source, IN_ASSIGN | OF_ITEM)) for name, source in (assign or {}).items()),
        **fields,
    )


def sequence(*steps: StepSpec, output: Any = None, timeout: float = 3600.0) -> Definition:
    """Return a workflow whose steps run one after the other."""
    return _workflow(Ordering.SEQUENTIAL, steps, output, timeout)


def graph(*steps: StepSpec, output: Any = None, timeout: float = 3600.0) -> Definition:
    """Return a workflow whose steps run when all that they depend on has ended."""
    return _workflow(Ordering.GRAPH, steps, output, timeout)


def _workflow(ordering: Ordering, steps: tuple[StepSpec, ...], output: Any, timeout: float) -> Definition:
    template = None if output is None else Template.parse(output, VARIABLES, "output")
    return Definition("test", Block(steps, ordering, template), timeout)
