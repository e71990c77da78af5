"""What one execution may write is bounded, and it always ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from persistence.model import ExecutionState
from service.engine import payload
from service.engine.definition import Definition, OnError, OnItemError, RetryPolicy, Transform
from service.engine.expressions import Template
from service.engine.failure import EXECUTION_TOO_LARGE, HANDLER_ERROR, STEP_FAILED, Failure
from service.engine.parsing.sources import VARIABLES
from service.engine.planning import events
from service.engine.planning.draft import EVENT_BYTES
from service.engine.planning.failed_attempts import MAX_FAILED_ATTEMPTS_BYTES
from service.engine.planning.step_rules import SMALL
from tests.unit.planner_definitions import OF_ITEM, each, sequence, step
from tests.unit.planner_programs import Driver, check_stored, started

LIMIT = 100_000
LARGE = "x" * 30_000
EAGER = RetryPolicy(max_attempts=1000, initial_interval=0.01, backoff_coefficient=1, jitter=0)


def bounded(*steps, **fields) -> Definition:
    """A sequence of which an execution may write little."""
    return replace(sequence(*steps, **fields), max_bytes=LIMIT)


def failure_of(driver: Driver, path: str) -> dict[str, Any]:
    """The failure of a step."""
    return dict(driver.rows[path].failure or {})


def work_off(driver: Driver, output: object = None) -> None:
    """Let all attempts succeed, one after the other."""
    while driver.running:
        driver.succeed(next(iter(driver.running)), output)


def test_what_is_written_is_counted():
    driver = started(sequence(step("a", params={"p": 1}), output={"r": 2}), {"i": 3})
    driver.succeed("a", {"o": 4})
    assert len(driver.events) == 5
    assert driver.state.bytes == 5 * EVENT_BYTES + 4 * len('{"a":1}')
    check_stored(driver)


def test_the_count_fits_where_it_is_kept_whatever_stood_there():
    driver = started(sequence(step("a")))
    driver.state = structs.replace(driver.state, bytes=2**63 - 1)
    driver.succeed("a")
    assert driver.state.state.is_end and driver.state.bytes < 2**63


def test_parameters_that_do_not_fit_fail_their_step():
    driver = started(bounded(*(step(f"s{n}", params={"v": "${ input.b }"}) for n in range(9))), {"b": LARGE})
    work_off(driver)
    assert (driver.states["s1"], driver.states["s2"], len(driver.states)) == ("COMPLETED", "FAILED", 3)
    failure = failure_of(driver, "s2")
    assert (failure["code"], failure.get("retryable", False)) == (EXECUTION_TOO_LARGE, False)
    assert "with its parameters, the execution would have written 1" in failure["message"]
    assert failure["details"]["limit"] == LIMIT < failure["details"]["bytes"]
    assert driver.state.state is ExecutionState.FAILED
    check_stored(driver)


def test_on_error_applies_and_the_execution_ends():
    steps = (step(f"s{n}", params={"v": "${ input.b }"}, on_error=OnError.CONTINUE) for n in range(500))
    driver = started(bounded(*steps), {"b": LARGE})
    work_off(driver)
    assert driver.state.state is ExecutionState.COMPLETED
    assert driver.states["s499"] == "FAILED"
    assert driver.state.bytes < LIMIT + 500 * (SMALL + EVENT_BYTES)
    check_stored(driver)


@pytest.mark.parametrize("assign", [None, {"v": "result"}])
def test_an_output_that_does_not_fit_fails_its_step_and_a_small_one_is_kept(assign):
    driver = started(bounded(*(step(f"s{n}", assign=assign) for n in range(9)), step("last")))
    while driver.state.state is ExecutionState.RUNNING and driver.state.bytes + len(LARGE) * 2 + 5_000 < LIMIT:
        driver.succeed(next(iter(driver.running)), LARGE)
    before = driver.stored
    path = next(iter(driver.running))
    driver.succeed(path, LARGE * 4)
    assert failure_of(driver, path)["code"] == EXECUTION_TOO_LARGE
    assert driver.state.vars == ({"v": LARGE} if assign else {})
    assert len(before.steps) > 1
    check_stored(driver)


def test_what_a_step_did_is_kept_when_it_is_small():
    driver = started(bounded(step("a"), step("b"), step("c")), {"b": "x" * (LIMIT - 5 * EVENT_BYTES)})
    driver.succeed("a", "y" * (SMALL - 2))
    assert driver.states["a"] == "COMPLETED"
    assert failure_of(driver, "b")["code"] == EXECUTION_TOO_LARGE
    check_stored(driver)


def test_what_a_step_waits_with_is_counted_once():
    driver = started(bounded(step("a"), step("b")))
    driver.suspend("a", 60, LARGE)
    waiting = driver.state.bytes
    assert waiting > len(LARGE)
    driver.recover()
    driver.fire(60)
    assert driver.states["a"] == "COMPLETED"
    assert driver.state.bytes < waiting + 10 * EVENT_BYTES
    driver.suspend("b", 60, LARGE * 3)
    assert failure_of(driver, "b")["code"] == EXECUTION_TOO_LARGE
    check_stored(driver)


def test_attempts_that_fail_with_much_to_say_come_to_an_end():
    driver = started(bounded(step("a", retry=EAGER)))
    failure = Failure(HANDLER_ERROR, "boom", {"d": LARGE}, retryable=True, stack_trace="t" * 5_000)
    for _ in range(1000):
        if "a" not in driver.running:
            break
        driver.fail("a", failure=failure)
        driver.fire(1)
    assert driver.state.state is ExecutionState.FAILED
    assert failure_of(driver, "a")["code"] == EXECUTION_TOO_LARGE
    assert driver.rows["a"].attempt > 3
    assert driver.state.bytes < LIMIT + 2 * SMALL + 3 * EVENT_BYTES
    check_stored(driver)


def test_of_attempts_that_failed_no_more_is_kept_than_can_be_written_again_and_again():
    driver = started(sequence(step("a", retry=EAGER)))
    for _ in range(30):
        driver.fail("a", failure=Failure(HANDLER_ERROR, "boom", retryable=True, stack_trace="t" * 16_384))
        driver.fire(1)
    kept = driver.rows["a"].failed_attempts
    assert [attempt["attempt"] for attempt in kept] == list(range(11, 31))
    assert payload.size(list(kept)) <= MAX_FAILED_ATTEMPTS_BYTES
    assert ["stack_trace" in attempt["failure"] for attempt in kept] == [False] * 17 + [True] * 3
    assert {attempt["failure"]["message"] for attempt in kept} == {"boom"}


def test_progress_leaves_room_for_what_the_steps_give():
    driver = started(bounded(step("a")))
    for _ in range(1000):
        driver.progress("a", 1)
    assert LIMIT // 2 < driver.state.bytes < LIMIT // 2 + 2 * EVENT_BYTES
    assert sum(isinstance(body, events.StepProgressed) for body in driver.bodies) > 50
    driver.succeed("a", LARGE)
    assert driver.state.state is ExecutionState.COMPLETED


def test_the_result_is_written_in_any_case():
    driver = started(bounded(step("a"), step("b", condition="false")), {"b": "x" * 50_000})
    driver.succeed("a", LARGE)
    assert (driver.state.state, driver.state.result) == (ExecutionState.COMPLETED, LARGE)
    assert driver.state.bytes > LIMIT
    check_stored(driver)


@pytest.mark.parametrize("on_error", [OnError.STOP, OnError.CONTINUE])
@pytest.mark.parametrize("on_item_error", list(OnItemError))
@pytest.mark.parametrize("is_called", [False, True])
def test_small_steps_of_many_items_end_at_the_limit(on_error, on_item_error, is_called):
    action = None if is_called else Transform(Template.parse("${ item }", VARIABLES | OF_ITEM))
    inner = each("inner", "input.rows", step("get", action=action), on_item_error=on_item_error, on_error=on_error)
    outer = each("outer", "input.rows", inner, on_item_error=on_item_error, on_error=on_error)
    driver = started(bounded(outer, step("last", on_error=on_error)), {"rows": [0] * 100})
    check_stored(driver)
    work_off(driver)
    assert driver.state.state.is_end
    assert failure_of(driver, "outer")["code"] in (EXECUTION_TOO_LARGE, STEP_FAILED)
    assert LIMIT - EVENT_BYTES < driver.state.bytes < LIMIT * (2 if is_called else 1.2)  # what is in work ends
    check_stored(driver)


def test_another_process_fails_what_has_no_room_for_its_next_item():
    repeating = each("all", "input.rows", step("get"), limit=2, on_item_error=OnItemError.COLLECT)
    driver = started(bounded(repeating), {"rows": [0] * 100})
    while driver.state.bytes + EVENT_BYTES <= LIMIT:
        driver.succeed(next(iter(driver.running)), "x" * 1_500)
    driver.recover()
    work_off(driver)
    assert failure_of(driver, "all")["code"] == EXECUTION_TOO_LARGE
    check_stored(driver)


def test_steps_that_the_server_runs_itself_are_bounded_too():
    give = Transform(Template.parse("${ input.v }", VARIABLES))
    steps = (step(f"s{n}", action=give, on_error=OnError.CONTINUE) for n in range(500))
    driver = started(bounded(*steps), {"v": "x" * 1_500})
    assert failure_of(driver, "s499")["code"] == EXECUTION_TOO_LARGE
    assert sum(state == "COMPLETED" for state in driver.states.values()) < LIMIT // 2_000
