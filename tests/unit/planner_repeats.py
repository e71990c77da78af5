"""Results of attempts that are not the current one, or that come twice."""

from __future__ import annotations

from service.engine.planning import happenings
from tests.unit.planner_programs import Driver


def play_stale(driver: Driver, path: str, how: int) -> None:
    """Deliver a result of an attempt before or behind the current one."""
    row = driver.rows.get(path)
    attempt = (row.attempt if row else 0) + (-1 if how % 2 else 1)
    if how < 2:
        driver.succeed(path, "stale", attempt=attempt)
    else:
        driver.fail(path, attempt=attempt)


def repeat(driver: Driver, which: int) -> None:
    """Deliver a result of an attempt once more."""
    results = [
        turn.happening
        for turn in driver.turns
        if isinstance(turn.happening, happenings.StepSucceeded | happenings.StepFailed | happenings.StepSuspended)
    ]
    if results:
        again = results[which % len(results)]
        driver.ended(again.path, again.attempt)
        driver.apply(again)
