"""The rules of the planner, one by one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from persistence.model import ExecutionState, StepCounts, StepState
from service.engine import events, happenings, planner
from service.engine.definition import Delivery, OnError, RetryPolicy
from service.engine.effects import CancelAttempt, StartAttempt
from service.engine.failure import HANDLER_ERROR, STEP_TIMEOUT, Failure
from service.engine.parsing import Defaults, parse
from service.engine.state import restore
from tests.unit.planner_programs import CANCEL, T0, Driver, graph, sequence, started, step

PLAIN = RetryPolicy(max_attempts=3, jitter=0.0)
FATAL = Failure(HANDLER_ERROR, "boom")
AT_MOST_ONCE = Delivery.AT_MOST_ONCE


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def starts(driver: Driver) -> list[tuple[str, int]]:
    """Return path and attempt of everything that was started."""
    return [(b.path, b.attempt) for b in driver.bodies if isinstance(b, events.StepStarted)]


def kinds(driver: Driver) -> list[str]:
    return [type(body).__name__ for body in driver.bodies]


def check_stored(driver: Driver) -> None:
    """Assert that what is stored gives the state again."""
    assert restore(driver.definition, driver.stored) == driver.state


# --- order


def test_a_sequence_runs_one_step_after_the_other():
    driver = started(sequence(step("a"), step("b"), step("c")))
    for path in "abc":
        assert list(driver.running) == [path]
        driver.succeed(path, path.upper())
    assert driver.state.state is ExecutionState.COMPLETED
    assert driver.state.result == "C"


def test_the_start_is_recorded_with_its_deadline():
    driver = Driver(sequence(step("a"), timeout=60.0))
    assert driver.state.state is ExecutionState.PENDING
    assert driver.bodies == [events.Created(str(driver.execution.workflow_id), "test", 1, "ann", None)]
    driver.start()
    assert driver.bodies[1] == events.Started(T0 + seconds(60))
    assert driver.start().is_empty


def test_accepting_again_records_nothing():
    driver = Driver(sequence(step("a")))
    assert driver.apply(happenings.Accepted(T0)).is_empty


def test_a_delayed_execution_starts_at_its_time_and_not_before():
    driver = Driver(sequence(step("a")), scheduled_time=T0 + seconds(10))
    assert driver.state.next_wake == T0 + seconds(10)
    assert driver.fire(9.999).is_empty
    assert driver.fire(0.001).effects
    assert driver.state.start_time == T0 + seconds(10)


def test_a_graph_starts_what_is_free_in_parallel_and_joins():
    driver = started(graph(step("a"), step("b"), step("c", depends_on=("a", "b"))))
    assert set(driver.running) == {"a", "b"}
    driver.succeed("a", 1)
    assert set(driver.running) == {"b"}
    driver.succeed("b", 2)
    assert set(driver.running) == {"c"}


def test_a_graph_need_not_be_listed_in_its_order():
    driver = started(graph(step("last", depends_on=("first",)), step("first")))
    driver.succeed("first")
    driver.succeed("last")
    assert starts(driver) == [("first", 1), ("last", 1)]


# --- conditions


def test_a_false_condition_skips_the_step_and_the_sequence_goes_on():
    driver = started(sequence(step("a", condition="input.wanted"), step("b")), {"wanted": False})
    assert driver.states == {"a": "SKIPPED", "b": "RUNNING"}
    assert driver.rows["a"].skip_reason == "its condition is false: input.wanted"


def test_what_only_depends_on_skipped_steps_is_skipped():
    driver = started(
        graph(
            step("a", condition="false"),
            step("b"),
            step("only", depends_on=("a",)),
            step("further", depends_on=("only",)),
            step("mixed", depends_on=("a", "b")),
        )
    )
    assert driver.states == {"a": "SKIPPED", "b": "RUNNING", "only": "SKIPPED", "further": "SKIPPED"}
    driver.succeed("b")
    assert driver.states["mixed"] == "RUNNING"


def test_an_execution_of_skipped_steps_only_completes_at_once():
    driver = started(graph(step("a", condition="false"), step("b", depends_on=("a",))))
    assert driver.state.state is ExecutionState.COMPLETED
    assert driver.state.result == {}
    assert driver.state.progress == 100


def test_a_condition_sees_earlier_steps():
    driver = started(sequence(step("a"), step("b", condition="steps.a.output.score > 3")))
    driver.succeed("a", {"score": 2})
    assert driver.states["b"] == "SKIPPED"


# --- data


def test_params_see_input_outputs_and_the_attempt():
    params = {"text": "${ input.name } ${ steps.a.output }", "try": "${ attempt }"}
    driver = started(sequence(step("a"), step("b", params=params, retry=PLAIN)), {"name": "Zoe"})
    driver.succeed("a", 7)
    assert driver.running["b"].params == {"text": "Zoe 7", "try": 1}
    driver.fail("b")
    driver.fire(1)
    assert driver.running["b"].params["try"] == 2
    assert driver.rows["b"].input == {"text": "Zoe 7", "try": 2}


def test_assigned_variables_are_kept_with_the_step_and_seen_after_it():
    driver = started(
        sequence(
            step("a", assign={"total": "result.price * 2"}),
            step("b", params={"total": "${ vars.total }"}, assign={"total": "vars.total + 1"}),
        )
    )
    driver.succeed("a", {"price": 4})
    assert driver.rows["a"].assigned == {"total": 8}
    assert driver.bodies[-2] == events.VariablesAssigned("a", {"total": 8})
    assert driver.running["b"].params == {"total": 8}
    driver.succeed("b")
    assert driver.state.vars == {"total": 9}
    check_stored(driver)


def test_variables_are_folded_in_the_order_in_which_steps_ended():
    driver = started(graph(step("a", assign={"x": "'a'"}), step("b", assign={"x": "'b'"})))
    driver.succeed("b")
    driver.succeed("a")
    assert driver.state.vars == {"x": "a"}
    check_stored(driver)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (step("a", condition="input.absent"), "condition: "),
        (step("a", params={"x": "${ input.absent }"}), "params.x: "),
        (step("a", assign={"x": "result.absent"}), "assign: "),
    ],
)
def test_an_expression_error_fails_the_step_for_good(broken: Any, message: str):
    driver = started(sequence(replace(broken, retry=PLAIN)))
    if driver.running:
        driver.succeed("a", {})
    failure = driver.rows["a"].failure
    assert failure is not None and failure["code"] == "EXPRESSION_ERROR"
    assert failure["message"].startswith(message)
    assert driver.state.state is ExecutionState.FAILED
    assert driver.rows["a"].output is None
    check_stored(driver)


def test_params_that_cannot_be_had_on_a_later_attempt_fail_the_step():
    driver = started(sequence(step("a", params={"x": "${ attempt < 2 ? 1 : input.absent }"}, retry=PLAIN)))
    driver.fail("a")
    driver.fire(1)
    assert driver.states == {"a": "FAILED"}
    assert driver.rows["a"].wake_time is None


# --- results


def test_the_result_of_a_sequence_is_the_output_of_the_last_completed_step():
    driver = started(sequence(step("a"), step("b"), step("c", condition="false")))
    driver.succeed("a", 1)
    driver.succeed("b", 2)
    assert driver.state.result == 2


def test_the_result_of_a_graph_holds_the_outputs_of_its_completed_sinks():
    driver = started(graph(step("a"), step("b", depends_on=("a",)), step("c"), step("d", condition="false")))
    driver.succeed("a", 1)
    driver.succeed("b", 2)
    driver.succeed("c", 3)
    assert driver.state.result == {"b": 2, "c": 3}


def test_the_output_template_gives_the_result():
    driver = started(sequence(step("a", assign={"x": "result + 1"}), output={"sum": "${ vars.x + steps.a.output }"}))
    driver.succeed("a", 1)
    assert driver.state.result == {"sum": 3}
    assert driver.bodies[-1] == events.Finished(ExecutionState.COMPLETED, {"sum": 3}, None)


def test_an_output_that_cannot_be_had_fails_the_execution():
    driver = started(sequence(step("a"), output="${ steps.a.output.absent }"))
    driver.succeed("a", {})
    assert driver.state.state is ExecutionState.FAILED
    assert driver.state.failure is not None and driver.state.failure.code == "EXPRESSION_ERROR"
    assert driver.state.result is None
    assert driver.state.progress == 99
    check_stored(driver)


# --- failures


def test_stop_tells_siblings_to_stop_and_ends_when_they_have():
    driver = started(graph(step("a"), step("b"), step("c", depends_on=("a", "b"))))
    plan = driver.fail("a", failure=FATAL)
    assert plan.effects == (CancelAttempt("b", 1),)
    assert not driver.state.state.is_end
    check_stored(driver)
    driver.stopped("b")
    assert driver.state.state is ExecutionState.FAILED
    assert driver.states == {"a": "FAILED", "b": "CANCELLED"}
    assert driver.state.failure == Failure(
        "STEP_FAILED", "step 'a' failed: boom", details={"code": HANDLER_ERROR}, step_path="a"
    )
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
        wake = driver.rows["a"].wake_time
        assert wake is not None
        pauses.append((wake - driver.now).total_seconds())
        assert driver.fire(pauses[-1] - 0.001).is_empty
        driver.fire(0.001)
    assert pauses == [2, 6, 18, 40, 40]


@pytest.mark.parametrize(("draw", "pause"), [(0.0, 8.0), (0.5, 10.0), (0.999999, 12.0)])
def test_jitter_changes_the_pause_in_both_directions(draw: float, pause: float):
    driver = started(sequence(step("a", retry=replace(PLAIN, initial_interval=10, jitter=0.2))))
    driver.fail("a", draw=draw)
    wake = driver.rows["a"].wake_time
    assert wake is not None
    assert (wake - T0).total_seconds() == pytest.approx(pause, abs=1e-4)


@pytest.mark.parametrize(("retry_after", "pause"), [(7.0, 7.0), (0.5, 1.0), (None, 1.0), (float("nan"), 1.0)])
def test_retry_after_is_a_least_pause(retry_after: float | None, pause: float):
    driver = started(sequence(step("a", retry=PLAIN)))
    driver.fail("a", retry_after=retry_after)
    assert driver.rows["a"].wake_time == T0 + seconds(pause)


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
    assert plan.events[0].body == events.StepWaiting("a", T0 + seconds(60), "parked")
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


# --- the deadline


def test_the_deadline_stops_what_runs_and_ends_timed_out():
    driver = started(graph(step("a"), step("b"), timeout=60.0))
    driver.suspend("b", 100)
    assert driver.fire(59.999).is_empty
    plan = driver.fire(0.001)
    assert plan.effects == (CancelAttempt("a", 1),)
    assert driver.states == {"a": "RUNNING", "b": "CANCELLED"}
    driver.stopped("a")
    assert driver.state.state is ExecutionState.TIMED_OUT
    assert driver.state.failure is not None and driver.state.failure.code == "EXECUTION_TIMEOUT"
    check_stored(driver)


def test_a_timed_out_execution_stays_timed_out_when_its_process_dies():
    driver = started(graph(step("a"), step("b"), step("c", depends_on=("a", "b")), timeout=60.0))
    driver.fire(60)
    driver.stopped("a")
    check_stored(driver)
    driver.now = T0  # the clock of the other process is behind
    driver.recover()
    assert driver.state.state is ExecutionState.TIMED_OUT
    assert driver.states == {"a": "CANCELLED", "b": "CANCELLED"}


def test_nothing_is_restarted_after_the_deadline():
    driver = started(sequence(step("a"), timeout=60.0))
    driver.now += seconds(61)
    assert not [e for e in driver.recover().effects if isinstance(e, StartAttempt)]
    assert driver.state.state is ExecutionState.TIMED_OUT
    assert starts(driver) == [("a", 1)]


def test_a_clock_that_was_set_back_does_not_let_time_run_backwards():
    driver = started(sequence(step("a")))
    driver.now = T0 - seconds(5)
    driver.succeed("a")
    assert driver.state.end_time == driver.state.start_time == T0


# --- cancel


def test_cancel_of_a_pending_execution_ends_it_at_once():
    driver = Driver(sequence(step("a")), scheduled_time=T0 + seconds(60))
    driver.cancel()
    assert kinds(driver) == ["Created", "Cancelling", "Finished"]
    assert driver.state.state is ExecutionState.CANCELLED
    assert driver.state.counts == StepCounts(total=1, cancelled=1)
    check_stored(driver)


def test_cancel_waits_for_what_runs():
    driver = started(graph(step("a"), step("b"), step("c", depends_on=("a",))))
    plan = driver.cancel()
    assert plan.events[0].body == events.Cancelling(CANCEL.by, CANCEL.reason)
    assert plan.effects == (CancelAttempt("a", 1), CancelAttempt("b", 1))
    assert driver.execution.state is ExecutionState.CANCELLING
    check_stored(driver)
    driver.stopped("a")
    assert not driver.state.state.is_end
    driver.stopped("b")
    assert driver.state.state is ExecutionState.CANCELLED
    assert driver.state.failure == Failure("CANCELLED", "cancelled by ann: no longer needed")
    assert driver.states == {"a": "CANCELLED", "b": "CANCELLED"}
    assert driver.state.counts == StepCounts(total=3, cancelled=3)
    check_stored(driver)


def test_cancel_ends_what_only_waits_at_once():
    driver = started(graph(step("a"), step("b", retry=PLAIN)))
    driver.suspend("a", 60)
    driver.fail("b")
    driver.cancel()
    assert driver.state.state is ExecutionState.CANCELLED
    assert driver.rows["a"].wake_time is not None


def test_cancel_again_changes_nothing():
    driver = started(sequence(step("a")))
    driver.cancel()
    assert driver.cancel().is_empty
    driver.stopped("a")
    assert driver.cancel().is_empty


def test_cancel_after_the_end_changes_nothing():
    driver = started(sequence(step("a")))
    driver.succeed("a")
    assert driver.cancel().is_empty
    assert driver.state.state is ExecutionState.COMPLETED


def test_cancel_prevails_over_a_failure_that_is_not_yet_the_end():
    driver = started(graph(step("a"), step("b")))
    driver.fail("a", failure=FATAL)
    driver.cancel()
    driver.stopped("b")
    assert driver.state.state is ExecutionState.CANCELLED
    check_stored(driver)


@pytest.mark.parametrize("late", ["succeed", "fail", "suspend"])
def test_late_results_after_cancel_are_discarded(late: str):
    driver = started(sequence(step("a", retry=PLAIN, assign={"x": "result"}), step("b")))
    driver.cancel()
    match late:
        case "succeed":
            driver.succeed("a", "late")
        case "fail":
            driver.fail("a")
        case _:
            driver.suspend("a", 60, "late")
    assert driver.states == {"a": "CANCELLED"}
    assert driver.rows["a"].output is None and not driver.state.vars
    assert driver.state.state is ExecutionState.CANCELLED


def test_progress_is_not_recorded_while_cancelling():
    driver = started(sequence(step("a")))
    driver.cancel()
    assert driver.progress("a", 50).is_empty


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


# --- recovery


def test_what_ran_is_started_again_and_that_is_no_failure():
    driver = started(sequence(step("a", retry=RetryPolicy(max_attempts=2, jitter=0))))
    for attempt in (2, 3, 4):
        plan = driver.recover()
        assert [type(e) for e in plan.effects] == [StartAttempt]
        assert driver.running["a"].attempt == attempt
    assert driver.rows["a"].failures == 0
    driver.fail("a")
    assert driver.states == {"a": "WAITING"}
    driver.fire(1)
    driver.fail("a")
    assert driver.states == {"a": "FAILED"}


def test_what_waited_waits_on():
    driver = started(sequence(step("a")))
    driver.suspend("a", 60, "out")
    assert driver.recover().is_empty
    driver.fire(60)
    assert driver.state.result == "out"


def test_a_pending_execution_is_not_started_by_recovery():
    driver = Driver(sequence(step("a")), scheduled_time=T0 + seconds(60))
    assert driver.recover().is_empty


def test_at_most_once_ends_with_an_unknown_outcome():
    driver = started(graph(step("a"), step("b", delivery=AT_MOST_ONCE), step("c")))
    plan = driver.recover()
    assert plan.effects == ()
    assert driver.rows["b"].failure is not None and driver.rows["b"].failure["code"] == "OUTCOME_UNKNOWN"
    assert driver.states == {"a": "CANCELLED", "b": "FAILED", "c": "CANCELLED"}
    assert driver.state.state is ExecutionState.FAILED
    check_stored(driver)


def test_at_most_once_with_continue_goes_on():
    driver = started(sequence(step("a", delivery=AT_MOST_ONCE, on_error=OnError.CONTINUE), step("b")))
    driver.recover()
    assert driver.states == {"a": "FAILED", "b": "RUNNING"}


def test_recovery_ends_an_execution_whose_steps_were_being_stopped():
    driver = started(graph(step("a"), step("b")))
    driver.cancel()
    driver.stopped("a")
    driver.recover()
    assert driver.state.state is ExecutionState.CANCELLED
    check_stored(driver)


def test_recovery_ends_a_failing_execution():
    driver = started(graph(step("a"), step("b")))
    driver.fail("a", failure=FATAL)
    driver.recover()
    assert driver.state.state is ExecutionState.FAILED
    assert starts(driver) == [("a", 1), ("b", 1)]


def test_a_wish_to_cancel_that_was_not_acted_on_is_not_restored():
    driver = started(sequence(step("a")))
    driver.execution = replace(driver.execution, cancel=CANCEL)
    check_stored(driver)
    driver.cancel()
    assert driver.state.state is ExecutionState.CANCELLING


# --- condemned


def test_a_condemned_execution_ends_at_once():
    driver = started(graph(step("a"), step("b"), step("c", depends_on=("a",))))
    driver.suspend("b", 60)
    plan = driver.apply(happenings.Condemned(T0, Failure("INTERNAL", "cannot be stored")))
    assert plan.effects == (CancelAttempt("a", 1),)
    assert driver.states == {"a": "CANCELLED", "b": "CANCELLED"}
    assert driver.state.state is ExecutionState.FAILED
    assert driver.state.failure == Failure("INTERNAL", "cannot be stored")
    check_stored(driver)


def test_condemned_while_cancelling_it_is_cancelled():
    driver = started(sequence(step("a")))
    driver.cancel()
    driver.apply(happenings.Condemned(T0, Failure("INTERNAL", "cannot be stored")))
    assert driver.state.state is ExecutionState.CANCELLED


# --- progress, counts and numbers


def test_events_carry_the_progress_and_counts_after_them():
    driver = started(graph(step("a"), step("b", condition="false"), step("c", depends_on=("a",))))
    driver.succeed("a")
    driver.succeed("c")
    shown = [(type(e.body).__name__, e.progress, e.counts.running, e.counts.completed) for e in driver.events]
    assert shown == [
        ("Created", 0, 0, 0),
        ("Started", 0, 0, 0),
        ("StepStarted", 0, 1, 0),
        ("StepSkipped", 33, 1, 0),
        ("StepCompleted", 66, 0, 1),
        ("StepStarted", 66, 1, 1),
        ("StepCompleted", 99, 0, 2),
        ("Finished", 100, 0, 2),
    ]


def test_progress_is_100_only_when_completed():
    driver = started(sequence(step("a"), step("b")))
    driver.succeed("a")
    driver.fail("b", failure=FATAL)
    assert driver.state.state is ExecutionState.FAILED
    assert driver.state.progress == 99


def test_events_are_numbered_and_name_the_last_of_their_transition():
    driver = started(sequence(step("a"), step("b")))
    driver.succeed("a")
    driver.succeed("b")
    assert [event.seq for event in driver.events] == list(range(1, 8))
    for turn in driver.turns:
        assert {event.transition_seq for event in turn.plan.events} == {turn.plan.state.last_seq}


def test_reported_progress_never_falls_and_stays_in_bounds():
    driver = started(sequence(step("a")))
    for percent, kept in ((30, 30), (20, 30), (400, 100)):
        driver.progress("a", percent)
        assert driver.rows["a"].progress == kept
        assert driver.bodies[-1] == events.StepProgressed("a", 1, kept, "on it")
    assert driver.state.progress == 0


def test_the_same_happenings_give_the_same_plan():
    driver = Driver(sequence(step("a"), step("b")))
    happening = happenings.Started(T0)
    once, again = (planner.apply(driver.definition, driver.state, happening) for _ in range(2))
    assert once == again
    assert driver.state.state is ExecutionState.PENDING


# --- size


def test_a_chain_of_500_steps():
    driver = started(sequence(*(step(f"s{i}") for i in range(500))))
    for i in range(500):
        driver.succeed(f"s{i}", i)
    assert driver.state.result == 499


@pytest.mark.parametrize("fields", [{"params": {"x": "${ input.absent }"}}, {"condition": "input.absent"}])
def test_500_steps_that_fail_one_after_the_other_in_one_go(fields: dict[str, Any]):
    driver = started(sequence(*(step(f"s{i}", on_error=OnError.CONTINUE, **fields) for i in range(500))))
    assert driver.state.state is ExecutionState.COMPLETED
    assert driver.state.counts.failed == 500


def test_500_steps_that_are_skipped_in_one_go():
    chain = [step(f"s{i}", depends_on=(f"s{i - 1}",)) for i in range(1, 500)]
    driver = started(graph(*reversed(chain), step("s0", condition="false")))
    assert driver.state.counts.skipped == 500
    assert all(row.state is StepState.SKIPPED for row in driver.rows.values())
