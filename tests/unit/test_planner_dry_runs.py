"""Dry runs, as the planner decides them: what has a mock is answered by it, and times are not waited for."""

from __future__ import annotations

import pytest

from persistence.dry_runs import DryRun, Mock, MockFailure
from persistence.model import ExecutionState, StepState, WaitKind
from service.engine.definition import (
    LEAST_PAUSE,
    Ask,
    Decide,
    Definition,
    Delivery,
    Listen,
    OnError,
    Pause,
    RetryPolicy,
    Transform,
)
from service.engine.expressions import Template, compile_condition
from service.engine.failure import NOT_MOCKED, Failure
from service.engine.parsing.sources import VARIABLES
from service.engine.planning import events
from service.engine.planning.effects import Answer
from tests.unit.planner_checks import check
from tests.unit.planner_definitions import each, seconds, sequence, step
from tests.unit.planner_forks import forked
from tests.unit.planner_programs import Driver, check_stored

LATER = Pause(Template.constant({"duration": 3600}, "params"))
SIGNAL = Listen(Template.constant({"name": "go", "timeout": 60}, "params"))
TASK = Ask(Template.constant({"title": "Look", "assignees": ["ann"]}, "params"))
BOOM = MockFailure("BOOM", "as given", {"n": 1}, retryable=True, times=2)


def dry(definition: Definition, dry_run: DryRun) -> Driver:
    """Return an execution that has started, and sends nothing."""
    driver = Driver(definition, dry_run=dry_run)
    driver.start()
    check(driver)
    return driver


def answer(driver: Driver, path: str) -> Answer | None:
    """Return what stands in the place of the attempt that runs."""
    return driver.running[path].answer


def test_the_mock_of_the_path_comes_before_that_of_the_place_the_handler_and_the_default() -> None:
    definition = sequence(each("e", "[1, 2]", step("x")), step("a"), step("b"))
    mocks = {"e[1].x": Mock("path"), "e.x": Mock("place"), "b": Mock("b")}
    driver = dry(definition, DryRun(mocks, {}, Mock("default"), ("a",)))
    assert answer(driver, "e[0].x") == Answer("place") and answer(driver, "e[1].x") == Answer("path")
    driver.succeed("e[0].x")
    driver.succeed("e[1].x")
    assert answer(driver, "a") == Answer("default")
    driver.succeed("a")
    assert answer(driver, "b") == Answer("b")
    driver = dry(definition, DryRun({"a": Mock("a")}, {"work": Mock("handler")}, Mock("default"), ("a",)))
    assert answer(driver, "e[0].x") == Answer("handler")


def test_what_has_no_mock_runs_and_is_told_that_it_is_dry() -> None:
    driver = dry(sequence(step("a"), step("b")), DryRun({"b": Mock()}))
    assert (driver.running["a"].answer, driver.running["a"].is_dry) == (None, True)
    assert not driver.rows["a"].is_mocked and not Driver(driver.definition).start().effects[0].is_dry  # type: ignore[union-attr]
    driver.succeed("a")
    assert driver.rows["b"].is_mocked and answer(driver, "b") == Answer(None)
    driver.succeed("b")
    told = [(type(body).__name__, body.mocked) for body in driver.bodies if hasattr(body, "mocked")]
    assert told == [("StepStarted", False), ("StepCompleted", False), ("StepStarted", True), ("StepCompleted", True)]
    check(driver)


def test_it_fails_as_often_as_it_is_to_whoever_was_lost_in_between() -> None:
    retry = RetryPolicy(max_attempts=3, initial_interval=1.0, jitter=0.0)
    driver = dry(sequence(step("a", retry=retry)), DryRun({"a": Mock(7, BOOM)}))
    boom = Answer(failure=Failure("BOOM", "as given", {"n": 1}, retryable=True))
    assert answer(driver, "a") == boom
    driver.recover()  # the first attempt was cut off, and counts for nothing
    for _ in range(2):
        assert answer(driver, "a") == boom
        driver.fail("a", failure=boom.failure)
        driver.fire(5)
    assert (driver.running["a"].attempt, answer(driver, "a")) == (4, Answer(7))
    driver.succeed("a", 7)
    check(driver)


def test_a_mock_of_a_worker_is_made_again_by_whoever_takes_over_also_where_it_is_to_run_once() -> None:
    driver = dry(sequence(step("a", delivery=Delivery.AT_MOST_ONCE)), DryRun({"a": Mock(7)}))
    driver.recover(remote=["work"])
    assert (driver.running["a"].resumed, driver.running["a"].attempt, answer(driver, "a")) == (False, 2, Answer(7))
    check(driver)


