"""A step that runs others for each item of a list: how items begin and end, and what comes of the step."""

from __future__ import annotations

import re
from typing import Any

import pytest
from msgspec import structs

from persistence.model import ExecutionState, StepState
from service.engine.definition import OnError, OnItemError, Ordering, StepSpec, Transform
from service.engine.expressions import compile_value
from service.engine.failure import EXECUTION_TOO_LARGE, EXPRESSION_ERROR, INVALID_OUTPUT, STEP_FAILED
from service.engine.parsing.sources import VARIABLES
from service.engine.planning import events
from service.engine.running.soundness import contradictions
from tests.unit.planner_definitions import OF_ITEM, each, graph, sequence, step
from tests.unit.planner_programs import FATAL, PLAIN, Driver, check_stored, started

COLLECT = OnItemError.COLLECT
ITEMS = {"rows": ["a", "b", "c"]}


def output_of(driver: Driver, path: str = "all") -> Any:
    return driver.rows[path].output


def test_items_begin_so_many_at_a_time_and_their_outputs_come_in_order() -> None:
    body = step("get", params={"x": "${ item }", "n": "${ index }"})
    driver = started(sequence(each("all", "input.rows", body, limit=2), step("last")), ITEMS)
    assert sorted(driver.running) == ["all[0].get", "all[1].get"]
    assert driver.running["all[1].get"].params == {"x": "b", "n": 1}
    driver.succeed("all[1].get", "B")
    assert sorted(driver.running) == ["all[0].get", "all[2].get"]
    driver.succeed("all[2].get", "C")
    check_stored(driver)
    driver.succeed("all[0].get", "A")
    assert output_of(driver) == ["A", "B", "C"]
    assert driver.states["all"] == "COMPLETED"
    assert list(driver.running) == ["last"]


def test_the_step_has_a_record_with_its_list_and_no_attempt_while_its_items_run() -> None:
    driver = started(sequence(each("all", "input.rows", step("get"))), ITEMS)
    row = driver.rows["all"]
    assert (row.state, row.attempt, row.input, row.position) == ("RUNNING", 0, {"items": ["a", "b", "c"]}, 1)
    assert row.worker == ""
    assert events.StepStarted("all", "for_each", 0, "", {"items": ["a", "b", "c"]}) in [e.body for e in driver.events]
    item = driver.rows["all[2].get"]
    assert (item.position, item.items, item.handler) == (1, (2, 2), "work")
    assert dict(driver.state.running) == {(f"all[{n}].get", 1): 1 for n in range(3)}
    assert driver.succeed("all", "mine", attempt=0).is_empty


def test_a_list_without_items_completes_with_none() -> None:
    driver = started(sequence(each("all", "[]", step("get")), step("last")))
    assert (output_of(driver), list(driver.running)) == ([], ["last"])


def test_a_condition_skips_all_of_it() -> None:
    driver = started(sequence(each("all", "[1]", step("get"), condition="false"), step("last")))
    assert driver.states == {"all": "SKIPPED", "last": "RUNNING"}


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("input.rows.size()", "items: must be a list$"),
        ("input.absent", "items: there is no input.absent"),
    ],
)
def test_what_is_no_list_fails_the_step(items: str, message: str) -> None:
    driver = started(sequence(each("all", items, step("get"))), ITEMS)
    failure = driver.rows["all"].failure
    assert failure is not None and failure["code"] == EXPRESSION_ERROR and re.match(message, failure["message"])
    assert driver.state.state is ExecutionState.FAILED


def test_steps_of_a_body_see_those_of_their_item_first_and_those_around_it() -> None:
    seen = {"own": "${ steps.a.output }", "around": "${ steps.first.output }", "n": "${ steps.size() }"}
    body = [step("a"), step("b", params=seen)]
    driver = started(sequence(step("a"), step("first"), each("all", "[1, 2]", *body)))
    driver.succeed("a", "outer")
    driver.succeed("first", "f")
    driver.succeed("all[1].a", "inner")
    assert driver.running["all[1].b"].params == {"own": "inner", "around": "f", "n": 3}
    driver.succeed("all[1].b")
    driver.succeed("all[0].a")
    driver.succeed("all[0].b", 1)
    assert "all[0].a" in driver.rows and driver.state.result == [1, None]


def test_outside_of_it_the_step_has_one_output_and_its_items_are_not_seen() -> None:
    after = step("last", params={"sum": "${ steps.all.output.size() }", "ids": "${ steps.map(id, id) }"})
    driver = started(sequence(each("all", "[1, 2]", step("get")), after))
    driver.succeed("all[0].get", 1)
    driver.succeed("all[1].get", 2)
    assert driver.running["last"].params == {"sum": 2, "ids": ["all"]}


