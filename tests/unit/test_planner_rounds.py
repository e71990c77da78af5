"""A step that runs others in rounds until a condition is true: when the next round begins, and what ends them."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest

from persistence.model import ExecutionState
from service.engine.definition import Definition, OnItemError
from service.engine.expressions import cost
from service.engine.failure import EXECUTION_TOO_LARGE, EXPRESSION_ERROR
from service.engine.planning import block_rules, events, happenings
from service.engine.planning.restoring import restore
from service.engine.running.soundness import contradictions
from tests.unit.planner_definitions import each, graph, sequence, step
from tests.unit.planner_loading import loaded
from tests.unit.planner_programs import FATAL, Driver, check_stored, started

DONE = "steps.ask.output.done"


def rounds(*more: Any, items: str = "[1, 2, 3]", until: str = DONE, **fields: Any) -> Definition:
    return sequence(each("all", items, step("ask", params={"n": "${ item }"}), *more, until=until, **fields))


def test_a_round_follows_until_the_condition_is_true() -> None:
    driver = started(rounds())
    assert list(driver.running) == ["all[0].ask"]
    driver.succeed("all[0].ask", {"done": False})
    check_stored(driver)
    assert list(driver.running) == ["all[1].ask"]
    driver.succeed("all[1].ask", {"done": True})
    assert driver.rows["all"].output == [{"done": False}, {"done": True}]
    assert driver.state.state is ExecutionState.COMPLETED
    assert driver.states == {"all": "COMPLETED", "all[0].ask": "COMPLETED", "all[1].ask": "COMPLETED"}


def test_the_list_ends_the_rounds_in_any_case() -> None:
    driver = started(rounds())
    for index in range(3):
        driver.succeed(f"all[{index}].ask", {"done": False})
    assert len(driver.rows["all"].output) == 3 and driver.state.state is ExecutionState.COMPLETED


def test_the_condition_is_not_asked_before_the_first_round_nor_after_the_last() -> None:
    driver = started(rounds(items="[1]", until="input.absent"))
    driver.succeed("all[0].ask")
    assert driver.state.state is ExecutionState.COMPLETED
    assert started(rounds(items="[]", until="input.absent")).rows["all"].output == []


def test_the_condition_sees_the_round_its_number_and_what_is_around_it() -> None:
    until = "item == 2 && index == 1 && vars.x == 'b' && steps.first.output == 1 && steps.ask.output == 'b'"
    body = each("all", "[1, 2, 3]", step("ask", assign={"x": "result"}), until=until)
    driver = started(sequence(step("first"), body))
    driver.succeed("first", 1)
    driver.succeed("all[0].ask", "a")
    driver.succeed("all[1].ask", "b")
    assert driver.rows["all"].output == ["a", "b"]


def test_the_steps_of_a_round_are_counted_when_it_begins() -> None:
    driver = started(rounds(step("b"), items="[1, 2, 3, 4]", until="index == 1"))
    assert driver.state.counts.total == 3
    driver.succeed("all[0].ask")
    driver.succeed("all[0].b")
    assert driver.state.counts.total == 5
    assert not contradictions(driver.definition, driver.stored)
    driver.succeed("all[1].ask")
    driver.succeed("all[1].b")
    assert (driver.state.counts.total, driver.state.counts.completed, driver.state.counts.cancelled) == (5, 5, 0)


def test_what_is_no_condition_fails_the_step_and_names_the_round() -> None:
    driver = started(rounds())
    driver.succeed("all[0].ask", {"done": False})
    driver.succeed("all[1].ask", {})
    failure = driver.rows["all"].failure
    assert failure is not None and failure["code"] == EXPRESSION_ERROR
    assert failure["message"].startswith("until: after all[1]: there is no steps.ask.output.done")
    assert driver.state.state is ExecutionState.FAILED
    driver = started(rounds(until="steps.ask.output"))
    driver.succeed("all[0].ask", "yes")
    failure = driver.rows["all"].failure
    assert failure is not None and "a condition must be true or false" in failure["message"]


def test_of_a_round_that_failed_nothing_is_asked() -> None:
    driver = started(rounds(on_item_error=OnItemError.COLLECT))
    driver.fail("all[0].ask", failure=FATAL)
    assert "all[1].ask" in driver.running
    driver.succeed("all[1].ask", {"done": True})
    assert driver.rows["all"].output == [{"error": {"code": FATAL.code, "message": "boom"}}, {"done": True}]


def test_a_round_that_failed_ends_all_with_stop() -> None:
    driver = started(rounds())
    driver.fail("all[0].ask", failure=FATAL)
    assert (driver.states["all"], driver.state.state) == ("FAILED", ExecutionState.FAILED)


def test_what_follows_from_the_condition_is_recorded_with_it() -> None:
    """The next round begins, or the step ends, in the transition in which the last step of the round has ended."""
    driver = started(rounds())
    told = [type(event.body) for event in driver.succeed("all[0].ask", {"done": False}).events]
    assert told == [events.StepCompleted, events.StepStarted]
    told = [type(event.body) for event in driver.succeed("all[1].ask", {"done": True}).events]
    assert told == [events.StepCompleted, events.StepCompleted, events.Finished]


def test_another_process_goes_on_in_the_same_round() -> None:
    driver = started(rounds(step("b"), until="steps.b.output == 'done'"))
    driver.succeed("all[0].ask")
    driver.recover()
    assert list(driver.running) == ["all[0].b"]
    driver.succeed("all[0].b", "more")
    driver.recover()
    driver.succeed("all[1].ask")
    driver.succeed("all[1].b", "done")
    assert driver.rows["all"].output == ["more", "done"]


def test_a_condition_that_was_put_off_is_asked_by_whoever_goes_on() -> None:
    """What it gave was not recorded, so nobody has acted on it: the other process asks it of what there is by then."""
    driver = Driver(rounds(until=DONE), waits_turns=True)
    driver.start()
    with mock.patch.object(cost, "PER_ALLOWANCE", 1):
        driver.apply_now(happenings.StepSucceeded(driver.now, "all[0].ask", driver.ended("all[0].ask"), {"done": True}))
        assert driver.states["all"] == "RUNNING"
    check_stored(driver)
    restored = restore(driver.definition, loaded(driver.definition, driver.stored))
    assert restored.repeats["all"].is_over is None and restored.ready
    driver.recover()
    while driver.backlog:
        driver.take_turn()
    assert driver.rows["all"].output == [{"done": True}]


def test_what_it_gave_is_kept_while_the_next_round_is_put_off() -> None:
    """Else a condition and a first step that are heavy would be put off for ever."""
    heavy = "[1, 2, 3, 4, 5].all(a, [1, 2, 3, 4, 5].all(b, a * b > 0)) && " + DONE
    driver = Driver(rounds(until=heavy), waits_turns=True, work=1)
    driver.start()
    driver.apply(happenings.StepSucceeded(driver.now, "all[0].ask", driver.ended("all[0].ask"), {"done": False}))
    seen = set[bool | None]()
    while driver.backlog and "all[1].ask" not in driver.running:
        driver.take_turn()
        seen |= {repeat.is_over for repeat in driver.state.repeats.values()}
    assert "all[1].ask" in driver.running and False in seen
    assert driver.state.repeats["all"].is_over is None
    check_stored(driver)


def test_rounds_of_one_item_do_not_wait_for_those_of_another() -> None:
    inner = each("inner", "[1, 2, 3]", step("ask"), until="steps.ask.output == 'done'")
    driver = started(sequence(each("all", "['a', 'b']", inner)))
    driver.succeed("all[0].inner[0].ask", "done")
    driver.succeed("all[1].inner[0].ask", "more")
    assert list(driver.running) == ["all[1].inner[1].ask"]
    driver.succeed("all[1].inner[1].ask", "done")
    assert driver.rows["all"].output == [["done"], ["more", "done"]]


def test_a_cancel_ends_the_round_and_no_other_follows() -> None:
    driver = started(rounds())
    driver.succeed("all[0].ask", {"done": False})
    driver.cancel()
    assert driver.told_to_stop == {"all[1].ask": 1}
    driver.stopped("all[1].ask")
    assert driver.state.state is ExecutionState.CANCELLED and "all[2].ask" not in driver.rows


def test_what_is_beside_rounds_may_change_what_they_ask_for() -> None:
    driver = started(
        graph(each("all", "[1, 2, 3]", step("ask"), until="has(vars.stop)"), step("b", assign={"stop": "true"}))
    )
    driver.succeed("all[0].ask")
    assert "all[1].ask" in driver.running
    driver.succeed("b")
    driver.succeed("all[1].ask")
    assert len(driver.rows["all"].output) == 2


@pytest.mark.parametrize("most", [2, 3])
def test_rounds_end_where_the_execution_would_have_too_many_steps(most: int) -> None:
    with mock.patch.object(block_rules, "MAX_STEPS_OF_EXECUTION", most):
        driver = started(rounds())
        for index in range(most - 1):
            driver.succeed(f"all[{index}].ask", {"done": False})
    failure = driver.rows["all"].failure
    assert failure is not None
    assert (failure["code"], failure["details"]) == (EXECUTION_TOO_LARGE, {"steps": most + 1, "limit": most})
