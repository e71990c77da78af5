"""What makes it impossible to drive an execution is found in its records, and named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from persistence.model import Event, ExecutionState, StepCounts, StepState, Wait, WaitKind
from persistence.transition import Closing
from service.engine.failure import UNREADABLE_RECORD, Failure
from service.engine.planning import events
from service.engine.running.soundness import SHOWN, contradictions, ending, unreadable
from tests.unit.planner_definitions import each, sequence, step
from tests.unit.planner_programs import T0, Driver, started

RUNNING, WAITING, COMPLETED = StepState.RUNNING, StepState.WAITING, StepState.COMPLETED


def row(**changes: Any) -> Callable[[Driver], None]:
    """Spoil the row of the execution."""

    def spoil(driver: Driver) -> None:
        driver.execution = replace(driver.execution, **changes)

    return spoil


def of_step(path: str, **changes: Any) -> Callable[[Driver], None]:
    """Spoil the row of a step."""

    def spoil(driver: Driver) -> None:
        driver.rows[path] = replace(driver.rows[path], **changes)

    return spoil


def renamed(driver: Driver) -> None:
    """Let the row of a step be of one that the definition does not have."""
    driver.rows["z"] = replace(driver.rows.pop("b"), path="z")


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (row(), []),
        (row(start_time=None), ["start_time"]),
        (row(deadline_time=None), ["deadline_time"]),
        (row(state=ExecutionState.PENDING, start_time=None, deadline_time=None), []),
        (row(state=ExecutionState.CANCELLING), ["ending"]),
        (row(counts=StepCounts(total=4, completed=1, running=1)), ["step_counts"]),
        (row(counts=StepCounts(total=3, completed=2, running=1)), ["step_counts"]),
        (row(last_seq=2), ["last_seq"]),
        (renamed, ["steps.z"]),
        (of_step("b", state=WAITING), ["steps.b.wait"]),
        (of_step("b", state=WAITING, wait=Wait(WaitKind.TIMER, T0)), ["steps.b.wait"]),
        (of_step("b", state=WAITING, wait=Wait(WaitKind.RETRY, T0)), ["steps.b.wait"]),
        (of_step("b", state=WAITING, wait=Wait(WaitKind.WORKER, T0)), []),
        (of_step("b", state=WAITING, wait=Wait(WaitKind.TASK, T0, task="x")), ["steps.b.wait"]),
        (of_step("b", state=WAITING, wait=Wait(WaitKind.TIMER, T0, T0)), []),
        (of_step("a", end_seq=None), ["steps.a.end_seq"]),
    ],
)
def test_what_contradicts_itself_is_named(spoil: Callable[[Driver], None], named: list[str]) -> None:
    driver = started(sequence(step("a"), step("b"), step("c")))
    driver.succeed("a")
    spoil(driver)
    assert contradictions(driver.definition, driver.stored) == named


def test_items_add_steps_to_those_of_the_definition() -> None:
    driver = started(sequence(each("all", "[1, 2]", step("get"))))
    assert driver.execution.counts.total == 3
    assert contradictions(driver.definition, driver.stored) == []


def test_not_more_than_some_of_what_cannot_be_read_is_named() -> None:
    names = [f"column{number}" for number in range(SHOWN + 2)]
    some, more = unreadable(names[:SHOWN]), unreadable(names)
    assert some.message == f"what is recorded of it cannot be read: {', '.join(names[:SHOWN])}"
    assert more.message == f"{some.message} and 2 more"
    assert more.details == some.details == {"unreadable": names[:SHOWN]}
    assert (more.code, more.retryable) == (UNREADABLE_RECORD, False)


@pytest.mark.parametrize(
    ("state", "code"), [(ExecutionState.FAILED, "UNREADABLE_RECORD"), (ExecutionState.CANCELLED, "CANCELLED")]
)
def test_who_had_cancelled_an_execution_that_cannot_go_on_is_told_that_it_is_cancelled(
    state: ExecutionState, code: str
) -> None:
    told: list[events.Event] = []

    def encode(event: events.Event) -> Event:
        told.append(event)
        return Event(event.seq, event.transition_seq, "finished", event.time, b"")

    failure = Failure(UNREADABLE_RECORD, "why", details={"unreadable": ["x"]})
    closing = Closing(state, 7, T0, 30, StepCounts(total=3, completed=1, cancelled=2))
    shown, last = ending(failure, encode)(closing)
    assert (shown["code"], shown["details"], last.seq, last.transition_seq) == (code, {"unreadable": ["x"]}, 7, 7)
    assert "why" in shown["message"]
    assert (told[0].progress, told[0].counts, told[0].time) == (30, closing.counts, T0)
    assert isinstance(told[0].body, events.Finished) and told[0].body.state is state