def test_no_time_is_waited_for() -> None:
    retry = RetryPolicy(max_attempts=2, initial_interval=3600.0)
    definition = sequence(step("w", action=LATER), step("a", retry=retry), step("b"))
    driver = dry(definition, DryRun(skips_waits=True))
    assert driver.states["w"] == "COMPLETED" and driver.now == driver.rows["w"].end_time
    driver.fail("a", retry_after=600.0)
    assert driver.wake_time("a") == driver.now + seconds(LEAST_PAUSE)
    driver.fire(LEAST_PAUSE)
    driver.succeed("a")
    driver.suspend("b", 3600, "late")
    assert (driver.states["b"], driver.rows["b"].output) == ("COMPLETED", "late")
    assert driver.state.state is ExecutionState.COMPLETED
    check(driver)
    driver = dry(definition, DryRun())
    assert driver.rows["w"].waits_for(WaitKind.TIMER)


@pytest.mark.parametrize(
    "action", [LATER, SIGNAL, TASK, Transform(Template.constant(1, "params")), Decide((("x", None),), "none")]
)
def test_what_the_server_runs_itself_ends_as_its_mock_says(action: Pause) -> None:
    conditional = step("b", condition="steps.a.output.n == 2")
    definition = sequence(step("a", action=action, assign={"seen": "result.n"}), conditional)
    driver = dry(definition, DryRun({"a": Mock({"n": 2})}))
    assert driver.states == {"a": "COMPLETED", "b": "RUNNING"} and driver.state.vars == {"seen": 2}
    assert driver.rows["a"].is_mocked and not driver.turns[-1].plan.tasks
    check(driver)
    driver = dry(definition, DryRun({"a": Mock(failure=MockFailure("NO"))}))
    assert (driver.state.state, driver.rows["a"].failure) == (ExecutionState.FAILED, {"code": "NO", "message": ""})
    assert driver.rows["a"].is_mocked
    check(driver)


def test_no_people_are_asked_and_a_signal_without_a_mock_is_waited_for() -> None:
    definition = sequence(step("a", action=TASK, on_error=OnError.CONTINUE), step("s", action=SIGNAL))
    driver = dry(definition, DryRun(skips_waits=True))
    assert (driver.rows["a"].failure or {})["code"] == NOT_MOCKED and not driver.turns[-1].plan.tasks
    assert driver.rows["s"].waits_for(WaitKind.SIGNAL)
    driver.fire(59)
    assert driver.rows["s"].waits_for(WaitKind.SIGNAL)
    driver.signal("go", {"n": 1})
    assert driver.state.state is ExecutionState.COMPLETED and not driver.rows["s"].is_mocked
    check(driver)


def test_conditions_and_params_are_evaluated_before_a_mock_counts() -> None:
    skipped = step("a", condition="false")
    broken = step("b", params={"x": "${ input.absent }"}, on_error=OnError.CONTINUE)
    driver = dry(sequence(skipped, broken, step("c")), DryRun(handlers={"work": Mock()}))
    assert driver.states == {"a": "SKIPPED", "b": "FAILED", "c": "RUNNING"}
    assert not driver.rows["b"].is_mocked
    check(driver)


def test_a_fork_and_a_later_run_have_the_same_mocks() -> None:
    dry_run = DryRun({"a": Mock(1), "b": Mock(failure=MockFailure("NO"))})
    driver = dry(sequence(step("a"), step("b")), dry_run)
    driver.succeed("a", 1)
    driver.fail("b", failure=Failure("NO", ""))
    assert driver.state.state is ExecutionState.FAILED
    fork = forked(driver.stored, driver.definition, "b")
    check(fork)
    fork.start()
    assert fork.rows["a"].is_mocked and answer(fork, "b") == Answer(failure=Failure("NO", ""))
    driver.reopen()
    assert driver.rows["b"].iteration == 2 and driver.rows["b"].state is StepState.RUNNING
    assert answer(driver, "b") == Answer(failure=Failure("NO", ""))
    check_stored(driver)


def test_mocks_count_as_written() -> None:
    plain, mocked = Driver(sequence(step("a"))), Driver(sequence(step("a")), dry_run=DryRun({"a": Mock("x" * 900)}))
    assert mocked.state.bytes > plain.state.bytes + 900
    assert isinstance(mocked.bodies[0], events.Created) and mocked.bodies[0].dry_run


def test_a_condition_sees_what_a_mock_gave() -> None:
    decide = Decide((("high", compile_condition("steps.a.output.amount > 100", VARIABLES)),), "low")
    driver = dry(sequence(step("a"), step("d", action=decide)), DryRun({"a": Mock({"amount": 200})}))
    given = answer(driver, "a")
    assert given is not None
    driver.succeed("a", given.output)
    assert driver.rows["d"].output == {"outcome": "high", "matched": True}
