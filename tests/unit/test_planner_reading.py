"""What is loaded of an execution that is driven on: all that may still be read, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from immutables import Map
from msgspec.structs import replace

from service.engine.definition import Definition, OnError, OnItemError
from service.engine.failure import Failure
from service.engine.planning import happenings, planner
from service.engine.planning.reading import still_wanted
from service.engine.planning.restoring import restore
from service.engine.planning.state import State
from tests.unit.planner_definitions import each, graph, sequence, step
from tests.unit.planner_histories import whatever_happens
from tests.unit.planner_loading import loaded
from tests.unit.planner_programs import Driver, told_by_rows

STRIDE = 12


def check_that_nothing_is_missed(driver: Driver, stride: int = 1) -> None:
    """From what is loaded after a turn follows the same as from all that there was, for all that happens after it."""
    for begin in range(len(driver.turns) % stride, len(driver.turns), stride):
        repeats = driver.turns[begin].plan.state.repeats.values()
        if any(repeat.outputs or repeat.is_over is not None for repeat in repeats):
            continue  # they are made anew, which takes more applications
        state = restore(driver.definition, loaded(driver.definition, driver.turns[begin].stored))
        state = as_it_went_on(state, driver.turns[begin].plan.state)
        for turn in driver.turns[begin + 1 :]:
            if turn.is_first:
                state = told_by_rows(driver.definition, state)
            plan, expected = driver.plan(state, turn.happening, begins=turn.begins), turn.plan
            assert (plan.events, plan.effects, plan.is_partial) == (
                expected.events,
                expected.effects,
                expected.is_partial,
            )
            state = plan.state


def as_it_went_on(restored: State, state: State) -> State:
    """Return what was restored with what only the process knows that goes on with `state`."""
    untouched = [path for path, step in state.inherited.items() if state.open.get(path) is step]
    inherited = Map({path: restored.open[path] for path in untouched})
    return replace(restored, time=state.time, sweeps=state.sweeps, inherited=inherited, stopping=state.stopping)


@whatever_happens
def test_nobody_misses_what_is_not_loaded(driver: Driver) -> None:
    check_that_nothing_is_missed(driver, STRIDE)


@pytest.mark.parametrize("mode", OnItemError)
def test_nobody_misses_what_is_not_loaded_of_items(mode: OnItemError) -> None:
    check_that_nothing_is_missed(of_items(mode))


def of_items(mode: OnItemError) -> Driver:
    """An execution that has gone through items, of which some failed."""
    body = (
        step("x", params=read("item", "steps.a.output.of")),
        step("y", params=read("steps.x.output.of"), on_error=OnError.CONTINUE),
    )
    repeated = each("e", "input.items", *body, limit=2, on_item_error=mode, on_error=OnError.CONTINUE)
    definition = sequence(step("a"), step("b"), repeated, step("c", params=read("steps.e.output", "steps.e.error")))
    driver = Driver(definition, {"items": [1, 2, 3, 4]})
    driver.start()
    for path in ("a", "b", "e[1].x", "e[0].x"):
        driver.succeed(path, {"of": path})
    driver.fail("e[0].y", failure=Failure("X", "y", {"n": 1}))
    driver.fail("e[1].y" if mode is OnItemError.COLLECT else "e[2].x", failure=Failure("X", "m", {"n": 1}))
    while driver.running or driver.told_to_stop:
        path = min({**driver.running, **driver.told_to_stop})
        driver.stopped(path) if path in driver.told_to_stop else driver.succeed(path, {"of": path})
    assert driver.state.state.is_end
    return driver


def read(*used: str) -> dict[str, str]:
    """Parameters that read outputs."""
    return {f"p{number}": f"${{ {each} }}" for number, each in enumerate(used)}


def after(*ids: str) -> Callable[[Definition], Driver]:
    """Return what makes an execution in which these steps have completed, in this order, and the next ones run."""

    def driven(definition: Definition) -> Driver:
        driver = Driver(definition, {"which": "a"})
        driver.start()
        for path in ids:
            driver.succeed(path, {"of": path})
        return driver

    return driven


CASES: dict[str, tuple[Definition, Callable[[Definition], Driver], set[str], set[str]]] = {
    "a step that has not begun reads it": (
        sequence(step("a"), step("b"), step("c", params=read("steps.a.output.of"))), after("a"), {"a", "b"}, set()
    ),
    "only steps that have ended read it": (
        sequence(step("a"), step("b", params=read("steps.a.output")), step("c"), step("d")), after("a", "b", "c"),
        {"c", "d"}, set(),
    ),
    "the next attempt of a step that runs reads it": (
        sequence(step("a"), step("b", params=read("steps.a.output"))), after("a"), {"a", "b"}, set()
    ),
    "the condition of a step that runs has been decided": (
        graph(step("a"), step("b", depends_on=("a",), condition="steps.a.output.of == 'a'"), output={}), after("a"),
        {"b"}, set(),
    ),
    "a condition is still to be decided": (
        graph(step("a"), step("b"), step("c", depends_on=("a", "b"), condition="steps.a.error == null"), output={}),
        after("a"), {"a", "b"}, set(),
    ),
    "of a state nothing large is read": (
        sequence(step("a"), step("b"), step("c", condition="steps.a.state == 'COMPLETED'"), output={}), after("a"),
        {"b"}, set(),
    ),
    "an assignment reads it": (
        sequence(step("a"), step("b", assign={"x": "[result, steps.a.output]"}), output={}), after("a"), {"a", "b"},
        set(),
    ),
    "the output of the workflow reads it": (
        sequence(step("a"), step("b"), step("c"), output=read("steps.a.output")), after("a", "b"), {"a", "c"}, set()
    ),
    "it is computed which step is read": (
        sequence(step("a"), step("b"), step("c", params=read("steps[input.which].output")), output={}), after("a"),
        {"a", "b"}, set(),
    ),
    "without an output, the newest completed step of a sequence may be it": (
        sequence(step("a"), step("b"), step("c")), after("a", "b"), {"b", "c"}, set()
    ),
    "without an output, the last steps of a graph are it": (
        graph(step("a"), step("b", depends_on=("a",)), step("c")), after("a", "b"), {"b", "c"}, set()
    ),
    "steps of items read what is around them": (
        sequence(
            step("a"), step("b"), each("e", "[1, 2]", step("x", params=read("steps.a.output", "item"))), output={}
        ),
        after("a", "b", "e[0].x"), {"a", "e", "e[0].x", "e[1].x"}, set(),
    ),
    "an item that has ended gives its output": (
        sequence(
            each("e", "[1, 2]", step("x"), step("y", params=read("steps.x")), limit=1, output="${ steps.y.output }"),
        ),
        after("e[0].x", "e[0].y"), {"e", "e[0].y", "e[1].x"}, set(),
    ),
    "of items that were collected nothing is read": (
        sequence(each("e", "[1]", step("x")), step("c"), output={}), after("e[0].x"), {"c"}, set()
    ),
    "of what was assigned to a variable the newest counts": (
        sequence(
            step("a", assign={"x": "result"}), step("b", assign={"x": "result", "y": "1"}),
            step("c", assign={"y": "2"}), step("d"), output={},
        ),
        after("a", "b", "c"), {"d"}, {"b", "c"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_may_still_be_read_is_needed_and_nothing_else(case: str) -> None:
    definition, play, outputs, assigned = CASES[case]
    stored = play(definition).stored
    wanted = still_wanted(definition, stored)
    begun = {row.path for row in stored.steps if not row.state.is_end}
    assert {path for path, _ in wanted.outputs} == outputs
    assert {path for path, _ in wanted.assigned} == assigned | begun


def test_once_the_end_is_decided_nothing_is_read_any_more() -> None:
    definition = graph(step("a"), step("b"), step("c"), step("d", depends_on=("a",)), output=read("steps.a.output"))
    driver = after("a")(definition)
    driver.fail("b")
    wanted = still_wanted(definition, driver.stored)
    assert wanted.outputs == wanted.assigned == {("c", 1), ("d", 1)}


def test_a_failure_is_read_with_its_details_where_it_may_be_asked_for() -> None:
    definition = sequence(step("a", on_error=OnError.CONTINUE), step("b"), step("c", params=read("steps.a.error")))
    driver = Driver(definition)
    driver.start()
    driver.fail("a")
    assert ("a", 1) in still_wanted(definition, driver.stored).outputs


def test_what_is_not_loaded_is_never_taken_for_nothing() -> None:
    """Were something missed, the execution would end in an error, and not go on with null."""
    definition = sequence(step("a"), step("b"), output=read("steps.a.output"))
    driver = after("a")(definition)
    state = restore(driver.definition, loaded(sequence(step("a"), step("b"), output={}), driver.stored))
    state = as_it_went_on(state, driver.state)
    with pytest.raises(RuntimeError):
        planner.apply(definition, state, happenings.StepSucceeded(driver.now, "b", 1, None))
