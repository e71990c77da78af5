"""The rules of the planner about attempts that workers run on while their execution changes hands."""

from __future__ import annotations

from typing import Any

import pytest

from persistence.model import ExecutionState, StepState
from service.engine.definition import Call, Definition, Delivery, OnError, StepSpec
from service.engine.expressions import Template
from service.engine.failure import INTERRUPTED, OUTCOME_UNKNOWN, WORKER_LOST
from service.engine.planning import events
from service.engine.planning.effects import CancelAttempt, StartAttempt
from service.engine.planning.planner import Plan
from tests.unit.planner_definitions import graph, seconds, sequence, step
from tests.unit.planner_programs import Driver, check_stored, started, starts


def own(step_id: str, **fields: Any) -> StepSpec:
    """A step of another handler."""
    return step(step_id, action=Call("own", Template.parse({}, frozenset())), **fields)


def taken_over(definition: Definition) -> Driver:
    """An execution whose first attempt goes on with its worker under another owner."""
    driver = started(definition)
    driver.recover(remote=["work"])
    return driver


def of(plan: Plan) -> list[tuple[str, int, bool]]:
    """Path and attempt of all that is to begin or to go on, and which of it that is."""
    return [(each.path, each.attempt, each.resumed) for each in plan.effects if isinstance(each, StartAttempt)]


def test_an_attempt_goes_on_and_its_end_is_that_of_the_attempt():
    driver = started(sequence(step("a", timeout=60.0)))
    driver.now += seconds(20)
    plan = driver.recover(remote=["work"])
    assert (plan.events, plan.steps) == ((), ())
    (effect,) = plan.effects
    assert isinstance(effect, StartAttempt)
    assert (effect.key, effect.handler, effect.resumed, effect.timeout) == (("a", 1, 1), "work", True, 40.0)
    check_stored(driver)
    driver.succeed("a", {"n": 1})
    assert driver.state.state is ExecutionState.COMPLETED
    assert starts(driver) == [("a", 1)]
    assert not driver.rows["a"].failed_attempts


def test_an_attempt_whose_time_is_over_has_none_left():
    driver = started(sequence(step("a", timeout=60.0)))
    driver.now += seconds(100)
    (effect,) = driver.recover(remote=["work"]).effects
    assert isinstance(effect, StartAttempt) and effect.timeout == 0.0


def test_the_time_of_all_attempts_is_counted_on():
    driver = started(sequence(step("a", timeout=60.0, total_timeout=70.0)))
    driver.now += seconds(30)
    driver.recover()
    driver.now += seconds(15)
    (effect,) = driver.recover(remote=["work"]).effects
    assert isinstance(effect, StartAttempt) and (effect.attempt, effect.timeout) == (2, 25.0)


def test_what_is_no_handler_of_workers_is_cut_off_as_ever():
    driver = started(graph(own("a"), step("b")))
    plan = driver.recover(remote=["work"])
    assert of(plan) == [("a", 2, False), ("b", 1, True)]


def test_an_attempt_that_no_worker_comes_back_with_was_cut_off_and_is_made_again():
    """It counts for nothing: neither the step nor the worker is known to have done anything."""
    driver = taken_over(sequence(step("a")))
    plan = driver.lose("a")
    (retrying, _) = [event.body for event in plan.events]
    assert isinstance(retrying, events.StepRetrying) and retrying.failure.code == INTERRUPTED
    assert driver.rows["a"].attempt == 2 and driver.rows["a"].failures == 0
    check_stored(driver)
    for number in range(2, 10):
        driver.recover(remote=["work"])
        driver.lose("a")
        assert driver.rows["a"].attempt == number + 1


def test_one_that_came_back_and_was_lost_then_was_lost_with_its_worker():
    driver = taken_over(sequence(step("a")))
    driver.lose("a", "worker 'w' was not heard of")
    assert driver.rows["a"].failed_attempts[0]["failure"]["code"] == WORKER_LOST


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_step_that_may_run_once_completes_or_has_an_unknown_outcome(comes_back: bool):
    driver = taken_over(sequence(step("a", delivery=Delivery.AT_MOST_ONCE)))
    if comes_back:
        driver.succeed("a", 1)
        assert driver.rows["a"].output == 1
    else:
        driver.lose("a")
        assert (driver.rows["a"].failure or {})["code"] == OUTCOME_UNKNOWN
    assert starts(driver) == [("a", 1)]


def test_what_is_said_of_an_attempt_after_it_was_begun_anew_is_stale():
    driver = taken_over(sequence(step("a")))
    driver.lose("a")
    assert driver.succeed("a", 1, attempt=1).is_empty
    assert driver.rows["a"].state is StepState.RUNNING


def test_a_cancel_stops_an_attempt_that_goes_on():
    driver = taken_over(sequence(step("a")))
    (effect,) = driver.cancel().effects
    assert isinstance(effect, CancelAttempt) and effect.key == ("a", 1, 1)
    driver.stopped("a")
    assert driver.state.state is ExecutionState.CANCELLED


def test_an_attempt_is_stopped_that_another_step_ends_as_it_is_taken_over():
    """Its worker may run it still: the step is not cancelled as if it had not begun."""
    once = own("once", delivery=Delivery.AT_MOST_ONCE, on_error=OnError.STOP)
    for order in ((once, step("a")), (step("a"), once)):
        driver = started(graph(*order))
        driver.recover(remote=["work"])
        check_stored(driver)
        assert driver.states["once"] == "FAILED"
        assert driver.states["a"] == ("RUNNING" if order[0].id == "a" else "CANCELLED")
        if order[0].id == "a":
            assert driver.told_to_stop == {"a": 1}
            driver.stopped("a", has_ended=False)
        assert (driver.rows["a"].failure or {})["code"] == OUTCOME_UNKNOWN
        assert driver.state.state is ExecutionState.FAILED


def test_under_an_end_an_attempt_is_cut_off_as_ever():
    """Who comes back with it hears that it is unwanted."""
    driver = started(sequence(step("a")))
    driver.cancel()
    driver.recover(remote=["work"])
    assert driver.states == {"a": "CANCELLED"}
    assert (driver.rows["a"].failure or {})["code"] == OUTCOME_UNKNOWN


def test_a_takeover_of_one_that_went_on_lets_it_go_on_again():
    driver = taken_over(sequence(step("a")))
    plan = driver.recover(remote=["work"])
    assert of(plan) == [("a", 1, True)]
    driver.succeed("a")
    assert starts(driver) == [("a", 1)]
