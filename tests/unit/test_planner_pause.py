"""Pauses: nothing begins, nothing is forgotten; and what is terminated does not wait."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from persistence.model import ExecutionState, Message, MessageKind
from service.engine.definition import Definition, Delivery, OnError, RetryPolicy
from service.engine.planning import events, happenings, planner
from service.engine.running.parking import parked_until
from tests.unit.planner_checks import check
from tests.unit.planner_definitions import each, graph, seconds, sequence, step
from tests.unit.planner_histories import whatever_happens
from tests.unit.planner_programs import FATAL, T0, Driver, check_stored, started, starts

PAUSED, RUNNING = ExecutionState.PAUSED, ExecutionState.RUNNING
ONCE: dict[str, Any] = {"delivery": Delivery.AT_MOST_ONCE}


def test_what_runs_ends_and_nothing_begins_until_it_is_resumed() -> None:
    driver = started(sequence(step("a"), step("b")))
    plan = driver.pause()
    assert (plan.state.state, plan.effects, plan.is_partial) == (PAUSED, (), False)
    assert driver.bodies[-1] == events.Paused("ann", "lunch")
    plan = driver.succeed("a")
    assert driver.states == {"a": "COMPLETED"}
    assert (plan.state.state, plan.is_partial) == (PAUSED, False)
    check(driver)
    driver.resume()
    assert driver.bodies[-2:-1] == [events.Resumed("ann", "lunch", driver.state.deadline_time)]
    assert driver.states == {"a": "COMPLETED", "b": "RUNNING"}
    check(driver)


def test_it_does_not_complete_before_it_is_resumed() -> None:
    driver = started(sequence(step("a")))
    driver.pause()
    driver.succeed("a", 7)
    assert driver.state.state is PAUSED
    check(driver)
    driver.resume()
    assert driver.state.state is ExecutionState.COMPLETED
    check(driver)


def test_a_step_that_fails_for_good_ends_it() -> None:
    driver = started(graph(step("a"), step("b", on_error=OnError.STOP)))
    driver.pause()
    driver.fail("b", failure=FATAL)
    driver.stopped("a")
    assert driver.state.state is ExecutionState.FAILED
    assert driver.execution.pause is None
    check(driver)


def test_timers_that_fall_due_fire_when_it_is_resumed() -> None:
    retry = RetryPolicy(max_attempts=3, initial_interval=10.0, jitter=0.0)
    driver = started(graph(step("a", retry=retry), step("b")))
    driver.fail("a")
    driver.suspend("b", 20, "done")
    driver.pause()
    assert driver.state.next_wake == driver.state.deadline_time
    assert driver.fire(30).is_empty
    driver.recover()
    assert driver.fire().is_empty
    check(driver)
    driver.resume()
    assert driver.states == {"a": "RUNNING", "b": "COMPLETED"}


def test_what_was_not_due_is_waited_for_after_it() -> None:
    driver = started(sequence(step("a"), step("b")))
    driver.suspend("a", 100)
    driver.pause()
    driver.fire(30)
    driver.resume()
    assert driver.states == {"a": "WAITING"}
    assert driver.state.next_wake == T0 + seconds(100)


def test_what_is_accepted_and_paused_does_not_start() -> None:
    driver = Driver(sequence(step("a")), scheduled_time=T0 + seconds(5))
    driver.pause()
    assert driver.fire(10).is_empty
    check(driver)
    driver.recover()
    driver.resume()
    assert (driver.state.state, driver.states) == (RUNNING, {"a": "RUNNING"})
    early = Driver(sequence(step("a")), scheduled_time=T0 + seconds(5))
    early.pause()
    early.resume()
    assert (early.state.state, early.state.next_wake) == (ExecutionState.PENDING, T0 + seconds(5))
    check(early)


def test_the_deadline_goes_on_or_waits() -> None:
    driver = started(sequence(step("a"), timeout=60))
    driver.suspend("a", 1_000)
    driver.pause()
    driver.fire(61)
    assert driver.state.state is ExecutionState.TIMED_OUT
    driver = started(sequence(step("a"), timeout=60))
    driver.suspend("a", 70)
    driver.now += seconds(10)
    driver.pause(stop_deadline=True)
    assert driver.state.next_wake is None
    assert parked_until(driver.state, driver.now, 5.0) is not None
    assert driver.fire(100).is_empty
    driver.resume()
    assert driver.state.deadline_time == T0 + seconds(160)
    assert driver.states == {"a": "COMPLETED"}
    check(driver)


def test_a_hard_pause_stops_what_may_be_made_again() -> None:
    retry = RetryPolicy(max_attempts=1)
    driver = started(graph(step("a", retry=retry), step("b", retry=retry, **ONCE), step("c", retry=retry)))
    driver.pause(hard=True)
    assert sorted(driver.told_to_stop) == ["a", "c"]
    driver.stopped("a")
    driver.stopped("c", has_ended=False)
    driver.succeed("b", 1)
    assert driver.states == {"a": "WAITING", "b": "COMPLETED", "c": "WAITING"}
    assert driver.rows["a"].failures == 0
    check(driver)
    driver.resume()
    assert starts(driver)[-2:] == [("a", 2), ("c", 2)]
    driver.succeed("a")
    driver.succeed("c")
    assert driver.state.state is ExecutionState.COMPLETED


@pytest.mark.parametrize("ends", ["stopped", "fail"])
@pytest.mark.parametrize("is_resumed", [False, True])
def test_what_a_hard_pause_has_told_to_stop_does_not_count_when_it_stops(ends: str, is_resumed: bool) -> None:
    """Not after the resume either, nor where its handler makes a failure of it; the failures of later attempts do."""
    driver = started(sequence(step("a", retry=RetryPolicy(max_attempts=1))))
    driver.pause(hard=True)
    if is_resumed:
        driver.resume()
    check(driver)
    getattr(driver, ends)("a")
    assert driver.states == {"a": "RUNNING" if is_resumed else "WAITING"}
    check(driver)
    if not is_resumed:
        driver.resume()
    assert (starts(driver)[-1], driver.rows["a"].failures) == (("a", 2), 0)
    driver.fail("a")
    assert driver.state.state is ExecutionState.FAILED
    check(driver)


def test_timers_wait_for_the_messages_that_came_with_the_resume() -> None:
    driver = started(sequence(step("a")))
    driver.suspend("a", 20, "done")
    driver.pause()
    driver.now += timedelta(seconds=30)
    resume = Message(UUID(int=3), MessageKind.RESUME, driver.now, "ann", {})
    plan = planner.apply(driver.definition, driver.state, happenings.MessageCame(driver.now, resume), settles=False)
    assert (plan.state.state, plan.state.steps["a"].state) == (RUNNING, "WAITING")
    assert plan.state.next_wake is not None and plan.state.next_wake < driver.now  # so it fires next


def test_what_completes_before_a_hard_pause_stops_it_has_completed() -> None:
    driver = started(sequence(step("a"), step("b")))
    driver.pause(hard=True)
    driver.succeed("a", 1)
    assert driver.states == {"a": "COMPLETED"}


@pytest.mark.parametrize("hard", [False, True])
def test_who_takes_it_over_keeps_it_paused(hard: bool) -> None:
    driver = started(sequence(step("a"), step("b")))
    driver.pause(hard=hard)
    driver.recover()
    assert (driver.state.state, driver.states) == (PAUSED, {"a": "WAITING"})
    check(driver)


def test_who_takes_it_over_makes_cut_off_attempts_again_when_it_is_resumed() -> None:
    driver = started(each_of_three())
    driver.pause()
    plan = driver.recover()
    assert plan.effects == () and not plan.is_partial
    assert {state for path, state in driver.states.items() if "[" in path} == {"WAITING"}
    check_stored(driver)
    driver.resume()
    assert sorted(path for path, number in starts(driver) if number == 2) == [f"all[{n}].a" for n in range(3)]


def test_a_place_that_becomes_free_is_for_others() -> None:
    driver = started(sequence(step("a")))
    driver.miss_thread("a")
    driver.pause()
    plan = driver.free_thread("a")
    assert (plan.effects, driver.states) == ((), {"a": "WAITING"})
    driver.resume()
    assert starts(driver) == [("a", 1), ("a", 1)]


def test_a_handler_that_comes_begins_nothing() -> None:
    driver = started(sequence(step("a")))
    driver.miss_handler("a")
    driver.pause()
    assert driver.take_handlers("work").effects == ()
    check_stored(driver)
    driver.resume()
    assert driver.states == {"a": "RUNNING"}


def test_it_is_cancelled_while_it_is_paused() -> None:
    driver = started(sequence(step("a"), step("b")))
    driver.suspend("a", 100)
    driver.pause()
    driver.cancel()
    assert (driver.state.state, driver.execution.pause) == (ExecutionState.CANCELLED, None)
    check(driver)


def test_pauses_and_resumes_that_come_too_late_change_nothing() -> None:
    driver = started(sequence(step("a"), step("b")))
    assert not driver.resume().events
    driver.pause()
    assert not driver.pause(hard=True).events
    driver.resume()
    driver.cancel()
    assert not driver.pause().events


@pytest.mark.parametrize("before", ["running", "paused", "cancelling"])
def test_what_is_terminated_waits_for_nothing(before: str) -> None:
    driver = started(graph(step("a"), step("b"), each("c", "[1]", step("d"))))
    driver.suspend("b", 100)
    if before == "paused":
        driver.pause()
    if before == "cancelling":
        driver.cancel()
    plan = driver.terminate()
    assert plan.state.state is ExecutionState.CANCELLED
    assert plan.state.failure is not None and plan.state.failure.code == "TERMINATED"
    assert set(driver.states.values()) == {"CANCELLED"}
    assert driver.rows["a"].failure is not None and driver.rows["a"].failure["code"] == "OUTCOME_UNKNOWN"
    assert {effect.path for effect in plan.effects} == {"a", "c[0].d"}
    check(driver)


def test_what_is_terminated_piece_by_piece_is_so_by_who_takes_it_over() -> None:
    driver = Driver(graph(*(step(f"s{n}") for n in range(9))), waits_turns=True, work=1)
    driver.start()
    while driver.backlog:
        driver.take_turn()
    driver.terminate()
    assert not driver.state.state.is_end
    driver.recover()
    while driver.backlog:
        driver.take_turn()
    assert driver.state.state is ExecutionState.CANCELLED
    assert driver.state.failure is not None and driver.state.failure.code == "TERMINATED"
    check(driver)


def each_of_three() -> Definition:
    return sequence(each("all", "[1, 2, 3]", step("a")))


@whatever_happens
def test_nothing_begins_while_it_is_paused(driver: Driver) -> None:
    is_paused = False
    for turn in driver.turns:
        for event in turn.plan.events:
            body = event.body
            if isinstance(body, events.Paused):
                is_paused = True
            elif isinstance(body, events.Resumed | events.Cancelling):
                is_paused = False
            elif is_paused and turn.plan.state.ending is None:
                assert not isinstance(body, events.StepStarted | events.StepSkipped | events.Started)
                assert not isinstance(body, events.Finished) or body.state is not ExecutionState.COMPLETED


def test_a_pause_that_somebody_asks_for_takes_the_place_of_that_of_a_breakpoint() -> None:
    """One resume ends both: the step that was held begins. Why, how hard and until when is as was asked."""
    driver = Driver(graph(step("a"), step("b"), timeout=60))
    driver.set_breakpoints("b")
    driver.start()
    assert driver.state.pause is not None and driver.state.pause.step == "b"
    driver.now += seconds(10)
    plan = driver.pause(hard=True, stop_deadline=True)
    assert driver.bodies[-1] == events.Paused("ann", "lunch", hard=True, stop_deadline=True, step_path="b")
    pause = driver.state.pause
    assert (pause.reason, pause.is_hard, pause.stops_deadline, pause.step) == ("lunch", True, True, "b")
    assert (pause.time, pause.is_joined, plan.state.next_wake) == (driver.now, True, None)
    assert sorted(driver.told_to_stop) == ["a"]
    driver.stopped("a")
    check(driver)
    assert driver.pause().events == ()  # what somebody has asked for stays
    driver.now += seconds(100)
    driver.recover()
    driver.resume()
    assert driver.states == {"a": "RUNNING", "b": "RUNNING"}
    assert driver.state.deadline_time == T0 + seconds(160)
    check(driver)


def of_workflow(driver: Driver, kind: MessageKind, pause_id: str = "w1", **how: Any) -> Any:
    """Let the pause of the whole workflow tell it something."""
    return driver.receive(Message(UUID(int=9), kind, driver.now, "bob", {"workflow_pause_id": pause_id, **how}))


def test_the_resume_of_a_workflow_ends_what_its_pause_has_paused_alone() -> None:
    driver = started(sequence(step("a"), step("b")))
    of_workflow(driver, MessageKind.PAUSE, stop_deadline=True)
    assert driver.state.pause is not None and driver.state.pause.workflow_pause_id == "w1"
    assert driver.bodies[-1] == events.Paused("bob", "", stop_deadline=True, workflow_pause_id="w1")
    assert of_workflow(driver, MessageKind.PAUSE, "w2").events == ()
    assert of_workflow(driver, MessageKind.RESUME, "w2").events == ()
    check(driver)
    driver.now += seconds(5)
    of_workflow(driver, MessageKind.RESUME)
    assert (driver.state.state, driver.state.deadline_time) == (RUNNING, T0 + seconds(driver.state.timeout + 5))
    check(driver)
    driver.pause()
    assert of_workflow(driver, MessageKind.PAUSE).events == ()
    assert of_workflow(driver, MessageKind.RESUME).events == ()
    assert driver.state.state is PAUSED


def test_a_pause_that_somebody_asks_for_outlives_that_of_the_workflow() -> None:
    driver = started(sequence(step("a"), timeout=60))
    of_workflow(driver, MessageKind.PAUSE, stop_deadline=True)
    driver.now += seconds(10)
    driver.pause()
    assert driver.state.pause is not None and driver.state.pause.stops_deadline  # no time that did not count is lost
    assert of_workflow(driver, MessageKind.RESUME).events == ()
    check(driver)
    driver.now += seconds(10)
    driver.resume()
    assert driver.state.deadline_time == T0 + seconds(80)
    check(driver)


def test_what_is_held_back_starts_neither_by_its_timer_nor_by_a_resume() -> None:
    driver = Driver(sequence(step("a")), scheduled_time=T0 + seconds(5))
    driver.state = replace(driver.state, is_held_back=True)
    assert driver.state.next_wake is None
    assert parked_until(driver.state, driver.now, 5.0) is not None
    assert driver.fire(10).is_empty
    driver.pause()
    driver.resume()
    assert (driver.state.state, driver.fire().is_empty) == (ExecutionState.PENDING, True)
    driver.state = replace(driver.state, is_held_back=False)
    driver.fire()
    assert driver.states == {"a": "RUNNING"}
