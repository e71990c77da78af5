"""What is stored of events, folded, gives what is stored in rows, after every transition.

What stands beyond the events is told in `folding.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace as replaced
from typing import Any

import pytest
from msgspec.structs import replace

from persistence.model import ExecutionDetail, ExecutionState, Step, StepCounts, StepState
from service.api.event_reading import decode
from service.api.events import encode
from service.engine.definition import OnItemError
from service.engine.failure import Failure
from service.engine.planning import events
from service.engine.planning.folding import Folding
from tests.unit.planner_definitions import sequence, step
from tests.unit.planner_histories import whatever_happens
from tests.unit.planner_programs import T0, Driver, started
from tests.unit.test_planner_reading import of_items


def traceless(failure: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return failure and {name: value for name, value in failure.items() if name != "stack_trace"}


def told(row: Step) -> Step:
    """A row without what no event tells."""
    attempts = tuple({**each, "failure": traceless(each["failure"])} for each in row.failed_attempts)
    return replace(row, failure=traceless(row.failure), failed_attempts=attempts)


def expected(stored: ExecutionDetail) -> ExecutionDetail:
    """What is stored, without what no event tells."""
    execution = stored.execution
    kept = replace(execution, ending=None, bytes=0, failure=traceless(execution.failure))
    steps = tuple(told(row) for row in sorted(stored.steps, key=lambda row: row.key))
    return replace(stored, execution=kept, steps=steps)


def check(driver: Driver) -> None:
    """After every transition the fold of the events, as they are stored, is what the rows hold."""
    folding = Folding(driver.definition, driver.execution, driver.input, dry_run=driver.dry_run)
    bare = Folding(driver.definition, driver.execution, driver.input, dry_run=driver.dry_run, has_steps=False)
    for turn in driver.turns:
        for event in turn.plan.events:
            stored = decode(encode(event))
            assert stored is not None
            folding.take(stored)
            bare.take(stored)
        assert folding.detail == expected(turn.stored)
        assert bare.detail == replace(folding.detail, steps=())


@whatever_happens
def test_events_tell_what_rows_hold_after_every_transition(driver: Driver) -> None:
    check(driver)


@pytest.mark.parametrize("mode", OnItemError)
def test_events_tell_what_rows_hold_of_items(mode: OnItemError) -> None:
    check(of_items(mode))


def test_a_failure_for_which_there_is_room_once_is_told_as_it_is_kept() -> None:
    driver = started(replaced(sequence(step("a")), max_bytes=10_000))
    driver.fail("a", failure=Failure("BROKEN", "it broke", {"why": "x" * 5_000}))
    assert driver.rows["a"].failure == driver.rows["a"].failed_attempts[0]["failure"]
    check(driver)


def test_what_ends_without_a_word_of_its_steps_has_cancelled_them() -> None:
    """As the store ends an execution of which nobody can go on with the rows."""
    driver = Driver(sequence(step("a"), step("b")))
    driver.start()
    folding = Folding(driver.definition, driver.execution, driver.input, dry_run=driver.dry_run)
    for event in driver.events:
        folding.take(event)
    failure, seq = Failure("UNREADABLE_RECORD", "it cannot be read"), driver.execution.last_seq + 1
    finished = events.Finished(ExecutionState.FAILED, None, failure)
    folding.take(events.Event(seq, seq, T0, 0, StepCounts(total=2, cancelled=2), finished))
    [cancelled] = folding.detail.steps
    assert (cancelled.state, cancelled.end_time, cancelled.end_seq) == (StepState.CANCELLED, T0, seq)
    assert (folding.detail.execution.state, folding.detail.execution.end_time) == (ExecutionState.FAILED, T0)


def test_what_is_reopened_runs_again_as_the_next_run() -> None:
    """As `ExecutionReopened` tells; what becomes of its steps, the events that follow do."""
    driver = Driver(sequence(step("a")))
    folding = Folding(driver.definition, driver.execution, driver.input, dry_run=driver.dry_run)
    failure = Failure("BROKEN", "it broke")
    bodies: tuple[events.EventBody, ...] = (
        events.Started(T0),
        events.Finished(ExecutionState.FAILED, None, failure),
        events.Reopened(2, "ann", "it is mended"),
        events.Finished(ExecutionState.COMPLETED, {"n": 1}, None),
        events.Reopened(3, "ann", ""),
    )
    shown = []
    for seq, body in enumerate(bodies, 1):
        event = decode(encode(events.Event(seq, seq, T0, 0, StepCounts(total=1), body)))
        assert event is not None
        assert event.body == body
        folding.take(event)
        found, result = folding.detail.execution, folding.detail.result
        shown.append((found.state, found.run, found.end_time, found.failure is None, result))
    assert shown == [
        ("RUNNING", 1, None, True, None),
        ("FAILED", 1, T0, False, None),
        ("RUNNING", 2, None, True, None),
        ("COMPLETED", 2, T0, True, {"n": 1}),
        ("RUNNING", 3, None, True, None),
    ]


def test_an_event_that_is_none_is_not_taken_for_one() -> None:
    [created] = Driver(sequence(step("a"))).events
    stored = encode(created)
    assert decode(stored) == created
    for body in (b"", b"\xff", replaced(stored, seq=7).body[:-1], encode(replace(created, seq=2)).body):
        assert decode(replaced(stored, body=body)) is None