def test_an_item_has_the_output_that_its_body_says() -> None:
    body = each("all", "input.rows", step("get"), output={"of": "${ item }", "is": "${ steps.get.output }"})
    driver = started(sequence(body), {"rows": [1, 2]})
    driver.succeed("all[0].get", "x")
    driver.succeed("all[1].get", "y")
    assert output_of(driver) == [{"of": 1, "is": "x"}, {"of": 2, "is": "y"}]


def test_a_graph_of_an_item_joins_its_branches() -> None:
    body = [step("a"), step("b"), step("c", depends_on=("a", "b"))]
    driver = started(sequence(each("all", "[1, 2]", *body, ordering=Ordering.GRAPH)))
    assert sorted(driver.running) == [f"all[{n}].{name}" for n in (0, 1) for name in "ab"]
    driver.succeed("all[1].a")
    check_stored(driver)
    assert "all[1].c" not in driver.running
    driver.succeed("all[1].b")
    assert "all[1].c" in driver.running
    driver.succeed("all[1].c", "C")
    for name in "abc":
        driver.succeed(f"all[0].{name}", name)
    assert output_of(driver) == [{"c": "c"}, {"c": "C"}]


def test_the_first_failure_stops_all_items_and_then_fails_the_step() -> None:
    driver = started(sequence(each("all", "[1, 2, 3, 4]", step("get", retry=PLAIN), limit=3), step("last")))
    driver.fail("all[2].get")
    driver.fail("all[0].get", failure=FATAL)
    assert driver.told_to_stop == {"all[1].get": 1}
    assert driver.states == {
        "all": "RUNNING",
        "all[0].get": "FAILED",
        "all[1].get": "RUNNING",
        "all[2].get": "CANCELLED",
    }
    check_stored(driver)
    driver.stopped("all[1].get")
    assert (driver.states["all[1].get"], driver.states["all"]) == ("CANCELLED", "FAILED")
    failure = driver.state.failure
    assert failure is not None
    assert (failure.code, failure.step_path, failure.details) == (STEP_FAILED, "all[0].get", {"code": FATAL.code})


def test_the_own_error_policy_decides_what_follows_from_a_failed_item() -> None:
    driver = started(sequence(each("all", "[1]", step("get"), on_error=OnError.CONTINUE), step("last")))
    driver.fail("all[0].get", failure=FATAL)
    assert driver.states == {"all": "FAILED", "all[0].get": "FAILED", "last": "RUNNING"}
    assert driver.rows["all"].failure == {
        "code": STEP_FAILED,
        "message": "boom",
        "details": {"code": FATAL.code},
        "step_path": "all[0].get",
        "step_iteration": 1,
    }


def test_a_step_of_an_item_that_may_fail_fails_nothing_else() -> None:
    body = [step("a", on_error=OnError.CONTINUE), step("b")]
    driver = started(sequence(each("all", "[1]", *body)))
    driver.fail("all[0].a", failure=FATAL)
    driver.succeed("all[0].b", "went on")
    assert output_of(driver) == ["went on"]


def test_failures_are_collected_and_the_other_items_go_on() -> None:
    body = [step("a"), step("b", depends_on=("a",)), step("side")]
    items = each("all", "[1, 2, 3]", *body, ordering=Ordering.GRAPH, on_item_error=COLLECT, limit=2)
    driver = started(sequence(items))
    driver.fail("all[0].a", failure=FATAL)
    assert driver.told_to_stop == {"all[0].side": 1}
    assert "all[2].a" not in driver.running
    check_stored(driver)
    driver.succeed("all[0].side", "too late")
    assert driver.states["all[0].side"] == "CANCELLED"
    assert "all[2].a" in driver.running
    for n in (1, 2):
        for name in ("side", "a", "b"):
            driver.succeed(f"all[{n}].{name}", name)
    boom = {"error": {"code": FATAL.code, "message": "boom"}}
    assert output_of(driver) == [boom, *[{"b": "b", "side": "side"}] * 2]
    assert driver.state.state is ExecutionState.COMPLETED
    assert "all[0].b" not in driver.rows


@pytest.mark.parametrize("policy", OnItemError)
def test_an_output_that_cannot_be_had_is_a_failure_of_its_item(policy: OnItemError) -> None:
    items = each("all", "[1, 2]", step("get"), output="${ steps.get.output.x }", on_item_error=policy)
    driver = started(sequence(items))
    driver.succeed("all[0].get", {"x": 1})
    driver.succeed("all[1].get", {})
    if policy is COLLECT:
        assert output_of(driver)[0] == 1 and output_of(driver)[1]["error"]["code"] == EXPRESSION_ERROR
    else:
        failure = driver.rows["all"].failure
        assert failure is not None and failure["message"].startswith("all[1]: output: there is no steps.get.output.x")


