"""Random workflows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from service.engine.definition import (
    Decide,
    Definition,
    Delivery,
    Listen,
    OnError,
    OnItemError,
    Ordering,
    Pause,
    RetryPolicy,
    StepSpec,
    Transform,
)
from service.engine.expressions import Template, compile_condition, compile_value
from service.engine.parsing.sources import VARIABLES
from tests.unit.planner_definitions import each, graph, sequence, step

Draw = Callable[[st.SearchStrategy[Any]], Any]

_LISTENING: list[dict[str, Any]] = [
    {"name": "x"},
    {"name": "x", "schema": {"required": ["n"]}, "timeout": 4},
    {"signals": [{"name": "x"}, {"name": "y"}], "wait_for": "FIRST", "timeout": 4, "on_timeout": "CONTINUE"},
    {"signals": [{"name": "x"}, {"name": "y"}], "timeout": 9, "on_timeout": "CONTINUE"},
]

# What comes first is what failing examples shrink to; what is listed twice is drawn more often.
_EXTRAS: list[dict[str, Any]] = [
    *({},) * 6,
    *({"assign": {"x": "result"}},) * 3,
    *({"assign": {"x": "attempt", "y": "steps.size()"}},) * 2,
    *({"params": {"n": "${ attempt }", "x": "${ has(vars.x) ? vars.x : null }"}},) * 4,
    *({"total_timeout": 1.5},) * 2,
    *({"action": Transform(Template.parse({"n": "${ steps.size() }"}, VARIABLES))},) * 2,
    {
        "action": Decide((("x", compile_condition("has(vars.x)", VARIABLES)),), "none"),
        "assign": {"x": "result.matched"},
    },
    *({"action": Pause(Template.constant({"duration": duration}, "params"))} for duration in (0, 4, 9)),
    *({"action": Listen(Template.constant(params, "params"))} for params in _LISTENING),
    {"action": Transform(compile_value("input.absent", VARIABLES))},
    {"assign": {"x": "result.absent"}},
    {"params": {"x": "${ attempt < 2 ? 1 : input.absent }"}},
    {"params": {"x": "${ input.absent }"}},
    {"params": {"x": "${ has(steps.a0) ? index : 0 }"}},
    {"params": {"x": "${ index == 0 ? null : previous.a0 }"}},
]
_CONDITIONS = [""] * 8 + ["true", "false", "false", "input.absent"]
_ON_ERROR = [OnError.CONTINUE] * 6 + [OnError.STOP, OnError.RETRY]
_IS_EACH = [False] * 3 + [True]
_DEEPEST = 2
_LISTS = [*["[1]", "[1, 2]", "[1, 2, 3]"] * 2, "[1, 2, 3, 4, 5]", "[]", "input.absent", "input.a"]
_ITEM_OUTPUTS = [None, "${ item + index }", "${ vars }", "${ steps.a0.output }", "${ input.absent }"]
_UNTIL = [
    *[""] * 4,
    "index == 1",
    "has(vars.x)",
    "true",
    "input.absent",
    "steps.exists(id, steps[id].state == 'SKIPPED')",
]
_OUTPUTS = [None, None, "${ vars }", "${ steps.s0.output }", "${ input.absent }"]


@st.composite
def workflows(draw: Draw) -> Definition:
    """Return any workflow of up to 12 steps, those aside that run for items."""
    is_graph = draw(st.booleans())
    steps = _steps(draw, "s", 12, is_graph=is_graph, depth=0)
    output = draw(st.sampled_from(_OUTPUTS))
    timeout = draw(st.sampled_from([3600.0, 3600.0, 3600.0, 3600.0, 30.0]))
    return (graph if is_graph else sequence)(*steps, output=output, timeout=timeout)


def _steps(draw: Draw, name: str, most: int, *, is_graph: bool, depth: int) -> list[StepSpec]:
    steps: list[StepSpec] = []
    for index in range(draw(st.integers(1, most))):
        before = [s.id for s in steps] if is_graph else []
        waits = tuple(draw(st.lists(st.sampled_from(before), unique=True, max_size=3))) if before else ()
        seen = waits if is_graph or not steps else (steps[-1].id,)
        if depth < _DEEPEST and draw(st.sampled_from(_IS_EACH)):
            steps.append(_each(draw, f"{name}{index}", seen if is_graph else (), depth))
        else:
            steps.append(_step(draw, f"{name}{index}", seen, is_graph))
    return list(draw(st.permutations(steps))) if is_graph else steps


def _each(draw: Draw, step_id: str, depends_on: tuple[str, ...], depth: int) -> StepSpec:
    is_graph = draw(st.booleans())
    return each(
        step_id,
        draw(st.sampled_from(_LISTS)),
        *_steps(draw, "abc"[depth], 3, is_graph=is_graph, depth=depth + 1),
        ordering=Ordering.GRAPH if is_graph else Ordering.SEQUENTIAL,
        output=draw(st.sampled_from(_ITEM_OUTPUTS)),
        limit=draw(st.integers(1, 3)),
        on_item_error=draw(st.sampled_from(OnItemError)),
        until=draw(st.sampled_from(_UNTIL)),
        on_error=draw(st.sampled_from([OnError.CONTINUE, OnError.STOP])),
        condition=draw(st.sampled_from(["", "", "", "false"])),
        depends_on=depends_on,
        assign=draw(st.sampled_from([{}, {}, {"x": "result.size()"}])),
    )


def _step(draw: Draw, step_id: str, seen: tuple[str, ...], is_graph: bool) -> StepSpec:
    conditions = [*_CONDITIONS, *(f'steps.{s}.state == "COMPLETED"' for s in seen)]
    reading = [{"params": {"x": f"${{ steps.{s}.output }}"}, "assign": {"z": f"steps.{s}.error"}} for s in seen]
    attempts = draw(st.integers(1, 3))
    on_error = draw(st.sampled_from(_ON_ERROR))
    may_be_once = attempts == 1 and on_error is not OnError.RETRY
    retry = RetryPolicy(max_attempts=attempts, non_retryable_codes=frozenset({"NEVER"}))
    return step(
        step_id,
        condition=draw(st.sampled_from(conditions)),
        depends_on=seen if is_graph else (),
        on_error=on_error,
        retry=retry,
        delivery=draw(st.sampled_from(Delivery)) if may_be_once else Delivery.AT_LEAST_ONCE,
        **draw(st.sampled_from([*_EXTRAS, *2 * reading])),
    )
