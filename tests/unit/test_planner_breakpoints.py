"""Breakpoints: an execution is held before a step, shown what that would be called with, and goes on as it is told."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from persistence.breakpoints import Breakpoint, Breakpoints, Halt
from persistence.model import Edit, ExecutionState, Message, MessageKind, WaitKind
from service.engine.definition import Pause, RetryPolicy, Transform
from service.engine.expressions import Template, compile_value
from service.engine.parsing.sources import IN_PARAMS, VARIABLES
from service.engine.payload import size
from service.engine.planning import events, happenings, planner
from service.engine.planning.draft import EVENT_BYTES
from tests.unit.planner_checks import check
from tests.unit.planner_definitions import each, graph, sequence, step
from tests.unit.planner_programs import FATAL, Driver, check_stored, started, starts

PAUSED, COMPLETED = ExecutionState.PAUSED, ExecutionState.COMPLETED


def held(driver: Driver) -> dict[str, Any]:
    """Return what each step that is held would be called with."""
    return {path: row.input for path, row in driver.rows.items() if row.waits_for(WaitKind.BREAKPOINT)}


def test_it_is_held_before_the_step_and_shows_its_input() -> None:
    driver = started(sequence(step("a"), step("b", params={"n": "${ steps.a.output }"}), step("c")))
    driver.set_breakpoints("b")
    driver.succeed("a", 7)
    assert (driver.state.state, held(driver)) == (PAUSED, {"b": {"n": 7}})
    assert driver.state.pause is not None and driver.state.pause.reason == "before step b"
    assert driver.bodies[-1] == events.Paused("ann", "before step b", step_path="b")
    assert driver.fire(3).is_empty
    check(driver)
    driver.resume()
    assert (driver.states["b"], driver.running["b"].params) == ("RUNNING", {"n": 7})
    driver.succeed("b")
    assert driver.states["c"] == "RUNNING"
    check(driver)


def test_what_was_edited_is_what_each_attempt_is_called_with() -> None:
    driver = started(sequence(step("a", retry=RetryPolicy(max_attempts=3, initial_interval=1.0, jitter=0.0))))
    driver = Driver(driver.definition)
    driver.set_breakpoints("a")
    driver.start()
    driver.edit_input("a", {"n": 2})
    assert held(driver) == {"a": {"n": 2}}
    check(driver)
    driver.recover()  # another process goes on with it
    driver.resume()
    assert driver.running["a"].params == {"n": 2}
    driver.fail("a")
    driver.fire(5)
    assert (driver.running["a"].attempt, driver.running["a"].params) == (2, {"n": 2})
    driver.miss_handler("a")
    driver.recover(handlers=["work"])
    assert driver.running["a"].params == {"n": 2}
    check(driver)


def test_variables_that_are_set_are_seen_by_what_is_held_and_by_what_comes_later() -> None:
    driver = Driver(
        sequence(
            step("a", assign={"n": "1"}),
            step("b", params={"n": "${ vars.n }"}),
            step("c", condition="vars.n > 5", params={"n": "${ vars.n }"}, assign={"n": "result"}),
            step("d", params={"n": "${ vars.n }"}),
        )
    )
    driver.set_breakpoints("b")
    driver.start()
    driver.succeed("a")
    assert held(driver) == {"b": {"n": 1}}
    plan, wait = driver.edit_variables({"n": 7}), driver.rows["b"].wait
    assert wait is not None
    assert [event.body for event in plan.events] == [
        events.VariablesAssigned("", {"n": 7}, edited_by="ann"),
        events.StepWaiting("b", wait, input={"n": 7}),
    ]
    assert (held(driver), driver.state.vars) == ({"b": {"n": 7}}, {"n": 7})
    check(driver)
    driver.recover()  # another process goes on with it
    driver.edit_variables({"n": True})
    assert held(driver)["b"]["n"] is True
    driver.edit_variables({"n": 8})
    driver.resume()
    driver.succeed("b")
    assert driver.running["c"].params == {"n": 8}
    driver.succeed("c", 9)
    assert driver.running["d"].params == {"n": 9}
    check(driver)


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_variables_that_come_behind_an_end_are_seen_by_a_later_run(is_cancelled: bool) -> None:
    """CA10: they were set before it was decided; a cancel is heeded before them on a busy loop."""
    driver = Driver(
        graph(
            step("a", assign={"n": "1"}),
            step("b", depends_on=["a"]),
            step("c", depends_on=["a"]),
            step("d", params={"n": "${ vars.n }"}, depends_on=["a"]),
        )
    )
    driver.set_breakpoints("d")
    driver.start()
    driver.succeed("a")
    if is_cancelled:
        driver.cancel()
        driver.stopped("b")
    else:
        driver.fail("b", failure=FATAL)
    plan = driver.edit_variables({"n": 7})  # the end waits for what still runs
    assert [event.body for event in plan.events] == [events.VariablesAssigned("", {"n": 7}, edited_by="ann")]
    driver.stopped("c")
    assert driver.state.state is (ExecutionState.CANCELLED if is_cancelled else ExecutionState.FAILED)
    check(driver)
    driver.reopen()
    driver.resume()
    assert driver.running["d"].params == {"n": 7}


def test_what_a_held_step_shows_anew_is_counted_each_time_that_it_is_written() -> None:
    driver = Driver(sequence(step("a", assign={"n": "1"}), step("b", params={"n": "${ vars.n }"})))
    driver.set_breakpoints("b")
    driver.start()
    driver.succeed("a")
    for _ in range(2):  # also where it is as it was
        before = driver.state.bytes
        plan = driver.edit_variables({"n": 7})
        assert [type(event.body) for event in plan.events] == [events.VariablesAssigned, events.StepWaiting]
        assert driver.state.bytes - before == 2 * (size({"n": 7}) + EVENT_BYTES)


def test_an_input_that_was_edited_stays_so_when_variables_are_set() -> None:
    driver = Driver(sequence(step("a", assign={"n": "1"}), step("b", params={"n": "${ vars.n }"})))
    driver.set_breakpoints("b")
    driver.start()
    driver.succeed("a")
    driver.edit_input("b", {"n": 2})
    driver.edit_variables({"n": 7})
    assert (held(driver), driver.state.vars) == ({"b": {"n": 2}}, {"n": 7})
    driver.recover()
    driver.edit_variables({"n": 8})
    driver.resume()
    assert driver.running["b"].params == {"n": 2}
    check(driver)


def test_what_is_held_and_cannot_be_called_so_shows_nothing_and_fails_when_it_begins() -> None:
    driver = Driver(sequence(step("a", assign={"n": "1"}), step("b", params={"n": "${ 10 / vars.n }"})))
    driver.set_breakpoints("b")
    driver.start()
    driver.succeed("a")
    driver.edit_variables({"n": 0})
    assert held(driver) == {"b": None}
    check(driver)
    driver.edit_variables({"n": 5})
    assert held(driver) == {"b": {"n": 2}}
    driver.edit_variables({"n": 0})
    driver.resume()
    assert driver.states["b"] == "FAILED"
    check(driver)


def test_variables_are_set_while_it_is_paused_alone() -> None:
    driver = started(sequence(step("a", assign={"n": "1"}), step("b", params={"n": "${ vars.n }"})))
    assert not driver.edit_variables({"n": 7}).events
    driver.pause()
    driver.edit_variables({"n": 7})
    driver.succeed("a")  # it ran before, and assigns
    driver.edit_variables({"n": 8})
    driver.cancel()
    assert not driver.edit_variables({"n": 9}).events
    assert driver.state.vars == {"n": 8}
    check(driver)


def test_what_is_not_held_cannot_be_edited() -> None:
    driver = started(sequence(step("a"), step("b")))
    driver.pause()
    plan = driver.edit_input("a", {"n": 2})
    assert (plan.events, driver.rows["a"].input) == ((), {})


def test_a_condition_looks_at_what_the_step_is_called_with() -> None:
    body = step("a", params={"n": "${ item }"})
    driver = Driver(sequence(each("e", "[1, 2, 3]", body, limit=1)))
    driver.set_breakpoints(("e.a", "params.n == 2"))
    driver.start()
    driver.succeed("e[0].a")
    assert held(driver) == {"e[1].a": {"n": 2}}
    driver.resume()
    driver.succeed("e[1].a")
    assert starts(driver)[-1] == ("e[2].a", 1)
    check(driver)


def test_a_condition_that_fails_holds() -> None:
    driver = Driver(sequence(step("a")))
    driver.set_breakpoints(("a", "params.absent > 1"))
    driver.start()
    assert "a" in held(driver)


def test_it_goes_from_step_to_step() -> None:
    driver = Driver(graph(step("a"), step("b"), step("c", depends_on=("a", "b"))))
    driver.set_breakpoints("a")
    driver.start()
    seen = []
    while held(driver):
        seen.append(sorted(held(driver)))
        driver.resume(step_over=True)
        for path in sorted(driver.running):
            driver.succeed(path)
        check(driver)
    assert seen == [["a"], ["b"], ["c"]]
    assert driver.state.state is COMPLETED
    assert driver.state.breakpoints == Breakpoints("ann", (Breakpoint("a"),), Halt.NEXT, let_on_by="ann")


def test_it_goes_to_a_step_and_not_beyond_the_next_breakpoint() -> None:
    driver = Driver(sequence(*map(step, "abcd")))
    driver.set_breakpoints("a", "b")
    driver.start()
    driver.resume(run_to="c")
    driver.succeed("a")
    assert list(held(driver)) == ["b"]
    driver.set_breakpoints()
    driver.resume(run_to="d")
    driver.succeed("b")
    driver.succeed("c")
    assert list(held(driver)) == ["d"]
    driver.resume()
    assert driver.state.breakpoints is None
    driver.succeed("d")
    assert driver.state.state is COMPLETED
    check(driver)


def test_what_a_retry_has_edited_is_what_is_shown_and_called() -> None:
    driver = Driver(sequence(step("a", params={"n": 1})))
    driver.set_breakpoints("a")
    driver.start()
    driver.resume()
    driver.fail("a", failure=FATAL)
    driver.reopen(edit=Edit("a", 2, {"n": 99}))
    assert held(driver) == {"a": {"n": 99}}
    driver.resume()
    assert driver.running["a"].params == {"n": 99}
    check_stored(driver)


def test_what_is_held_begins_before_what_is_held_next() -> None:
    driver = Driver(graph(step("a"), step("b")))
    driver.set_breakpoints("a", "b")
    driver.start()
    resume = Message(UUID(int=4), MessageKind.RESUME, driver.now, "ann", {"step_over": True})
    plan = planner.apply(driver.definition, driver.state, happenings.MessageCame(driver.now, resume), settles=False)
    assert [getattr(event.body, "path", "") for event in plan.events] == ["", "a"]
    assert isinstance(plan.events[-1].body, events.StepStarted)


def test_breakpoints_that_are_set_on_the_way_leave_where_it_goes() -> None:
    driver = Driver(sequence(*map(step, "abcd")))
    driver.set_breakpoints("a")
    driver.start()
    driver.resume(run_to="c")
    driver.set_breakpoints("d")
    driver.succeed("a")
    driver.succeed("b")
    assert list(held(driver)) == ["c"]
    check(driver)


def test_what_a_condition_looks_at_is_not_worked_out_twice() -> None:
    heavy = {"n": "${ input.l.filter(x, input.l.exists(y, y == x + 0)).size() }"}
    driver = Driver(sequence(step("a", params=heavy)), {"l": list(range(80))})
    driver.set_breakpoints(("a", "params.n < 0"))
    driver.start()
    assert driver.running["a"].params == {"n": 80}


def test_steps_of_the_engine_are_held_too() -> None:
    pause = Pause(Template.parse({"duration": "5s"}, IN_PARAMS))
    driver = Driver(sequence(step("a", action=Transform(compile_value("1", VARIABLES))), step("b", action=pause)))
    driver.set_breakpoints("a", "b")
    driver.start()
    for path in ("a", "b"):
        assert held(driver) == {path: None}
        check(driver)
        driver.resume()
        check(driver)
    driver.fire(6)
    assert driver.state.state is COMPLETED


@pytest.mark.parametrize("how", ["cancel", "terminate"])
def test_what_is_held_is_cancelled(how: str) -> None:
    driver = Driver(sequence(step("a")))
    driver.set_breakpoints("a")
    driver.start()
    getattr(driver, how)()
    assert (driver.state.state, driver.states) == (ExecutionState.CANCELLED, {"a": "CANCELLED"})
    check(driver)