def test_outputs_that_are_no_payload_together_fail_the_step() -> None:
    driver = finished(sequence(each("all", "[1, 2, 3, 4, 5, 6]", step("get"))), {}, "x" * 200_000)
    failure = driver.rows["all"].failure
    assert failure is not None and failure["code"] == INVALID_OUTPUT and "1,048,576" in failure["message"]


def test_what_a_body_assigns_is_assigned_and_the_step_assigns_its_list() -> None:
    body = step("get", assign={"last": "result"})
    driver = started(sequence(each("all", "[1, 2]", body, assign={"sum": "result.size()"})))
    driver.succeed("all[1].get", "one")
    driver.succeed("all[0].get", "zero")
    assert driver.state.vars == {"last": "zero", "sum": 2}


def test_lists_of_lists_are_gone_through_by_the_same_rules() -> None:
    inner = each("inner", "item.rows", step("get", params={"x": "${ item }", "n": "${ index }"}), limit=1)
    driver = started(sequence(each("outer", "input.all", inner)), {"all": [{"rows": [1, 2]}, {"rows": []}]})
    assert list(driver.running) == ["outer[0].inner[0].get"]
    assert driver.rows["outer[1].inner"].output == []
    driver.succeed("outer[0].inner[0].get", "a")
    check_stored(driver)
    assert driver.running["outer[0].inner[1].get"].params == {"x": 2, "n": 1}
    driver.succeed("outer[0].inner[1].get", "b")
    assert output_of(driver, "outer") == [["a", "b"], []]


def test_a_failure_within_a_list_of_lists_ends_each_in_turn() -> None:
    inner = each("inner", "[1, 2]", step("get"))
    driver = started(sequence(each("outer", "[1, 2]", inner)))
    driver.fail("outer[1].inner[0].get", failure=FATAL)
    assert driver.told_to_stop == {"outer[1].inner[1].get": 1}
    driver.stopped("outer[1].inner[1].get")
    assert driver.states["outer[1].inner"] == "FAILED"
    assert sorted(driver.told_to_stop) == ["outer[0].inner[0].get", "outer[0].inner[1].get"]
    check_stored(driver)
    for n in (0, 1):
        driver.stopped(f"outer[0].inner[{n}].get")
    assert (driver.states["outer[0].inner"], driver.states["outer"]) == ("CANCELLED", "FAILED")
    assert driver.state.failure is not None and driver.state.failure.step_path == "outer[1].inner[0].get"


def test_a_cancel_ends_the_items_and_then_the_step() -> None:
    driver = started(sequence(each("all", "[1, 2, 3]", step("get"), limit=2)))
    driver.suspend("all[0].get", 60)
    driver.cancel()
    assert (driver.states["all[0].get"], driver.states["all"]) == ("CANCELLED", "RUNNING")
    driver.stopped("all[1].get")
    assert driver.states == {"all": "CANCELLED", "all[0].get": "CANCELLED", "all[1].get": "CANCELLED"}
    assert driver.state.state is ExecutionState.CANCELLED
    counts = driver.state.counts
    assert (counts.total, counts.cancelled) == (4, 4)


def test_steps_are_counted_when_the_list_is_known_and_progress_never_goes_back() -> None:
    driver = started(sequence(step("first"), each("all", "[1, 2, 3]", step("a"), step("b"))))
    assert driver.state.counts.total == 2
    driver.succeed("first")
    assert (driver.state.counts.total, driver.state.progress) == (8, 50)
    for n in range(3):
        driver.succeed(f"all[{n}].a")
        driver.succeed(f"all[{n}].b")
    shown = [event.progress for event in driver.events]
    assert shown == sorted(shown) and (shown[-2], shown[-1]) == (99, 100)


def test_another_process_goes_on_with_the_items_that_are_left() -> None:
    driver = started(sequence(each("all", "[1, 2, 3, 4]", step("a"), step("b"), limit=2)))
    driver.succeed("all[0].a")
    driver.succeed("all[1].a", "A")
    driver.succeed("all[1].b", "B")
    driver.recover("second")
    assert {path: effect.attempt for path, effect in driver.running.items()} == {"all[0].b": 2, "all[2].a": 2}
    for path in ("all[0].b", "all[2].a", "all[2].b", "all[3].a", "all[3].b"):
        driver.succeed(path, path)
    assert output_of(driver) == ["all[0].b", "B", "all[2].b", "all[3].b"]


