"""When it is shown that an execution whose owners died does no harm: by what ran then, and by nothing else (ST7)."""

from __future__ import annotations

import pytest

from service.engine.running.deaths import Deaths
from tests.unit.planner_definitions import graph, step
from tests.unit.planner_programs import PLAIN, Driver


def left(work: int | None = None) -> Driver:
    """Return an execution of which two steps ran when its owner died, and which another has begun to drive."""
    driver = Driver(
        graph(step("quick"), step("deadly", retry=PLAIN), step("late", depends_on=("quick",))),
        waits_turns=True,
        work=work,
    )
    driver.start()
    take_turns(driver)
    driver.recover("second")
    return driver


def take_turns(driver: Driver) -> None:
    while driver.backlog:
        driver.take_turn()


def deaths(driver: Driver, count: int = 3) -> Deaths:
    """Return those of the execution, as its present owner noted them before anything happened."""
    first = next(turn for turn in reversed(driver.turns) if turn.is_first)
    return Deaths(count, first.before)


@pytest.mark.parametrize("work", [None, 1], ids=["at once", "in pieces"])
def test_deaths_are_not_over_before_all_that_ran_has_been_run_again(work: int | None) -> None:
    driver = left(work)
    noted = deaths(driver)
    assert bool(driver.backlog) == bool(work)
    assert not noted.are_over(driver.state)
    while driver.backlog:
        driver.take_turn()
        assert not noted.are_over(driver.state)
    driver.succeed("quick")
    assert not noted.are_over(driver.state)
    take_turns(driver)
    driver.fail("deadly")
    assert not noted.are_over(driver.state)  # it is tried again
    driver.fire(10)
    driver.succeed("deadly")
    take_turns(driver)
    assert noted.are_over(driver.state)
    assert "late" in driver.running  # it began here


def test_nothing_is_shown_while_something_is_left_to_be_taken_over() -> None:
    driver = Driver(graph(step("a"), step("b")), waits_turns=True, work=1)
    driver.start()
    take_turns(driver)
    driver.miss_handler("a")
    driver.succeed("b")
    driver.recover("second")
    noted = deaths(driver)
    assert driver.state.inherited and not noted.are_over(driver.state)
    take_turns(driver)
    assert noted.are_over(driver.state)


def test_what_may_begin_before_its_record_is_suspected_with_what_ran() -> None:
    driver = left()
    noted = deaths(driver)
    for name in ("deadly", "quick"):
        driver.succeed(name)
    noted.suspect([("late", 1)])
    assert not noted.are_over(driver.state)
    driver.succeed("late")
    assert noted.are_over(driver.state)


def test_what_nobody_died_of_has_nothing_to_show() -> None:
    assert not deaths(left(), count=0).are_over(left().state)
