"""The rules of the planner about ends: deadline, cancel, recovery by another process, and a verdict from outside."""

from __future__ import annotations

import pytest
from msgspec import structs

from persistence.model import ExecutionState, StepCounts, Wait, WaitKind
from service.engine.definition import Delivery, OnError, RetryPolicy
from service.engine.failure import Failure
from service.engine.planning import events, happenings
from service.engine.planning.effects import CancelAttempt, StartAttempt
from service.engine.planning.reasons import interrupted
from tests.unit.planner_definitions import graph, seconds, sequence, step
from tests.unit.planner_programs import CANCEL, FATAL, PLAIN, T0, Driver, check_stored, started, starts

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
    assert [type(body).__name__ for body in driver.bodies] == ["Created", "Cancelling", "Finished"]
    assert driver.state.state is ExecutionState.CANCELLED
    assert driver.state.counts == StepCounts(total=1, cancelled=1)
    check_stored(driver)


def test_cancel_waits_for_what_runs():
    driver = started(graph(step("a"), step("b"), step("c", depends_on=("a",))))
    plan = driver.cancel()
    assert plan.events[0].body == events.Cancelling("ann", "no longer needed")
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
    assert driver.rows["a"].wait is not None


def test_cancel_again_changes_nothing():
    driver = started(sequence(step("a")))
    first = driver.cancel()
    again = driver.cancel()
    assert first.consumed == again.consumed == (CANCEL,)
    assert not (again.events or again.steps or again.effects)
    driver.stopped("a")
    assert driver.cancel().is_empty


def test_a_message_that_is_not_understood_is_consumed_and_changes_nothing():
    driver = started(sequence(step("a")))
    unknown = structs.replace(CANCEL, kind="FROM_LATER")
    before = driver.state
    plan = driver.receive(unknown)
    assert (plan.consumed, plan.is_empty, plan.events, driver.state) == ((unknown,), False, (), before)


@pytest.mark.parametrize("body", [{}, {"reason": None}, {"reason": 5}])
def test_a_cancel_whose_body_was_spoilt_cancels_all_the_same(body: dict[str, object]):
    driver = started(sequence(step("a")))
    driver.receive(structs.replace(CANCEL, body=body))
    assert driver.state.state is ExecutionState.CANCELLING


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


def test_an_attempt_that_was_cut_off_is_kept_as_interrupted_with_who_ran_it():
    driver = Driver(sequence(step("a")))
    driver.state = structs.replace(driver.state, worker="one:1")
    driver.start()
    driver.now += seconds(5)
    driver.recover(worker="two:2")
    row = driver.rows["a"]
    assert (row.attempt, row.worker, row.attempt_time, row.failure) == (2, "two:2", T0 + seconds(5), None)
    (kept,) = row.failed_attempts
    assert (kept["attempt"], kept["worker"], kept["failure"]["code"]) == (1, "one:1", "INTERRUPTED")
    assert kept["failure"]["retryable"]
    assert (kept["start_time"], kept["end_time"]) == (T0.isoformat(), (T0 + seconds(5)).isoformat())
    retrying, again = driver.bodies[-2:]
    assert retrying == events.StepRetrying("a", 1, interrupted(structs.replace(row, attempt=1)), driver.now)
    assert again == events.StepStarted("a", "work", 2, "two:2", {})


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
    driver = started(graph(step("a"), step("b", delivery=Delivery.AT_MOST_ONCE), step("c")))
    plan = driver.recover()
    assert plan.effects == ()
    assert driver.rows["b"].failure is not None and driver.rows["b"].failure["code"] == "OUTCOME_UNKNOWN"
    assert [kept["failure"]["code"] for kept in driver.rows["b"].failed_attempts] == ["OUTCOME_UNKNOWN"]
    assert driver.states == {"a": "CANCELLED", "b": "FAILED", "c": "CANCELLED"}
    assert driver.state.state is ExecutionState.FAILED
    check_stored(driver)


def test_at_most_once_with_continue_goes_on():
    driver = started(sequence(step("a", delivery=Delivery.AT_MOST_ONCE, on_error=OnError.CONTINUE), step("b")))
    driver.recover()
    assert driver.states == {"a": "FAILED", "b": "RUNNING"}


def test_recovery_ends_an_execution_whose_steps_were_being_stopped():
    driver = started(graph(step("a"), step("b")))
    driver.cancel()
    driver.stopped("a")
    driver.recover()
    assert driver.state.state is ExecutionState.CANCELLED
    check_stored(driver)