def test_the_step_ends_after_the_steps_of_its_items() -> None:
    driver = started(graph(each("all", "[1, 2]", step("get")), step("other")))
    driver.fail("other", failure=FATAL)
    driver.stopped("all[1].get")
    driver.stopped("all[0].get")
    ends = [body.path for body in driver.bodies if isinstance(body, events.StepCancelled)]
    assert ends == ["all[1].get", "all[0].get", "all"]


@pytest.mark.parametrize(
    ("path", "change", "named"),
    [
        ("all", {"input": {}}, "steps.all.input"),
        ("all", {"input": {"items": [1]}}, "steps.all[1].get"),
        ("all", {"state": StepState.CANCELLED, "end_seq": 9}, "steps.all[0].get"),
    ],
)
def test_items_that_nothing_would_end_are_named(path: str, change: dict[str, Any], named: str) -> None:
    driver = started(sequence(each("all", "[1, 2]", step("get"))))
    assert not contradictions(driver.definition, driver.stored)
    driver.rows[path] = structs.replace(driver.rows[path], **change)
    assert named in contradictions(driver.definition, driver.stored)


def engine_step(step_id: str, source: str) -> StepSpec:
    """Return a step that gives the value of an expression."""
    return step(step_id, action=Transform(compile_value(source, VARIABLES | OF_ITEM)))


def finished(definition: Any, input: Any, output: Any) -> Driver:
    """Run an execution all of whose attempts give the same."""
    driver = started(definition, input)
    while driver.running:
        driver.succeed(next(iter(driver.running)), output)
    return driver


def test_ten_thousand_items_run_and_have_outputs() -> None:
    rows = {"rows": list(range(10_000)), "name": "all of them"}
    driver = started(sequence(each("all", "input.rows", engine_step("get", "index"))), rows)
    assert driver.state.result == rows["rows"]
    assert driver.state.state is ExecutionState.COMPLETED


@pytest.mark.parametrize(("count", "value"), [(5_000, {"v": 1}), (3_000, "x" * 100)])
def test_outputs_of_many_items_are_one_of_the_step(count: int, value: Any) -> None:
    body = engine_step("get", "input.value")
    driver = started(sequence(each("all", "input.rows", body)), {"rows": [0] * count, "value": value})
    assert output_of(driver) == [value] * count


@pytest.mark.parametrize(("count", "output", "beyond"), [(12, "x" * 100_000, 10), (30, [0] * 500, 20)])
def test_outputs_that_are_too_much_together_name_the_first_beyond(count: int, output: Any, beyond: int) -> None:
    driver = finished(sequence(each("all", "input.rows", step("get"))), {"rows": [0] * count}, output)
    failure = driver.rows["all"].failure or {}
    told = (
        f"with that of all[{beyond}], the outputs of all items have more than 10,240 values in all or 1,048,576 bytes"
    )
    assert (failure["code"], failure["message"]) == (INVALID_OUTPUT, f"output: {told}")


@pytest.mark.parametrize(("on_item_error", "most"), [(OnItemError.STOP, 2_047), (COLLECT, 2_559)])
def test_outputs_that_cannot_fit_are_refused_before_an_item_begins(on_item_error: OnItemError, most: int) -> None:
    output = {"a": "${ item }", "b": [1, {}]}
    body = each("all", "input.rows", step("get"), output=output, on_item_error=on_item_error)
    assert len(started(sequence(body), {"rows": [0] * most}).running) == 10
    driver = started(sequence(body), {"rows": [0] * (most + 1)})
    failure = driver.rows["all"].failure or {}
    assert list(driver.rows) == ["all"]
    assert failure["code"] == EXPRESSION_ERROR
    assert failure["message"].startswith(f"items: has {most + 1:,} items, whose outputs would have ")


def test_lists_in_lists_have_a_number_of_steps_in_all() -> None:
    inner = each("inner", "input.rows", *map(step, "abcde"), limit=1)
    driver = started(sequence(each("outer", "input.rows", inner, limit=100)), {"rows": [0] * 2_000})
    begun = [path for path in driver.rows if path.endswith(".inner")]
    assert driver.state.counts.total == 1 + 2_000 + 99 * 10_000
    assert len(begun) == 100
    failure = driver.rows["outer[99].inner"].failure or {}
    assert failure["code"] == EXECUTION_TOO_LARGE
    assert failure["details"] == {"steps": 1_002_001, "limit": 1_000_000}
    check_stored(driver)
