"""Steps that wait for signals: which they take, what they go on with, and what happens when none comes in time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from persistence.model import StepState, Wait, WaitKind
from service.engine import awaited_signals
from service.engine.definition import Listen, OnError
from service.engine.expressions import Template
from service.engine.parsing.sources import VARIABLES
from service.engine.planning import events
from tests.unit.planner_definitions import each, graph, sequence, step
from tests.unit.planner_programs import T0, Driver, started
from tests.unit.test_planner_folding import check as check_folded
from tests.unit.test_planner_people import check as check_stored

NUMBER = {"properties": {"n": {"type": "integer"}}, "required": ["n"]}


def listening(step_id: str = "wait", name: str = "paid", **params: Any) -> Any:
    given = params if "signals" in params else {"name": name, **params}
    return step(step_id, action=Listen(Template.parse(given, VARIABLES)), on_error=OnError.STOP)


def check(driver: Driver) -> None:
    check_stored(driver)
    check_folded(driver)


def taken(driver: Driver) -> dict[str, list[int]]:
    """The signals that each step has taken, by their numbers, as the events tell."""
    ends = [body for body in driver.bodies if isinstance(body, events.StepCompleted | events.StepFailed)]
    return {body.path: [each.int - 1_000 for each in body.signals] for body in ends if body.signals}


def test_a_step_waits_for_a_signal_and_goes_on_with_what_it_carries() -> None:
    driver = started(sequence(listening(timeout="1m"), step("b", params={"n": "${ steps.wait.output.payload.n }"})))
    wait = driver.rows["wait"].wait
    due = T0 + timedelta(minutes=1)
    assert wait == Wait(WaitKind.SIGNAL, T0, due, "waits for the signal paid", signals=("paid",))
    assert (driver.rows["wait"].state, driver.rows["wait"].attempt) == (StepState.WAITING, 0)
    assert (driver.state.is_idle, driver.state.next_wake) == (True, due)
    driver.signal("other")
    check(driver)
    plan = driver.signal("paid", {"n": 7})
    assert len(plan.consumed) == 1 and not plan.gives_up
    sent = {"signal_id": str(plan.consumed[0].id), "sender": "bob", "send_time": "2026-01-01T00:00:00Z"}
    assert driver.rows["wait"].output == {"name": "paid", "payload": {"n": 7}, **sent, "timed_out": False}
    assert driver.running["b"].params == {"n": 7}
    assert [signal.name for signal in driver.state.signals] == ["other"]
    assert taken(driver) == {"wait": [2]}
    check(driver)


def test_signals_that_came_before_are_taken_in_their_order_each_once() -> None:
    driver = Driver(sequence(listening("a"), listening("b"), listening("c")))
    driver.signal("paid", {"n": 1})  # before it has started
    driver.recover()
    driver.signal("paid", {"n": 2})
    driver.start()
    assert driver.states == {"a": "COMPLETED", "b": "COMPLETED", "c": "WAITING"}
    assert [driver.rows[path].output["payload"] for path in "ab"] == [{"n": 1}, {"n": 2}]
    driver.recover()
    driver.signal("paid")
    assert taken(driver) == {"a": [1], "b": [2], "c": [3]}
    assert not driver.state.signals
    check(driver)


def test_of_steps_that_wait_already_the_one_takes_it_that_has_waited_longest() -> None:
    driver = started(graph(step("x"), listening("a", name="p"), listening("b", name="p"), listening("c")))
    driver.succeed("x")
    driver.recover()
    driver.signal("p")
    driver.signal("p")
    assert taken(driver) == {"a": [1], "b": [2]}
    check(driver)


def test_one_waits_for_all_of_several_and_takes_none_before() -> None:
    both = listening("both", signals=[{"name": "a"}, {"name": "b"}])
    driver = started(graph(both, listening("one", name="a")))
    driver.signal("b")
    assert [signal.name for signal in driver.state.signals] == ["b"]
    check(driver)
    driver.recover()
    driver.signal("a")
    assert driver.states == {"both": "COMPLETED", "one": "WAITING"}
    assert taken(driver) == {"both": [2, 1]}
    output = driver.rows["both"].output
    assert (list(output["signals"]), output["missing"], output["timed_out"]) == (["a", "b"], [], False)
    check(driver)


def test_one_waits_for_the_first_of_several() -> None:
    driver = started(sequence(listening(signals=[{"name": "a"}, {"name": "b"}], wait_for="FIRST")))
    driver.signal("b", {"n": 1})
    assert driver.rows["wait"].output["name"] == "b"
    check(driver)


@pytest.mark.parametrize("goes_on", [False, True])
def test_when_none_comes_in_time_it_fails_or_goes_on_as_it_says(goes_on: bool) -> None:
    more: dict[str, Any] = {"on_timeout": "CONTINUE", "default": {"n": 0}} if goes_on else {}
    driver = started(sequence(listening(timeout=60, **more)))
    driver.recover()
    assert not driver.fire(59).gives_up
    assert driver.fire(1).gives_up
    row = driver.rows["wait"]
    if goes_on:
        assert row.output == {"name": "", "payload": {"n": 0}, "timed_out": True}
    else:
        assert row.failure is not None
        assert (row.failure["code"], row.failure["details"]) == ("SIGNAL_TIMEOUT", {"missing": ["paid"]})
    check(driver)


def test_of_several_those_that_came_in_time_are_given() -> None:
    driver = started(sequence(listening(signals=[{"name": "a"}, {"name": "b"}], timeout=60, on_timeout="CONTINUE")))
    driver.signal("b")
    driver.fire(60)
    output = driver.rows["wait"].output
    assert (list(output["signals"]), output["missing"], output["timed_out"]) == (["b"], ["a"], True)
    assert taken(driver) == {"wait": [1]}
    check(driver)


def test_what_came_before_and_does_not_fit_fails_the_step_and_is_gone() -> None:
    driver = Driver(sequence(listening(schema=NUMBER, timeout=60)))
    driver.signal("paid", {"n": "one"})
    driver.start()
    failure = driver.rows["wait"].failure
    assert failure is not None
    assert (failure["code"], failure["message"][:24]) == ("SIGNAL_INVALID", "signal paid: payload.n t")
    assert not driver.state.signals
    check(driver)


def test_what_a_signal_completes_and_cannot_be_assigned_has_taken_it() -> None:
    wrong = step("wait", action=Listen(Template.constant({"name": "paid"}, "params")), assign={"x": "result.absent"})
    driver = started(sequence(wrong))
    driver.signal("paid")
    assert driver.states == {"wait": "FAILED"}
    assert taken(driver) == {"wait": [1]}
    check(driver)


def test_names_may_be_made_of_items_and_each_item_takes_its_own() -> None:
    body = step("wait", action=Listen(Template.parse({"name": "paid-${ item }"}, VARIABLES | {"item"})))
    driver = started(sequence(each("all", "['a', 'b']", body)))
    driver.signal("paid-b")
    assert driver.states == {"all": "RUNNING", "all[0].wait": "WAITING", "all[1].wait": "COMPLETED"}
    check(driver)


def test_a_cancelled_execution_keeps_what_comes_and_no_step_takes_it() -> None:
    driver = started(graph(step("x"), listening()))
    driver.cancel()
    driver.signal("paid")
    assert driver.states["wait"] == "CANCELLED"
    assert len(driver.state.signals) == 1
    check(driver)


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({}, ""),
        ({"name": ""}, "name"),
        ({"name": "a", "signals": [{"name": "a"}]}, ""),
        ({"name": "a", "wait_for": "FIRST"}, "wait_for"),
        ({"signals": [{"name": "a"}, {"name": "a"}]}, "signals[1].name"),
        ({"signals": [{"name": "a"}], "schema": {}}, "schema"),
        ({"name": "a", "on_timeout": "FAIL"}, "on_timeout"),
        ({"name": "a", "timeout": "soon"}, "timeout"),
        ({"name": "a", "timeout": 1, "default": {}}, "default"),
        ({"signals": [{"name": "a"}], "timeout": 1, "on_timeout": "CONTINUE", "default": {}}, "default"),
        ({"name": "a", "schema": {"type": "list"}}, "schema.type"),
        ({"signals": [{"name": "a", "schema": {"description": "x" * (16 << 10)}}]}, "signals[0].schema"),
    ],
)
def test_params_that_cannot_be_right_are_refused(params: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=r"^.") as refused:
        awaited_signals.read(params, T0)
    assert str(refused.value).startswith(field)
    driver = started(sequence(step("wait", action=Listen(Template.constant(params, "params")))))
    assert (driver.rows["wait"].failure or {})["code"] == "INVALID_PARAMS"
