"""What attempts use: told by the events that end them, and summed up for the step and the execution."""

from __future__ import annotations

from typing import Any

from persistence.usage import MOST, Usage
from service.engine.failure import HANDLER_ERROR, Failure
from service.engine.planning import events
from tests.unit.planner_definitions import graph, seconds, sequence, step
from tests.unit.planner_programs import PLAIN, Driver, check_stored, started

ONE, TWO = Usage(100, 20, 3), Usage(output_tokens=7)
BOTH = Usage(100, 27, 3)


def told(driver: Driver) -> list[tuple[type[Any], Usage]]:
    """The events that tell of what was used."""
    found = ((type(body), getattr(body, "usage", None)) for body in driver.bodies)
    return [(kind, usage) for kind, usage in found if usage is not None]


def sums(driver: Driver) -> list[Usage | None]:
    """What is kept of the steps, and behind them of the execution."""
    check_stored(driver)
    return [*(driver.rows[path].usage for path in sorted(driver.rows)), driver.execution.usage]


def test_all_attempts_of_a_step_count_and_all_steps_of_an_execution() -> None:
    driver = started(sequence(step("a", retry=PLAIN), step("b"), step("c")))
    driver.fail("a", usage=ONE)
    assert sums(driver) == [ONE, ONE]
    driver.fire(1.0)
    driver.succeed("a", usage=TWO)
    driver.succeed("b", usage=ONE)
    driver.succeed("c")
    assert sums(driver) == [BOTH, ONE, None, ONE.plus(BOTH)]
    assert told(driver) == [(events.StepRetrying, ONE), (events.StepCompleted, TWO), (events.StepCompleted, ONE)]


def test_what_used_nothing_says_nothing() -> None:
    driver = started(sequence(step("a")))
    driver.succeed("a")
    assert (sums(driver), told(driver)) == ([None, None], [])


def test_an_attempt_that_fails_for_good_counts_and_what_its_end_stops_does_not_tell_it_again() -> None:
    driver = started(graph(step("a"), step("b"), step("c")))
    driver.fail("a", failure=Failure(HANDLER_ERROR, "boom"), usage=ONE)
    driver.stopped("b", usage=TWO)
    driver.succeed("c", usage=ONE)
    assert driver.states == {"a": "FAILED", "b": "CANCELLED", "c": "CANCELLED"}
    assert sums(driver) == [ONE, TWO, ONE, ONE.plus(BOTH)]
    assert told(driver) == [(events.StepFailed, ONE), (events.StepCancelled, TWO), (events.StepCancelled, ONE)]


def test_what_fails_for_what_it_gave_has_used_all_the_same() -> None:
    driver = started(sequence(step("a", assign={"x": "result.absent"})))
    driver.succeed("a", {}, usage=ONE)
    assert (driver.states, sums(driver), told(driver)) == ({"a": "FAILED"}, [ONE, ONE], [(events.StepFailed, ONE)])


def test_what_waits_after_its_attempt_tells_with_the_wait() -> None:
    driver = started(sequence(step("a")))
    driver.suspend("a", 5, 1, usage=ONE)
    assert sums(driver) == [ONE, ONE]
    driver.fire(5)
    assert (driver.states, sums(driver)) == ({"a": "COMPLETED"}, [ONE, ONE])
    assert told(driver) == [(events.StepWaiting, ONE)]


def test_what_comes_twice_or_too_late_counts_once() -> None:
    driver = started(sequence(step("a", retry=PLAIN), step("b")))
    driver.fail("a", usage=ONE)
    driver.fail("a", attempt=1, usage=ONE)
    driver.now += seconds(1)
    driver.recover()
    driver.fire()
    driver.succeed("a", attempt=1, usage=ONE)
    driver.succeed("a", usage=TWO)
    assert sums(driver) == [BOTH, None, BOTH]


def test_sums_end_at_what_a_message_can_carry() -> None:
    most = Usage(MOST, MOST - 1, 0)
    assert most.plus(Usage(1, 1, 1)) == Usage(MOST, MOST, 1)