@pytest.mark.parametrize("how", ["stops", "goes on", "completes", "is cut off"])
def test_a_cancelled_step_says_whether_its_attempt_really_stopped(how: str):
    driver = started(sequence(step("a")))
    driver.cancel()
    match how:
        case "stops":
            driver.stopped("a")
        case "goes on":
            driver.stopped("a", has_ended=False)
        case "completes":
            driver.succeed("a")
        case _:
            driver.recover()
    codes = {"stops": None, "completes": "RESULT_DISCARDED"}
    failure = driver.rows["a"].failure or {"code": None}
    assert failure["code"] == codes.get(how, "OUTCOME_UNKNOWN")
    (told,) = [body for body in driver.bodies if isinstance(body, events.StepCancelled)]
    assert (told.failure.code if told.failure else None) == failure["code"]
    assert (driver.states, driver.state.state.value) == ({"a": "CANCELLED"}, "CANCELLED")
    check_stored(driver)


# --- waiting for a thread


def test_an_attempt_without_a_thread_waits_and_begins_anew_when_there_is_one():
    driver = started(sequence(step("a", delivery=Delivery.AT_MOST_ONCE)))
    driver.now += seconds(1)
    plan = driver.miss_thread("a")
    wait = Wait(WaitKind.SLOT, driver.now, reason="all are held", resource="threads")
    assert [event.body for event in plan.events] == [events.StepWaiting("a", wait)]
    row = driver.rows["a"]
    assert (row.state.value, row.attempt, row.start_time, row.failures) == ("WAITING", 0, None, 0)
    assert (row.failure, row.wait) == (None, wait)
    check_stored(driver)
    assert driver.fire(60).is_empty
    assert [type(effect) for effect in driver.free_thread("a").effects] == [StartAttempt]
    row = driver.rows["a"]
    assert (row.state.value, row.attempt, row.start_time) == ("RUNNING", 1, T0 + seconds(61))
    assert driver.free_thread("a").is_empty


def test_another_process_lets_what_waited_for_a_thread_try_there():
    driver = started(sequence(step("a", delivery=Delivery.AT_MOST_ONCE)))
    driver.miss_thread("a")
    assert [type(effect) for effect in driver.recover().effects] == [StartAttempt]


@pytest.mark.parametrize("end", ["cancel", "deadline"])
def test_what_waits_for_a_thread_is_ended_at_once(end: str):
    driver = started(sequence(step("a")))
    driver.miss_thread("a")
    driver.cancel() if end == "cancel" else driver.fire(3600)
    assert driver.state.state.is_end
    assert driver.free_thread("a").is_empty


def test_recovery_ends_a_failing_execution():
    driver = started(graph(step("a"), step("b")))
    driver.fail("a", failure=FATAL)
    driver.recover()
    assert driver.state.state is ExecutionState.FAILED
    assert starts(driver) == [("a", 1), ("b", 1)]


def test_a_message_that_nobody_has_seen_is_not_restored():
    driver = started(sequence(step("a")))
    driver.execution = structs.replace(driver.execution, mail=1)
    check_stored(driver)
    driver.cancel()
    assert driver.state.state is ExecutionState.CANCELLING


# --- condemned


def test_a_condemned_execution_ends_at_once():
    driver = started(graph(step("a"), step("b"), step("c", depends_on=("a",))))
    driver.suspend("b", 60)
    plan = driver.apply(happenings.Condemned(T0, Failure("INTERNAL", "cannot be stored")))
    assert not plan.effects  # what ran is gone with the process that was to go on with it before
    assert driver.states == {"a": "CANCELLED", "b": "CANCELLED"}
    assert driver.state.state is ExecutionState.FAILED
    assert driver.state.failure == Failure("INTERNAL", "cannot be stored")
    check_stored(driver)


def test_condemned_while_cancelling_it_is_cancelled():
    driver = started(sequence(step("a")))
    driver.cancel()
    driver.apply(happenings.Condemned(T0, Failure("INTERNAL", "cannot be stored")))
    assert driver.state.state is ExecutionState.CANCELLED


def test_what_waited_for_its_turn_is_not_dated_before_what_overtook_it():
    driver = started(graph(step("a"), step("b")))
    late = happenings.StepSucceeded(T0 + seconds(1), "a", driver.ended("a"), None)
    driver.now += seconds(5)
    driver.progress("b", 50)
    driver.apply(late)
    driver.succeed("b")
    times = [event.time for event in driver.events]
    assert times == sorted(times)
    assert driver.rows["a"].end_time == T0 + seconds(5)


def test_progress_does_not_go_back_when_the_result_that_was_put_off_cannot_be_had():
    driver = Driver(sequence(step("a"), output="${ input.absent }"), waits_turns=True, work=1)
    driver.start()
    while driver.backlog:
        driver.take_turn()
    driver.succeed("a")
    assert driver.state.progress == 99 and driver.backlog
    driver.take_turn()
    assert (driver.state.state, driver.state.progress) == (ExecutionState.FAILED, 99)
