"""The rules of the planner: order, conditions, data, results, and the numbers that are shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from persistence.model import ExecutionState, StepState
from service.engine.definition import Delivery, OnError
from service.engine.planning import events, happenings, planner
from tests.unit.planner_definitions import graph, seconds, sequence, step
from tests.unit.planner_programs import FATAL, PLAIN, T0, Driver, check_stored, started, starts

# --- order


def test_a_sequence_runs_one_step_after_the_other():
    driver = started(sequence(step("a"), step("b"), step("c")))
    for path in "abc":
        assert list(driver.running) == [path]
        driver.succeed(path, path.upper())
    assert driver.state.state is ExecutionState.COMPLETED
    assert driver.state.result == "C"


def test_the_start_is_recorded_with_its_deadline():
    driver = Driver(sequence(step("a"), timeout=60.0))
    assert driver.state.state is ExecutionState.PENDING
    assert driver.bodies == [events.Created(str(driver.execution.workflow_id), "test", 1, "ann", None)]
    driver.start()
    assert driver.bodies[1] == events.Started(T0 + seconds(60))
    assert driver.start().is_empty


def test_accepting_again_records_nothing():
    driver = Driver(sequence(step("a")))
    assert driver.apply(happenings.Accepted(T0)).is_empty


def test_a_delayed_execution_starts_at_its_time_and_not_before():
    driver = Driver(sequence(step("a")), scheduled_time=T0 + seconds(10))
    assert driver.state.next_wake == T0 + seconds(10)
    assert driver.fire(9.999).is_empty
    assert driver.fire(0.001).effects
    assert driver.state.start_time == T0 + seconds(10)


def test_a_graph_starts_what_is_free_in_parallel_and_joins():
    driver = started(graph(step("a"), step("b"), step("c", depends_on=("a", "b"))))
    assert set(driver.running) == {"a", "b"}
    driver.succeed("a", 1)
    assert set(driver.running) == {"b"}
    driver.succeed("b", 2)
    assert set(driver.running) == {"c"}


def test_a_graph_need_not_be_listed_in_its_order():
    driver = started(graph(step("last", depends_on=("first",)), step("first")))
    driver.succeed("first")
    driver.succeed("last")
    assert starts(driver) == [("first", 1), ("last", 1)]


# --- conditions


def test_a_false_condition_skips_the_step_and_the_sequence_goes_on():
    driver = started(sequence(step("a", condition="input.wanted"), step("b")), {"wanted": False})
    assert driver.states == {"a": "SKIPPED", "b": "RUNNING"}
    assert driver.rows["a"].skip_reason == "its condition is false: input.wanted"


def test_what_only_depends_on_skipped_steps_is_skipped():
    driver = started(
        graph(
            step("a", condition="false"),
            step("b"),
            step("only", depends_on=("a",)),
            step("further", depends_on=("only",)),
            step("mixed", depends_on=("a", "b")),
        )
    )
    assert driver.states == {"a": "SKIPPED", "b": "RUNNING", "only": "SKIPPED", "further": "SKIPPED"}
    driver.succeed("b")
    assert driver.states["mixed"] == "RUNNING"


def test_an_execution_of_skipped_steps_only_completes_at_once():
    driver = started(graph(step("a", condition="false"), step("b", depends_on=("a",))))
    assert driver.state.state is ExecutionState.COMPLETED
    assert driver.state.result == {}
    assert driver.state.progress == 100


def test_a_condition_sees_earlier_steps():
    driver = started(sequence(step("a"), step("b", condition="steps.a.output.score > 3")))
    driver.succeed("a", {"score": 2})
    assert driver.states["b"] == "SKIPPED"


@pytest.mark.parametrize(("fails", "state"), [(False, "SKIPPED"), (True, "RUNNING")])
def test_a_condition_asks_whether_a_step_has_failed(fails: bool, state: str):
    driver = started(sequence(step("a", on_error=OnError.CONTINUE), step("b", condition="has(steps.a.error)")))
    driver.fail("a") if fails else driver.succeed("a", 1)
    assert driver.states["b"] == state


# --- data


def test_params_see_input_outputs_and_the_attempt():
    params = {"text": "${ input.name } ${ steps.a.output }", "try": "${ attempt }"}
    driver = started(sequence(step("a"), step("b", params=params, retry=PLAIN)), {"name": "Zoe"})
    driver.succeed("a", 7)
    assert driver.running["b"].params == {"text": "Zoe 7", "try": 1}
    driver.fail("b")
    driver.fire(1)
    assert driver.running["b"].params["try"] == 2
    assert driver.rows["b"].input == {"text": "Zoe 7", "try": 2}


def test_assigned_variables_are_kept_with_the_step_and_seen_after_it():
    driver = started(
        sequence(
            step("a", assign={"total": "result.price * 2"}),
            step("b", params={"total": "${ vars.total }"}, assign={"total": "vars.total + 1"}),
        )
    )
    driver.succeed("a", {"price": 4})
    assert driver.rows["a"].assigned == {"total": 8}
    assert driver.bodies[-2] == events.VariablesAssigned("a", {"total": 8})
    assert driver.running["b"].params == {"total": 8}
    driver.succeed("b")
    assert driver.state.vars == {"total": 9}
    check_stored(driver)


def test_variables_are_folded_in_the_order_in_which_steps_ended():
    driver = started(graph(step("a", assign={"x": "'a'"}), step("b", assign={"x": "'b'"})))
    driver.succeed("b")
    driver.succeed("a")
    assert driver.state.vars == {"x": "a"}
    check_stored(driver)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (step("a", condition="input.absent"), "condition: "),
        (step("a", params={"x": "${ input.absent }"}), "params.x: "),
        (step("a", assign={"x": "result.absent"}), "assign: "),
        # Numbers that JSON does not have, or that doubles do not tell apart.
        (step("a", condition="execution.revision % 0 == 1"), "condition: modulus by zero"),
        (step("a", params={"x": "${ 1e308 * 10 }"}), "params.x: result: must be a finite number"),
        (step("a", params={"x": "n = ${ 0.0 / 0.0 }"}), "params.x: result: must be a finite number"),
        (step("a", assign={"x": "execution.revision * 9007199254740992"}), "assign: result: must be between -"),
        (step("a", assign={"x": "-1 / 0.0"}), "assign: result: must be a finite number"),
    ],
)
def test_an_expression_error_fails_the_step_for_good(broken: Any, message: str):
    driver = started(sequence(replace(broken, retry=PLAIN)))
    if driver.running:
        driver.succeed("a", {})
    failure = driver.rows["a"].failure
    assert failure is not None and failure["code"] == "EXPRESSION_ERROR"
    assert failure["message"].startswith(message)
    assert driver.state.state is ExecutionState.FAILED
    assert driver.rows["a"].output is None
    check_stored(driver)


def test_params_that_cannot_be_had_on_a_later_attempt_fail_the_step():
    driver = started(sequence(step("a", params={"x": "${ attempt < 2 ? 1 : input.absent }"}, retry=PLAIN)))
    driver.fail("a")
    driver.fire(1)
    assert driver.states == {"a": "FAILED"}
    assert driver.rows["a"].wait is None


# --- results


def test_the_result_of_a_sequence_is_the_output_of_the_last_completed_step():
    driver = started(sequence(step("a"), step("b"), step("c", condition="false")))
    driver.succeed("a", 1)
    driver.succeed("b", 2)
    assert driver.state.result == 2


def test_the_result_of_a_graph_holds_the_outputs_of_its_completed_sinks():
    driver = started(graph(step("a"), step("b", depends_on=("a",)), step("c"), step("d", condition="false")))
    driver.succeed("a", 1)
    driver.succeed("b", 2)
    driver.succeed("c", 3)
    assert driver.state.result == {"b": 2, "c": 3}


def test_the_output_template_gives_the_result():
    driver = started(sequence(step("a", assign={"x": "result + 1"}), output={"sum": "${ vars.x + steps.a.output }"}))
    driver.succeed("a", 1)
    assert driver.state.result == {"sum": 3}
    assert driver.bodies[-1] == events.Finished(ExecutionState.COMPLETED, {"sum": 3}, None)


@pytest.mark.parametrize("output", ["${ steps.a.output.absent }", {"x": ["${ 1e308 * 10 }"]}, "${ 9007199254740993 }"])
def test_an_output_that_cannot_be_had_fails_the_execution(output: Any):
    driver = started(sequence(step("a"), output=output))
    driver.succeed("a", {})
    assert driver.state.state is ExecutionState.FAILED
    assert driver.state.failure is not None and driver.state.failure.code == "EXPRESSION_ERROR"
    assert driver.state.result is None
    assert [event.progress for event in driver.events] == [0, 0, 0, 50, 50]
    check_stored(driver)


# --- progress, counts and numbers


def test_events_carry_the_progress_and_counts_after_them():
    driver = started(graph(step("a"), step("b", condition="false"), step("c", depends_on=("a",))))
    driver.succeed("a")
    driver.succeed("c")
    shown = [(type(e.body).__name__, e.progress, e.counts.running, e.counts.completed) for e in driver.events]
    assert shown == [
        ("Created", 0, 0, 0),
        ("Started", 0, 0, 0),
        ("StepStarted", 0, 1, 0),
        ("StepSkipped", 33, 1, 0),
        ("StepCompleted", 66, 0, 1),
        ("StepStarted", 66, 1, 1),
        ("StepCompleted", 99, 0, 2),
        ("Finished", 100, 0, 2),
    ]


@pytest.mark.parametrize("end", ["fail", "cancel", "deadline", "condemn", "recover"])
def test_what_did_not_complete_keeps_the_share_that_it_had_reached(end: str):
    skipped, once = step("s", condition="false"), step("b", delivery=Delivery.AT_MOST_ONCE)
    driver = started(graph(step("a"), skipped, once, step("c", on_error=OnError.CONTINUE)))
    driver.succeed("a")
    match end:
        case "fail":
            driver.fail("b", failure=FATAL)
        case "cancel":
            driver.cancel()
        case "deadline":
            driver.fire(3600)
        case "condemn":
            driver.apply(happenings.Condemned(driver.now, FATAL))
        case "recover":
            driver.recover()
    for path in list(driver.told_to_stop):
        driver.stopped(path)
    assert driver.state.state.is_end
    assert (driver.state.progress, driver.events[-1].progress) == (50, 50)


def test_a_failure_that_is_gone_on_from_is_a_step_done():
    driver = started(sequence(step("a", on_error=OnError.CONTINUE), step("b")))
    driver.fail("a", failure=FATAL)
    assert driver.state.progress == 50


def test_events_are_numbered_and_name_the_last_of_their_transition():
    driver = started(sequence(step("a"), step("b")))
    driver.succeed("a")
    driver.succeed("b")
    assert [event.seq for event in driver.events] == list(range(1, 8))
    for turn in driver.turns:
        assert {event.transition_seq for event in turn.plan.events} == {turn.plan.state.last_seq}


def test_reported_progress_never_falls_and_stays_in_bounds():
    driver = started(sequence(step("a")))
    for percent, kept in ((30, 30), (20, 30), (400, 100)):
        driver.progress("a", percent)
        assert driver.rows["a"].progress == kept
        assert driver.bodies[-1] == events.StepProgressed("a", 1, kept, "on it")
    assert driver.state.progress == 0


def test_the_same_happenings_give_the_same_plan():
    driver = Driver(sequence(step("a"), step("b")))
    happening = happenings.Started(T0)
    once, again = (planner.apply(driver.definition, driver.state, happening) for _ in range(2))
    assert once == again
    assert driver.state.state is ExecutionState.PENDING


# --- size


def test_a_chain_of_500_steps():
    driver = started(sequence(*(step(f"s{i}") for i in range(500))))
    for i in range(500):
        driver.succeed(f"s{i}", i)
    assert driver.state.result == 499


@pytest.mark.parametrize("fields", [{"params": {"x": "${ input.absent }"}}, {"condition": "input.absent"}])
def test_500_steps_that_fail_one_after_the_other_in_one_go(fields: dict[str, Any]):
    driver = started(sequence(*(step(f"s{i}", on_error=OnError.CONTINUE, **fields) for i in range(500))))
    assert driver.state.state is ExecutionState.COMPLETED
    assert driver.state.counts.failed == 500


def test_500_steps_that_are_skipped_in_one_go():
    chain = [step(f"s{i}", depends_on=(f"s{i - 1}",)) for i in range(1, 500)]
    driver = started(graph(*reversed(chain), step("s0", condition="false")))
    assert driver.state.counts.skipped == 500
    assert all(row.state is StepState.SKIPPED for row in driver.rows.values())
