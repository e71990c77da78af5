"""An outline: as much of a definition as records say, for an execution of which the definition cannot be read."""

from __future__ import annotations

from msgspec.structs import replace

from persistence.model import ExecutionState, StepState
from service.engine.definition import Call, Repeat
from service.engine.planning import happenings, planner
from service.engine.planning.outline import outline, outlining
from service.engine.planning.restoring import restore
from service.engine.slices import SLICE
from tests.unit.planner_definitions import each, seconds, sequence, step
from tests.unit.planner_loading import loaded
from tests.unit.planner_programs import FATAL, Driver, started

NESTED = sequence(step("first"), each("all", "[1, 2]", each("inner", "[1, 2]", step("a"), step("b")), step("c")))


def with_items() -> Driver:
    driver = started(NESTED)
    driver.now += seconds(1)
    driver.succeed("first")
    driver.succeed("all[0].inner[1].a")
    return driver


def test_it_has_the_steps_that_have_begun_each_in_its_block() -> None:
    found = outline(with_items().stored)
    assert list(found.places) == ["first", "all", "all.inner", "all.inner.a", "all.inner.b"]
    kinds = {place: type(spec.action) for place, spec in found.places.items()}
    assert [place for place, kind in kinds.items() if kind is Repeat] == ["all", "all.inner"]
    assert isinstance(found.places["first"].action, Call) and found.places["first"].handler == "work"


def test_an_execution_with_items_is_restored_by_it_and_can_be_ended() -> None:
    driver = with_items()
    found = outline(driver.stored)
    state = restore(found, loaded(found, driver.stored))
    assert set(state.blocks) == {"", "all[0]", "all[1]", *(f"all[{n}].inner[{m}]" for n in (0, 1) for m in (0, 1))}
    plan = planner.apply(found, state, happenings.Condemned(driver.now, FATAL))
    assert plan.state.state is ExecutionState.FAILED
    assert all(row.state.is_end for row in plan.state.steps.values())
    assert plan.state.steps["all[0].inner[1].a"].state is StepState.COMPLETED


def test_it_is_made_in_pieces_and_each_step_costs_the_same() -> None:
    """Where every step that is known stands in a block of its own, too."""
    row = with_items().rows["all[0].inner[1].a"]

    def work(count: int) -> list[int]:
        paths = ["x[0]." * depth + "x" for depth in range(20)]
        rows = [replace(row, path=f"s{n}[0].{path}") for n in range(count) for path in paths]
        driver = with_items()
        return list(outlining(replace(driver.stored, steps=rows)))

    few, many = work(10), work(100)
    assert sum(many) < 11 * sum(few)
    assert max(many[1:]) < SLICE
