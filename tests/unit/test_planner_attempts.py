"""The rules of the planner about attempts: failures, retries, waiting, and results that come too late."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from immutables import Map
from msgspec import structs

from persistence.model import ExecutionDetail, ExecutionState, StepCounts, StepState, Wait, WaitKind
from service.engine.clock import LAST_MOMENT
from service.engine.definition import Delivery, OnError, RetryPolicy
from service.engine.failure import HANDLER_ERROR, STEP_TIMEOUT, Failure
from service.engine.parsing import Defaults, parse
from service.engine.planning import events, happenings, planner
from service.engine.planning.effects import CancelAttempt
from service.engine.planning.restoring import restore
from service.engine.running.soundness import contradictions
from tests.unit.planner_definitions import graph, seconds, sequence, step
from tests.unit.planner_programs import FATAL, PLAIN, T0, Driver, check_stored, started, starts

EU = '[{"region":"eu"},[]]'

# --- failures


def test_a_missing_handler_is_waited_for_and_counts_for_nothing():
    driver = started(sequence(step("a")))
    for _ in range(5):
        driver.now += seconds(1)
        plan = driver.miss_handler("a")
        wait = Wait(WaitKind.WORKER, driver.now, reason="not here", handler="work")
        assert [event.body for event in plan.events] == [events.StepWaiting("a", wait)]
        row = driver.rows["a"]
        assert (row.state.value, row.wait, row.attempt, row.failures) == ("WAITING", wait, 0, 0)
        assert set(driver.state.awaited) == {"work"}
        check_stored(driver)
        assert driver.fire(100).is_empty and driver.recover(handlers=["other"]).is_empty
        assert [effect.attempt for effect in driver.recover(handlers=["work"]).effects] == [1]
    driver.succeed("a", 1)
    assert driver.state.state is ExecutionState.COMPLETED


def test_a_step_with_wishes_waits_for_a_worker_that_meets_them():
    """Not for the handler alone, nor for one that meets the wishes of another step."""
    driver = started(graph(step("a"), step("b")))
    driver.miss_handler("a", EU)
    driver.miss_handler("b")
    waits = {path: (row.wait.handler, row.wait.wishes) for path, row in driver.rows.items() if row.wait is not None}
    assert waits == {"a": ("work", EU), "b": ("work", "")}
    assert dict(driver.state.awaited) == {f"work\t{EU}": 1, "work": 1}
    check_stored(driver)
    assert driver.take_handlers('work\t[{},["1"]]', EU).is_empty
    assert [effect.path for effect in driver.recover(handlers=["work"]).effects] == ["b"]
    assert [effect.path for effect in driver.take_handlers("work", f"work\t{EU}").effects] == ["a"]
    assert not driver.state.awaited


def test_a_process_that_has_the_handler_goes_on_with_all_that_waits_as_it_takes_over():
    """Not later: an execution of which all else has come to rest would be parked in between."""
    once = step("once", delivery=Delivery.AT_MOST_ONCE, on_error=OnError.CONTINUE)
    driver = started(graph(once, step("a"), step("b")))
    driver.miss_handler("a")
    driver.miss_handler("b")
    plan = driver.recover(handlers=["work"])
    assert [(effect.path, effect.attempt) for effect in plan.effects] == [("a", 1), ("b", 1)]
    assert driver.states == {"once": "FAILED", "a": "RUNNING", "b": "RUNNING"}


@pytest.mark.parametrize("kind", [WaitKind.WORKER, WaitKind.SLOT])
def test_a_step_that_fails_as_it_goes_on_lets_none_that_waited_beside_it_begin(kind):
    """The start of the second is not one of what it was before the first ended it all."""
    broken_by_c = {"x": "${steps.c.state == 'COMPLETED' ? steps.c.output.absent : 1}"}
    driver = started(graph(step("c"), step("a", params=broken_by_c), step("b")))
    for path in ("a", "b"):
        driver.miss_handler(path) if kind is WaitKind.WORKER else driver.miss_thread(path)
    driver.succeed("c", {})
    plan = driver.recover(handlers=["work"])
    assert [type(event.body).__name__ for event in plan.events] == ["StepFailed", "StepCancelled", "Finished"]
    check_stored(driver)


def test_stop_tells_siblings_to_stop_and_ends_when_they_have():
    driver = started(graph(step("a"), step("b"), step("c", depends_on=("a", "b"))))
    plan = driver.fail("a", failure=FATAL)
    assert plan.effects == (CancelAttempt("b", 1),)
    assert not driver.state.state.is_end
    check_stored(driver)
    driver.stopped("b")
    assert driver.state.state is ExecutionState.FAILED
    assert driver.states == {"a": "FAILED", "b": "CANCELLED"}
    assert driver.state.failure == Failure("STEP_FAILED", "boom", {"code": HANDLER_ERROR}, "a", 1)
    assert driver.state.counts == StepCounts(total=3, failed=1, cancelled=2)


def test_stop_cancels_waiting_siblings_at_once():
    driver = started(graph(step("a"), step("b"), step("c", retry=PLAIN)))
    driver.suspend("b", 60, "late")
    driver.fail("c")
    driver.fail("a", failure=FATAL)
    assert driver.state.state is ExecutionState.FAILED
    assert driver.states == {"a": "FAILED", "b": "CANCELLED", "c": "CANCELLED"}
    assert driver.rows["b"].output is None
    check_stored(driver)


def test_what_would_have_started_with_the_failure_never_does():
    driver = started(graph(step("a"), step("b", depends_on=("a",)), step("c", depends_on=("a",), condition="input.x")))
    plan = driver.succeed("a")
    assert plan.effects == ()
    assert driver.states == {"a": "COMPLETED", "b": "CANCELLED", "c": "FAILED"}
    assert driver.state.state is ExecutionState.FAILED


def test_continue_goes_on_and_dependants_see_the_error():
    driver = started(
        sequence(
            step("a", on_error=OnError.CONTINUE),
            step("b", params={"code": "${ steps.a.error.code }", "state": "${ steps.a.state }"}),
        )
    )
    driver.fail("a", failure=FATAL)
    assert driver.running["b"].params == {"code": HANDLER_ERROR, "state": "FAILED"}
    driver.succeed("b")
    assert driver.state.state is ExecutionState.COMPLETED
    assert driver.state.counts == StepCounts(total=2, completed=1, failed=1)


def test_retry_makes_three_attempts_by_default_and_then_stops():
    document = {"name": "w", "steps": [{"id": "a", "handler": "work", "on_error": "RETRY"}]}
    driver = started(parse(document, None, Defaults()))
    for attempt in (1, 2, 3):
        assert driver.running["a"].attempt == attempt
        driver.fail("a")
        driver.fire(61)
    assert driver.state.state is ExecutionState.FAILED
    assert starts(driver) == [("a", 1), ("a", 2), ("a", 3)]


def test_each_failed_attempt_is_kept():
    driver = started(sequence(step("a", retry=PLAIN)))
    driver.now += seconds(5)
    driver.fail("a")
    driver.fire(1)
    driver.fail("a", failure=FATAL)
    first, second = driver.rows["a"].failed_attempts
    assert first == {
        "attempt": 1,
        "start_time": T0.isoformat(),
        "end_time": (T0 + seconds(5)).isoformat(),
        "failure": {"code": HANDLER_ERROR, "message": "boom", "retryable": True},
        "worker": "",
    }
    assert second["attempt"] == 2


def test_at_most_twenty_failed_attempts_are_kept():
    driver = started(sequence(step("a", retry=RetryPolicy(max_attempts=25))))
    for _ in range(25):
        driver.fail("a")
        driver.fire(70)
    kept = [failed["attempt"] for failed in driver.rows["a"].failed_attempts]
    assert kept == list(range(6, 26))
    assert driver.rows["a"].failures == 25


def test_pauses_grow_up_to_the_longest():
    retry = RetryPolicy(max_attempts=6, initial_interval=2, backoff_coefficient=3, max_interval=40, jitter=0)
    driver = started(sequence(step("a", retry=retry)))
    pauses = []
    for _ in range(5):
        driver.fail("a")
        wake = driver.wake_time("a")
        assert wake is not None
        pauses.append((wake - driver.now).total_seconds())
        assert driver.fire(pauses[-1] - 0.001).is_empty
        driver.fire(0.001)
    assert pauses == [2, 6, 18, 40, 40]


@pytest.mark.parametrize(("draw", "pause"), [(0.0, 8.0), (0.5, 10.0), (0.999999, 12.0)])
def test_jitter_changes_the_pause_in_both_directions(draw: float, pause: float):
    driver = started(sequence(step("a", retry=replace(PLAIN, initial_interval=10, jitter=0.2))))
    driver.fail("a", draw=draw)
    wake = driver.wake_time("a")
    assert wake is not None
    assert (wake - T0).total_seconds() == pytest.approx(pause, abs=1e-4)


@pytest.mark.parametrize(("jitter", "draw"), [(0, 0.5), (1, 0.0), (1, 0.999999)])
def test_no_pause_is_so_short_that_one_execution_keeps_all_others_waiting(jitter: float, draw: float):
    """Such as of a definition that was kept before there was a least one."""
    policy = {"max_attempts": 3, "initial_interval": 1e-9, "max_interval": 1e-9, "jitter": jitter}
    document = {"name": "w", "steps": [{"id": "a", "handler": "work", "retry_policy": policy}]}
    driver = started(parse(document, None, Defaults()))
    driver.fail("a", draw=draw, retry_after=1e-9)
    assert driver.wake_time("a") == T0 + seconds(0.01)


@pytest.mark.parametrize(("retry_after", "pause"), [(7.0, 7.0), (0.5, 1.0), (None, 1.0), (float("nan"), 1.0)])
def test_retry_after_is_a_least_pause(retry_after: float | None, pause: float):
    driver = started(sequence(step("a", retry=PLAIN)))
    driver.fail("a", retry_after=retry_after)
    assert driver.wake_time("a") == T0 + seconds(pause)


@pytest.mark.parametrize("retry_after", [1e12, 1e300, float("inf")])
def test_retry_after_may_be_absurd(retry_after: float):
    driver = started(sequence(step("a", retry=PLAIN)))
    driver.fail("a", retry_after=retry_after)
    assert driver.states == {"a": "WAITING"}
    assert driver.state.next_wake == driver.state.deadline_time


@pytest.mark.parametrize("failure", [FATAL, Failure("HTTP_STATUS_4XX", "no", retryable=True)])
def test_what_cannot_help_is_not_tried_again(failure: Failure):
    retry = replace(PLAIN, non_retryable_codes=frozenset({"HTTP_STATUS_4XX"}))
    driver = started(sequence(step("a", retry=retry)))
    driver.fail("a", failure=failure)
    assert driver.state.state is ExecutionState.FAILED
    assert len(driver.rows["a"].failed_attempts) == 1


def test_no_attempt_starts_after_the_total_timeout():
    retry = RetryPolicy(max_attempts=9, initial_interval=4, backoff_coefficient=1, jitter=0)
    driver = started(sequence(step("a", retry=retry, timeout=8, total_timeout=10)))
    assert driver.running["a"].timeout == 8
    driver.fail("a")
    driver.fire(4)
    assert driver.running["a"].timeout == 6
    driver.fail("a")
    driver.fire(4)
    assert driver.running["a"].timeout == 2
    driver.fail("a", failure=Failure(STEP_TIMEOUT, "slow", retryable=True))
    assert driver.states == {"a": "FAILED"}


def test_a_long_message_is_the_same_after_a_restart():
    driver = started(graph(step("a"), step("b")))
    driver.fail("a", failure=Failure(HANDLER_ERROR, "x" * 5000))
    check_stored(driver)
    driver.stopped("b")
    check_stored(driver)


# --- waiting


def test_a_suspended_step_completes_with_its_output_when_its_timer_fires():
    driver = started(sequence(step("a", assign={"x": "result"}), step("b")))
    plan = driver.suspend("a", 60, "morning")
    assert plan.state.is_idle and plan.state.next_wake == T0 + seconds(60)
    wait = Wait(WaitKind.TIMER, T0, T0 + seconds(60), "parked")
    assert plan.events[0].body == events.StepWaiting("a", wait, output="morning")
    assert driver.state.counts.running == 1
    check_stored(driver)
    assert driver.fire(59.999).is_empty
    driver.fire(0.001)
    assert driver.rows["a"].output == "morning"
    assert driver.states == {"a": "COMPLETED", "b": "RUNNING"}
    assert driver.state.vars == {"x": "morning"}


def test_the_output_of_a_waiting_step_is_not_seen():
    driver = started(graph(step("a"), step("b"), step("c", depends_on=("b",), params={"a": "${ steps.a.output }"})))
    driver.suspend("a", 60, "secret")
    driver.succeed("b")
    assert driver.running["c"].params == {"a": None}


def test_a_step_that_waits_for_the_past_completes_at_once():
    driver = started(sequence(step("a")))
    driver.suspend("a", 0, "now")
    assert driver.state.result == "now"


def test_one_timer_wakes_all_that_are_due():
    driver = started(graph(step("a"), step("b", retry=PLAIN), step("c")))
    driver.suspend("a", 1)
    driver.fail("b")
    driver.suspend("c", 9)
    driver.fire(5)
    assert driver.states == {"a": "COMPLETED", "b": "RUNNING", "c": "WAITING"}
    assert driver.state.next_wake == T0 + seconds(9)


def test_a_step_that_fails_on_waking_cancels_the_others_that_are_due():
    driver = started(graph(step("a", assign={"x": "result.absent"}), step("b")))
    driver.suspend("a", 1, {})
    driver.suspend("b", 1, {})
    driver.fire(2)
    assert driver.states == {"a": "FAILED", "b": "CANCELLED"}


# --- stale results


@pytest.mark.parametrize("attempt", [0, 1, 3])
def test_results_of_other_attempts_are_ignored(attempt: int):
    driver = started(sequence(step("a", retry=PLAIN)))
    driver.fail("a")
    driver.fire(1)
    before = driver.state
    assert driver.succeed("a", "stale", attempt=attempt).is_empty
    assert driver.fail("a", attempt=attempt).is_empty
    assert driver.suspend("a", 9, attempt=attempt).is_empty
    assert driver.progress("a", 50, attempt=attempt).is_empty
    assert driver.stopped("a", attempt=attempt).is_empty
    assert driver.state == before


def test_results_of_a_step_that_does_not_run_are_ignored():
    driver = started(sequence(step("a", retry=PLAIN), step("b")))
    driver.fail("a")
    assert driver.succeed("a").is_empty
    assert driver.succeed("b").is_empty
    assert driver.succeed("unknown").is_empty


def test_a_stop_that_nobody_asked_for_is_a_failed_attempt():
    driver = started(sequence(step("a", retry=PLAIN)))
    driver.stopped("a")
    assert driver.states == {"a": "WAITING"}
    assert driver.rows["a"].failures == 1


def test_no_sum_of_times_passes_the_end_of_the_calendar():
    """Whatever the clock of the store says."""
    driver = Driver(sequence(step("a", retry=PLAIN)))
    driver.now = LAST_MOMENT - timedelta(milliseconds=1)
    driver.apply(happenings.Started(driver.now))
    assert driver.state.deadline_time == LAST_MOMENT
    plan = driver.fail("a")
    assert isinstance(plan.events[0].body, events.StepRetrying)
    assert plan.events[0].body.retry_time == driver.wake_time("a") == LAST_MOMENT


# --- iterations


def test_what_comes_of_another_iteration_is_stale():
    driver = started(sequence(step("a"), step("b")))
    ended = driver.rows["a"]
    earlier = structs.replace(ended, state=StepState.FAILED, end_time=T0, end_seq=driver.state.last_seq)
    newest = structs.replace(ended, iteration=2)
    rows = ExecutionDetail(driver.execution, driver.input, None, [newest, earlier])
    state = structs.replace(restore(driver.definition, rows), inherited=Map())  # as if it had begun here
    assert (dict(state.steps), contradictions(driver.definition, rows)) == ({"a": newest}, [])
    stale = happenings.StepSucceeded(T0, "a", 1, "of the first")
    assert planner.apply(driver.definition, state, stale).is_empty
    plan = planner.apply(driver.definition, state, happenings.StepSucceeded(T0, "a", 1, "of the second", iteration=2))
    assert [row.key for row in plan.steps] == [("a", 2), ("b", 1)]
    assert plan.events[0].body == events.StepCompleted("a", 1, "of the second", iteration=2)
