"""Retry in place: what has ended otherwise than by completing goes on from what failed, keeping what is done."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from persistence.model import Edit, StepState
from service.engine.definition import OnError, OnItemError
from service.engine.failure import HANDLER_ERROR, Failure
from service.engine.planning import events, happenings
from service.engine.planning.restoring import restore
from service.engine.running.soundness import contradictions
from tests.unit.planner_definitions import each, graph, sequence, step
from tests.unit.planner_histories import retried
from tests.unit.planner_programs import FATAL, PLAIN, Driver, check_stored, started, starts, told_by_rows
from tests.unit.test_planner_folding import check


def begun(driver: Driver) -> list[tuple[str, int, int]]:
    """Return path, iteration and attempt of everything that was started."""
    found = (body for body in driver.bodies if isinstance(body, events.StepStarted))
    return [(body.path, body.iteration, body.attempt) for body in found]


def stands(driver: Driver, state: str) -> bool:
    return driver.state.state == state


def reopened(driver: Driver) -> events.Reopened:
    [body] = [body for body in driver.bodies if isinstance(body, events.Reopened)]
    return body


def test_a_failed_step_runs_again_and_what_is_done_does_not() -> None:
    driver = started(sequence(step("a"), step("b"), step("c")))
    driver.succeed("a", 1)
    driver.fail("b", failure=FATAL)
    assert stands(driver, "FAILED")
    driver.reopen("it is mended")
    assert reopened(driver).reason == "it is mended" and driver.execution.run == 2
    assert (driver.state.counts.completed, driver.state.counts.running, driver.state.counts.cancelled) == (1, 1, 0)
    assert driver.state.failure is None and driver.state.end_time is None
    driver.succeed("b")
    driver.succeed("c")
    assert begun(driver) == [("a", 1, 1), ("b", 1, 1), ("b", 2, 1), ("c", 1, 1)]
    assert stands(driver, "COMPLETED") and driver.state.progress == 100
    check_stored(driver)


def test_what_was_cancelled_runs_again_and_what_has_not_begun_begins() -> None:
    driver = started(graph(step("a"), step("b"), step("c", depends_on=("a", "b"))))
    driver.succeed("a")
    driver.cancel()
    driver.stopped("b")
    assert stands(driver, "CANCELLED")
    driver.reopen()
    driver.succeed("b")
    driver.succeed("c")
    assert begun(driver) == [("a", 1, 1), ("b", 1, 1), ("b", 2, 1), ("c", 1, 1)]
    assert stands(driver, "COMPLETED")


def test_what_never_started_starts() -> None:
    driver = Driver(sequence(step("a")))
    driver.cancel()
    assert stands(driver, "CANCELLED")
    driver.reopen()
    driver.succeed("a")
    assert stands(driver, "COMPLETED") and driver.state.start_time is not None


@pytest.mark.parametrize("timeout", [None, 7.0])
def test_there_is_a_new_deadline_from_the_reopening(timeout: float | None) -> None:
    driver = started(sequence(step("a"), timeout=30.0))
    driver.fire(30)
    driver.stopped("a")
    assert stands(driver, "TIMED_OUT")
    driver.reopen(timeout=timeout)
    assert reopened(driver).deadline_time == driver.state.deadline_time
    driver.fire((timeout or 30.0) - 1)
    assert stands(driver, "RUNNING")
    driver.fire(1)
    driver.stopped("a")
    assert stands(driver, "TIMED_OUT")
    assert driver.state.failure is not None and "run 2" in driver.state.failure.message


def test_a_failure_that_others_went_on_with_stays() -> None:
    driver = started(sequence(step("a", on_error=OnError.CONTINUE), step("b")))
    driver.fail("a", failure=FATAL)
    driver.fail("b", failure=FATAL)
    driver.reopen()
    driver.succeed("b")
    assert [path for path, *_ in begun(driver)] == ["a", "b", "b"]
    assert stands(driver, "COMPLETED")


def test_only_what_failed_of_items_runs_again_with_the_list_as_it_was() -> None:
    driver = started(sequence(each("fan", "[10, 20, 30]", step("a"), step("b"), limit=3, output="${ item }")))
    driver.succeed("fan[0].a")
    driver.succeed("fan[0].b")
    driver.succeed("fan[1].a")
    driver.fail("fan[1].b", failure=FATAL)
    driver.stopped("fan[2].a")
    assert stands(driver, "FAILED")
    before = begun(driver)
    driver.reopen()
    assert begun(driver)[len(before) :] == [("fan", 2, 0), ("fan[1].b", 2, 1), ("fan[2].a", 2, 1)]
    driver.succeed("fan[1].b")
    driver.succeed("fan[2].a")
    driver.succeed("fan[2].b")
    assert driver.state.result == [10, 20, 30] and driver.state.counts.total == 7
    assert driver.state.counts.completed == 7


def test_no_more_items_are_opened_again_than_may_be_open() -> None:
    fan = each("fan", "[1, 2, 3, 4]", step("a"), limit=2, on_item_error=OnItemError.COLLECT)
    driver = started(sequence(fan))
    for index in range(3):
        driver.fail(f"fan[{index}].a", failure=FATAL)
    driver.cancel()
    driver.stopped("fan[3].a")
    driver.reopen()
    assert sorted(driver.running) == ["fan[0].a", "fan[1].a"]
    check_stored(driver)
    for index in range(4):
        driver.succeed(f"fan[{index}].a")
        check_stored(driver)
    assert stands(driver, "COMPLETED")


def test_of_rounds_the_last_one_runs_again() -> None:
    """The failed one before it is what the next one went on with."""
    fan = each("turn", "[1, 2, 3]", step("a"), until="index == 1", on_item_error=OnItemError.COLLECT)
    driver = started(sequence(fan))
    driver.fail("turn[0].a", failure=FATAL)
    driver.cancel()
    driver.stopped("turn[1].a")
    driver.reopen()
    assert sorted(driver.running) == ["turn[1].a"]
    driver.succeed("turn[1].a", "done")
    assert stands(driver, "COMPLETED")
    assert [list(each) if isinstance(each, dict) else each for each in driver.state.result] == [["error"], "done"]


def test_every_attempt_of_an_edited_step_has_the_edited_input_after_takeovers_too() -> None:
    driver = started(sequence(step("a", params={"n": "${ 1 }"}, retry=PLAIN)))
    driver.fail("a", failure=FATAL)
    driver.reopen(edit=Edit("a", 2, {"n": 2}))
    driver.fail("a")
    driver.recover()
    driver.fire(60)
    assert begun(driver) == [("a", 1, 1), ("a", 2, 1), ("a", 2, 2)]
    given = [body.input for body in driver.bodies if isinstance(body, events.StepStarted)]
    assert given == [{"n": 1}, {"n": 2}, {"n": 2}]
    driver.fail("a", failure=FATAL)
    driver.reopen()
    assert driver.running["a"].params == {"n": 1}  # an edit is one of its run


def test_a_step_that_is_skipped_by_hand_has_the_output_that_was_given() -> None:
    driver = started(graph(step("a", assign={"x": "result.n"}), step("b", depends_on=("a",), condition="vars.x == 7")))
    driver.fail("a", failure=FATAL)
    driver.reopen(edit=Edit("a", 2, {"n": 7}, is_skipped=True))
    assert starts(driver) == [("a", 1), ("b", 1)]
    assert driver.rows["a"].output == {"n": 7} and driver.rows["a"].attempt == 0
    driver.succeed("b")
    assert stands(driver, "COMPLETED")


def test_nothing_is_reopened_that_has_not_ended_or_has_completed() -> None:
    driver = started(sequence(step("a")))
    for _ in range(2):
        assert driver.apply_now(happenings.Reopened(driver.now, "ann")).is_empty
        assert driver.execution.run == 1
        driver.succeed("a")
    assert stands(driver, "COMPLETED")


def test_what_was_reopened_and_never_reached_runs_again_in_the_next_run() -> None:
    driver = started(sequence(each("fan", "[1, 2]", step("a"), step("b"), limit=1)))
    driver.succeed("fan[0].a")
    driver.fail("fan[0].b", failure=FATAL)
    for _ in range(2):
        driver.reopen()
        driver.fail("fan[0].b", failure=Failure(HANDLER_ERROR, "again"))
        check_stored(driver)
    driver.reopen()
    assert not contradictions(driver.definition, driver.stored)
    driver.succeed("fan[0].b")
    driver.succeed("fan[1].a")
    driver.succeed("fan[1].b")
    assert driver.rows["fan[0].b"].iteration == 4 and driver.rows["fan[0].a"].iteration == 1
    assert restore(driver.definition, driver.stored) == told_by_rows(driver.definition, driver.state)
    assert stands(driver, "COMPLETED")


@settings(max_examples=200)
@given(driver=retried())
def test_whatever_happens_in_whatever_run_no_completed_step_runs_again_and_rows_and_events_tell_the_state(
    driver: Driver,
) -> None:
    done: set[str] = set()
    for turn in driver.turns:
        state = turn.plan.state
        assert restore(driver.definition, turn.stored) == told_by_rows(driver.definition, state)
        assert state.state.is_end or not contradictions(driver.definition, turn.stored)
        assert {path for path, row in state.steps.items() if not row.state.is_end} == set(state.open)
        for row in turn.plan.steps:
            assert row.path not in done
            if row.state in (StepState.COMPLETED, StepState.SKIPPED):
                done.add(row.path)
    assert driver.state.state.is_end
    check(driver)
