"""Of an execution with very many steps nothing is made in one piece, and it comes out as it does in one go."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from persistence.model import ExecutionDetail, StepState
from service.engine.definition import Definition
from service.engine.planning.assigned import gathering_variables
from service.engine.planning.inheriting import inheriting
from service.engine.planning.outline import outlining
from service.engine.planning.reading import wanting
from service.engine.planning.restoring import restoring
from service.engine.planning.state import newest
from service.engine.running.soundness import contradicting
from service.engine.slices import SLICE, Work, in_one_go
from tests.unit.planner_definitions import each, sequence, step
from tests.unit.planner_programs import Driver, started

MANY = 5_000
WORKS: dict[str, Callable[[Definition, ExecutionDetail], Work[object]]] = {
    "what is read to drive it": wanting,
    "what contradicts itself": contradicting,
    "its state": lambda definition, detail: restoring(definition, detail, ""),
    "its outline": lambda _, detail: outlining(detail),
    "what is inherited of it": lambda definition, detail: inheriting(definition, newest(detail.steps), "e"),
    "its variables": lambda _, detail: gathering_variables(detail),
}


def many() -> tuple[Definition, ExecutionDetail]:
    """An execution in which so many items have ended."""
    driver: Driver = started(sequence(each("e", "input.items", step("x"))), {"items": [0] * MANY})
    detail = driver.stored
    around, first = sorted(detail.steps, key=lambda step: step.path)[:2]
    ended = replace(first, state=StepState.COMPLETED)
    items = (replace(ended, path=f"e[{n}].x", items=(n, 1), end_seq=n + 5, assigned={"v": n}) for n in range(MANY))
    return driver.definition, replace(detail, steps=(around, *items))


@pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)
def test_it_is_made_in_pieces(work: Callable[[Definition, ExecutionDetail], Work[object]]) -> None:
    pieces = list(work(*many()))
    assert len(pieces) >= MANY / 500
    assert max(pieces) < SLICE


def test_the_newest_iteration_of_each_step_is_found_in_whatever_order_they_come() -> None:
    one, two = (step for step in many()[1].steps if step.path in ("e[0].x", "e[1].x"))
    again = replace(one, iteration=2)
    for steps in ([one, again, two], [again, one, two]):
        assert newest(steps) == {one.path: again, two.path: two}


def test_variables_are_as_the_last_step_left_them_in_the_order_in_which_they_came() -> None:
    one, two = (step for step in many()[1].steps if step.path in ("e[0].x", "e[1].x"))
    late, early = replace(one, end_seq=9, assigned={"v": 1, "w": 2}), replace(two, end_seq=7, assigned={"v": 3, "x": 4})
    for steps in ([late, early], [early, late]):
        detail = replace(many()[1], steps=steps)
        assert list(in_one_go(gathering_variables(detail)).items()) == [("v", 1), ("x", 4), ("w", 2)]
