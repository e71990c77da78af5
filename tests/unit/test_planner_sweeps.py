"""What is in work of an end, or of a process that is gone, is seen to within what one application may do."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import pytest

from persistence.model import ExecutionState, Message, StepState
from service.engine.definition import Action, Call, Delivery, OnError, OnItemError, Ordering, Pause
from service.engine.expressions import Template
from service.engine.expressions.cost import PER_ALLOWANCE
from service.engine.planning import course, happenings
from service.engine.planning.course import WORK_OF_FORGETTING
from service.engine.planning.effects import CancelAttempt
from service.engine.planning.step_rules import WORK_OF_STEP
from tests.unit.planner_definitions import each, graph, seconds, sequence, step
from tests.unit.planner_programs import CANCEL, FATAL, PLAIN, T0, Driver, check_stored, started

ROWS = {"rows": list(range(40))}
MANY = 40 * 40
PAUSE = Pause(Template.constant({"duration": 600}, "params"))
CALL = Call("work", Template.constant({}, "params"))

ENDS: dict[str, Callable[[Driver], object]] = {
    "cancel": lambda driver: driver.cancel(),
    "failure": lambda driver: driver.fail("last", failure=FATAL),
    "deadline": lambda driver: driver.fire(99_999),
    "verdict": lambda driver: driver.apply(happenings.Condemned(driver.now, FATAL)),
}


def much_in_work(action: Action) -> Driver:
    """Return an execution with items in items that all are in work; what is put off waits for its turn."""
    inner = each("inner", "input.rows", step("a", action=action), limit=100)
    driver = Driver(graph(each("outer", "input.rows", inner, limit=100), step("last")), ROWS, waits_turns=True)
    driver.start()
    take_turns(driver)
    assert driver.state.counts.running == MANY + 42
    return driver


def take_turns(driver: Driver) -> None:
    while driver.backlog:
        driver.take_turn()


@pytest.mark.parametrize("action", [PAUSE, CALL], ids=["waiting", "running"])
@pytest.mark.parametrize("end", ENDS)
def test_an_end_stops_what_is_in_work_piece_by_piece(end: str, action: Action) -> None:
    driver = much_in_work(action)
    before = len(driver.turns)
    ENDS[end](driver)
    assert driver.state.ending and driver.backlog
    take_turns(driver)
    turns = driver.turns[before:]
    assert all(turn.plan.work <= PER_ALLOWANCE + 3 * WORK_OF_STEP for turn in turns)
    told = {effect.path for turn in turns for effect in turn.plan.effects if isinstance(effect, CancelAttempt)}
    if action is PAUSE or end == "verdict":
        assert {driver.states[path] for path in driver.states if path != "last"} == {"CANCELLED"}
    else:
        assert len(told - {"last"}) == MANY
    assert not driver.state.sweeps


def test_what_waits_for_a_handler_begins_piece_by_piece_when_that_has_come() -> None:
    driver = much_in_work(CALL)
    for path in list(driver.running):
        driver.miss_handler(path)
    take_turns(driver)
    assert not driver.running
    before = len(driver.turns)
    for _ in range(2):  # on two streams at once
        driver.apply(happenings.HandlersCame(driver.now, frozenset({"other", "work"})))
    assert driver.backlog
    take_turns(driver)
    assert len(driver.running) == MANY + 1
    assert all(turn.plan.work <= PER_ALLOWANCE + 3 * WORK_OF_STEP for turn in driver.turns[before:])
    assert all(len(turn.plan.steps) < MANY // 4 for turn in driver.turns[before:])
    assert not driver.state.sweeps
    check_stored(driver)


def test_a_handler_that_nothing_waits_for_begins_nothing() -> None:
    driver = started(sequence(step("a")))
    driver.miss_handler("a")
    assert not driver.apply(happenings.HandlersCame(driver.now, frozenset({"other"}))).events
    driver.cancel()
    assert not driver.apply(happenings.HandlersCame(driver.now, frozenset({"work"}))).events


def test_an_end_forgets_at_once_until_when_was_waited() -> None:
    """Not when the last one that waits is stopped: to look through what ten thousands waited for holds others up."""
    driver = much_in_work(PAUSE)
    driver.cancel()
    assert driver.state.sweeps and driver.state.counts.running > MANY // 2
    assert not driver.state.timers and driver.state.next_wake is None


@pytest.mark.parametrize("action", [PAUSE, CALL], ids=["waiting", "ready"])
def test_what_a_failed_item_leaves_of_timers_and_of_what_was_ready_is_forgotten_piece_by_piece(action: Action) -> None:
    body = step("bad"), *(step(f"s{n}", action=action, depends_on=("bad",)) for n in range(30))
    all_ = each("all", "[1, 2]", *body, ordering=Ordering.GRAPH, on_error=OnError.CONTINUE)
    others = (step(f"for_{n}", action=Pause(Template.constant({"duration": n}, "params"))) for n in (5, 900))
    driver = Driver(graph(*others, all_), waits_turns=True, work=1 if action is CALL else None)
    driver.start()
    take_turns(driver)
    driver.succeed("all[0].bad")
    if action is PAUSE:
        take_turns(driver)
    kept = driver.state.timers if action is PAUSE else driver.state.ready
    assert len(list(kept)) >= 29
    before = len(driver.turns)
    with mock.patch.object(course, "MOST_FORGOTTEN", 7):
        driver.apply_now(happenings.StepFailed(driver.now, "all[1].bad", driver.ended("all[1].bad"), FATAL))
        while not driver.state.state.is_end:
            check_stored(driver)
            if driver.backlog:
                driver.take_turn()
            elif driver.told_to_stop:
                driver.stopped(min(driver.told_to_stop))
            else:
                driver.fire(100)
    assert (driver.states["all"], driver.states["for_5"]) == ("FAILED", "COMPLETED")
    for turn in driver.turns[before:-1]:
        left, now = (len(list(state.timers)) + len(list(state.ready)) for state in (turn.before, turn.plan.state))
        assert left - now <= 7 + 1  # one that has gone on
        assert turn.plan.work >= WORK_OF_FORGETTING * (left - now - 1)


@pytest.mark.parametrize("action", [PAUSE, CALL], ids=["waiting", "running"])
def test_a_process_that_dies_half_way_through_a_stop_leaves_the_rest_to_the_next(action: Action) -> None:
    driver = much_in_work(action)
    driver.cancel()
    driver.take_turn()
    assert 0 < len(driver.told_to_stop) + driver.state.counts.cancelled < MANY
    check_stored(driver)
    driver.recover()
    check_stored(driver)
    assert not driver.state.state.is_end
    driver.recover()
    take_turns(driver)
    assert driver.state.state is ExecutionState.CANCELLED
    assert set(driver.states.values()) == {"CANCELLED"}


def test_all_that_was_cut_off_is_begun_again_piece_by_piece() -> None:
    driver = much_in_work(CALL)
    before = len(driver.turns)
    driver.recover("second")
    assert driver.backlog and any(row.worker == "" for row in driver.rows.values() if row.attempt)
    assert driver.succeed("outer[39].inner[39].a", attempt=1).is_empty  # it is cut off, though not begun again yet
    take_turns(driver)
    assert all(turn.plan.work <= PER_ALLOWANCE + 3 * WORK_OF_STEP for turn in driver.turns[before:])
    assert {row.attempt for path, row in driver.rows.items() if path.endswith("a")} == {2}


@pytest.mark.parametrize("mode", OnItemError)
def test_what_a_failed_item_is_about_to_stop_goes_on_no_more(mode: OnItemError) -> None:
    """Neither by a timer nor by a thread that comes free, nor by what is told of an attempt."""
    body = step("bad"), step("calls"), step("waits", action=PAUSE), step("queues")
    steps = each("all", "[1, 2]", *body, ordering=Ordering.GRAPH, on_item_error=mode), step("other")
    driver = Driver(graph(*steps), waits_turns=True, work=1)
    driver.start()
    take_turns(driver)
    driver.miss_thread("all[0].queues")
    driver.fail("all[0].bad", failure=FATAL)
    assert driver.state.sweeps and driver.rows["all[0].waits"].state is StepState.WAITING
    driver.apply_now(happenings.SlotFreed(driver.now, "all[0].queues"))
    driver.now += seconds(700)
    driver.apply_now(happenings.TimerFired(driver.now))
    driver.apply_now(happenings.StepSucceeded(driver.now, "all[0].calls", driver.ended("all[0].calls"), 1))
    check_stored(driver)
    take_turns(driver)
    states = {driver.states[f"all[0].{name}"] for name in ("calls", "waits", "queues")}
    assert (states, driver.states["all[0].bad"]) == ({"CANCELLED"}, "FAILED")
    assert driver.state.repeats["all"].open == 1
    check_stored(driver)


def test_an_end_is_recorded_before_anything_of_it() -> None:
    """Where the first piece finds nothing to stop, too."""
    driver = Driver(graph(each("all", "[1, 2]", step("a", action=PAUSE))), waits_turns=True, work=1)
    driver.start()
    take_turns(driver)
    plan = driver.fire(99_999)
    assert (plan.events, plan.is_empty) == ((), False)
    assert driver.execution.ending is not None
    check_stored(driver)


SHUT_DOWN: dict[str, list[Message]] = {"cancel": [CANCEL], "deadline": [], "sibling": []}


@pytest.mark.parametrize("why", SHUT_DOWN)
def test_an_item_with_nothing_in_work_ends_with_what_is_around_it(why: str) -> None:
    """The next step of it was ready, and put off since the process stopped."""
    steps = step("a", delivery=Delivery.AT_MOST_ONCE), step("b")
    driver = started(sequence(each("each", "[1, 2]", *steps)))
    driver.backlog.append(happenings.StepSucceeded(T0, "each[0].a", driver.ended("each[0].a"), None))
    driver.shut_down()
    if why == "deadline":
        driver.now += seconds(99_999)
    driver.recover(mail=SHUT_DOWN[why])
    assert driver.state.state.is_end
    assert driver.states["each"] == ("FAILED" if why == "sibling" else "CANCELLED")


def test_an_item_with_nothing_in_work_ends_at_once_at_a_cancel() -> None:
    driver = Driver(sequence(each("each", "[1, 2]", step("a"), step("b"))), waits_turns=True, work=1)
    driver.start()
    while not driver.running:
        driver.take_turn()
    driver.backlog.clear()
    driver.backlog.append(happenings.StepSucceeded(T0, "each[0].a", driver.ended("each[0].a"), None))
    driver.take_turn()
    assert driver.state.blocks["each[0]"].open == 0
    driver.cancel()
    while driver.backlog:
        driver.take_turn()
    assert driver.state.state is ExecutionState.CANCELLED
    assert driver.states == {"each": "CANCELLED", "each[0].a": "COMPLETED"}


def test_an_end_is_complete_when_the_process_stops_and_nothing_runs_any_more() -> None:
    """Also where steps were ready when it was decided: they do not begin any more, so nothing waits for them."""
    driver = Driver(graph(step("a"), step("b"), step("c")), waits_turns=True, work=1)
    driver.start()
    assert list(driver.running) == ["a"] and driver.state.ready
    driver.cancel()
    take_turns(driver)
    driver.backlog.append(happenings.StepSucceeded(T0, "a", driver.ended("a"), 1))
    driver.shut_down()
    assert driver.state.state is ExecutionState.CANCELLED


def test_an_end_that_stops_more_than_an_application_begins_finishes_at_once() -> None:
    wait = Pause(Template.constant({"duration": 600}, "params"))
    nested = each("inner", "[1, 2, 3]", step("a", action=wait))
    driver = Driver(sequence(each("outer", "[1, 2, 3]", nested, limit=2)), enough=4_000)
    driver.start()
    assert driver.state.counts.running > 8
    driver.cancel()
    assert driver.state.state is ExecutionState.CANCELLED


def test_what_a_sweep_frees_while_the_process_stops_begins_with_the_next_one() -> None:
    """A step that may run once and was recorded as begun would fail without ever having run."""
    items = (step("a"), step("b", retry=PLAIN))
    all_ = each("all", "[1]", *items, ordering=Ordering.GRAPH, limit=1, on_error=OnError.CONTINUE)
    driver = Driver(sequence(all_, step("once", delivery=Delivery.AT_MOST_ONCE)))
    driver.start()
    driver.fail("all[0].b")
    plan = driver.apply_now(happenings.StepFailed(driver.now, "all[0].a", 1, FATAL), begins=False)
    assert (plan.effects, driver.states["all"], "once" in driver.states) == ((), "FAILED", False)
    driver.recover("second")
    assert driver.states["once"] == "RUNNING"
