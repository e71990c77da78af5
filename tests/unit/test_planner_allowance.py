"""What one application of the planner does is bounded by its work, and what does not fit goes on in the next one."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings

from service.api.events import encode
from service.engine.definition import Transform
from service.engine.expressions import compile_value, cost
from service.engine.expressions.cost import MAX_WORK, PER_ALLOWANCE
from service.engine.planning import happenings
from service.engine.planning.restoring import restore
from service.engine.planning.rules import ENOUGH
from service.engine.planning.step_rules import WORK_OF_EDGE
from tests.unit.planner_definitions import each, graph, sequence, step
from tests.unit.planner_histories import histories
from tests.unit.planner_programs import Driver, check_stored, started, starts, told_by_rows

ROWS = [{"name": f"n{n}", "v": n} for n in range(600)]
INPUT: dict[str, Any] = {"rows": ROWS, "n": 1}
HEAVY = "input.rows.all(x, x.v >= 0 && x.name != '')"
HEAVY_VALUE = "input.rows.map(x, x.v)"


def applications(driver: Driver) -> list[int]:
    """Return the work of each application that did any."""
    return [turn.plan.work for turn in driver.turns if turn.plan.work]


def ids(count: int) -> list[str]:
    return [f"s{n}" for n in range(count)]


@pytest.mark.parametrize("condition", [HEAVY, f"!({HEAVY})"])
def test_many_heavy_conditions_take_many_applications(condition: str) -> None:
    driver = started(graph(*(step(i, condition=condition) for i in ids(20)), step("last")), INPUT)
    assert len(driver.states) == 21
    assert len(applications(driver)) > 4
    assert max(applications(driver)) <= MAX_WORK
    check_stored(driver)


def test_many_light_steps_take_few_applications() -> None:
    driver = started(graph(*(step(i, params={"n": "${ input.n }"}, condition="input.n > 0") for i in ids(270))), INPUT)
    assert len(driver.running) == 270
    assert len(applications(driver)) < 6


@pytest.mark.parametrize("condition", ["", "false"], ids=["completed", "skipped"])
def test_steps_that_many_others_wait_for_take_many_applications(condition: str) -> None:
    """And those that are skipped since all of many others were."""
    action, before = Transform(compile_value("1", frozenset())), ids(150)
    steps = [step(i, action=action, condition=condition) for i in before]
    steps += [step(f"after_{i}", action=action, depends_on=tuple(before)) for i in before]
    driver = started(graph(*steps))
    assert set(driver.states.values()) == {"SKIPPED" if condition else "COMPLETED"}
    for turn in driver.turns:
        looks = sum(150 for row in turn.plan.steps if condition or not row.path.startswith("after_"))
        assert looks * WORK_OF_EDGE < PER_ALLOWANCE


def test_heavy_templates_take_many_applications() -> None:
    driver = started(graph(*(step(i, params={"rows": "${ input.rows }"}) for i in ids(20))), INPUT)
    assert len(driver.running) == 20
    assert len(applications(driver)) > 4


def test_what_is_put_off_is_no_work_of_the_application_that_puts_it_off() -> None:
    """Or others would be given the loop for as long as if it had been done."""
    driver = started(graph(*(step(i, condition=HEAVY) for i in ids(20))), INPUT)
    partial = [turn.plan.work for turn in driver.turns if turn.plan.is_partial]
    assert len(partial) > 4 and max(partial) <= PER_ALLOWANCE


def test_what_fits_into_no_application_fails() -> None:
    assign = {f"v{n}": f"{HEAVY_VALUE}.size()" for n in range(64)}
    driver = started(sequence(step("a", assign=assign), step("b")), INPUT)
    driver.succeed("a", 1)
    assert driver.states == {"a": "FAILED"}
    assert driver.state.failure is not None
    assert driver.state.failure.message.startswith("assign: may be too much work for values of this size;")


def test_light_assigns_fit_together() -> None:
    driver = started(sequence(step("a", assign={f"v{n}": f"result[{n}] + input.n" for n in range(64)})), INPUT)
    driver.succeed("a", list(range(64)))
    assert driver.state.vars["v63"] == 64
    assert driver.state.state == "COMPLETED"


def test_timers_that_are_due_together_are_not_all_for_one_application() -> None:
    driver = started(graph(*(step(i, assign={f"{i}_ok": HEAVY}) for i in ids(20))), INPUT)
    for path in ids(20):
        driver.suspend(path, 5.0, "woken")
    before = len(driver.turns)
    driver.fire(5.0)
    assert len(driver.turns) - before > 4
    assert set(driver.states.values()) == {"COMPLETED"}
    assert len(driver.state.vars) == 20


@pytest.mark.parametrize("is_due", [True, False], ids=["due", "cut off"])
def test_what_goes_on_together_fits_into_one_message(is_due: bool) -> None:
    driver = started(graph(*(step(i, params={"text": "${ input.text }"}) for i in ids(20))), {"text": "€" * 80_000})
    if is_due:
        for path in ids(20):
            driver.suspend(path, 5.0, "€" * 80_000)
        driver.fire(5.0)
        assert set(driver.states.values()) == {"COMPLETED"}
    else:
        driver.recover()
        assert len(driver.running) == 20
    assert max(sum(len(encode(event).body) for event in turn.plan.events) for turn in driver.turns) < 2 * ENOUGH
    check_stored(driver)


def test_attempts_that_were_cut_off_start_again_one_after_the_other() -> None:
    driver = started(graph(*(step(i, params={"rows": "${ input.rows }"}) for i in ids(20))), INPUT)
    driver.miss_thread("s19")
    before = len(driver.turns)
    plan = driver.recover()
    assert plan.is_partial
    assert len(driver.turns) - before > 4
    assert {path for path, attempt in starts(driver) if attempt == 2} == set(ids(19))
    assert set(driver.states.values()) == {"RUNNING"}
    check_stored(driver)


def test_a_process_that_dies_between_two_applications_leaves_nothing_behind() -> None:
    driver = started(graph(*(step(i, params={"rows": "${ input.rows }"}) for i in ids(20))), INPUT)
    with mock.patch.object(happenings, "Continued", happenings.Accepted):
        assert driver.recover("second").is_partial
    assert driver.state.sweeps and {"WAITING", "RUNNING"} == set(driver.states.values())
    driver.recover()
    driver.fire()
    assert set(driver.states.values()) == {"RUNNING"}


def test_the_result_waits_for_an_application_that_has_room() -> None:
    output = {f"v{n}": f"${{ {HEAVY} }}" for n in range(5)}
    driver = started(sequence(step("a", assign={"all": HEAVY}), output=output), INPUT)
    plan = driver.succeed("a", 1)
    assert plan.is_partial
    assert driver.state.state == "COMPLETED"
    assert driver.state.result == dict.fromkeys(output, True)


def _many(count: int, *, output: Any = None) -> Driver:
    """Return an execution with so many items, which has ended when what runs has succeeded in any order."""
    items = each("all", "input.rows", step("a", params={"x": "${ item }"}), step("b"), output=output)
    driver = started(sequence(items), {"rows": list(range(count))})
    while driver.running:
        path = min(driver.running)
        driver.succeed(path, path)
    return driver


def test_however_many_items_there_are_no_application_does_more_than_is_allowed() -> None:
    driver = _many(1_500, output={"n": "${ item }", "is": "${ steps.b.output }"})
    assert driver.state.state == "COMPLETED"
    assert driver.rows["all"].output[1_499] == {"n": 1_499, "is": "all[1499].b"}
    assert max(applications(driver)) <= MAX_WORK


def test_the_output_of_an_item_costs_a_look_at_each_of_its_steps() -> None:
    steps = [step(i, condition="false") for i in ids(50)]
    driver = started(sequence(each("all", "input.rows", *steps)), {"rows": [0] * 40})
    assert driver.rows["all"].output == [None] * 40
    assert any(
        repeat.outputs for turn in driver.turns for repeat in turn.plan.state.repeats.values()
    )  # not all at once


def test_an_item_costs_the_same_work_among_many_as_among_few() -> None:
    few, many = _many(20), _many(1_000)
    # The numbers of items in params and outputs have a few digits more.
    assert max(applications(many)[40:-40]) <= 1.05 * max(applications(few)[1:-1])


def test_outputs_of_items_that_were_not_all_made_are_made_anew_by_another_process() -> None:
    driver = started(sequence(each("all", "[1, 2]", step("a"), output={"all": HEAVY, "x": "${ vars }"})), INPUT)
    driver.succeed("all[0].a")
    with mock.patch.object(cost, "PER_ALLOWANCE", 1):
        with mock.patch.object(happenings, "Continued", happenings.Accepted):
            driver.succeed("all[1].a")
            driver.recover()
        while driver.state.sweeps:
            driver.state = driver.plan(driver.state, happenings.Continued(driver.now)).state
        driver.state = driver.plan(driver.state, happenings.Continued(driver.now)).state
    assert driver.state.repeats["all"].outputs
    check_stored(driver)
    driver.recover()
    assert len(driver.rows["all"].output) == 2


@settings(max_examples=50)
@given(driver=histories())
def _ends_as_it_should(driver: Driver) -> None:
    assert driver.state.state.is_end
    for turn in driver.turns:
        assert restore(driver.definition, turn.stored) == told_by_rows(driver.definition, turn.plan.state)


def test_whatever_happens_in_however_small_pieces_every_execution_ends() -> None:
    with mock.patch.object(cost, "PER_ALLOWANCE", 1):
        _ends_as_it_should()
