"""Steps that the planner runs itself: `transform`, `condition` and `wait`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest

from persistence.model import Step, WaitKind
from service.engine.parsing import parse
from service.engine.planning import events, happenings, planner
from service.engine.planning.rules import ENOUGH
from tests.unit.documents import CATALOG, DEFAULTS, graph, step, workflow, wrong
from tests.unit.planner_definitions import seconds
from tests.unit.planner_programs import T0, Driver, check_stored, started

HOUR = T0 + timedelta(hours=1)


def written(time: datetime) -> str:
    """Return a moment as it is written."""
    return time.isoformat().replace("+00:00", "Z")


def run(*steps: Any, input: Mapping[str, Any] | None = None, **fields: Any) -> Driver:
    """Return the driver of an execution that has just started."""
    return started(parse(workflow(*steps, **fields), CATALOG, DEFAULTS), input)


def only(handler: str, params: Mapping[str, Any], **input: Any) -> Step:
    """Return what became of the only step of an execution."""
    return run(step(handler=handler, params=params), input=input).rows["a"]


def error(row: Step) -> tuple[str, str]:
    """Return code and message of a step that failed for good, and could not have been tried again."""
    assert row.state == "FAILED"
    assert row.failure is not None
    assert not row.failure.get("retryable")
    return row.failure["code"], row.failure["message"]


# --- what all have in common


def test_steps_without_attempts_begin_and_end_with_the_start_of_the_execution() -> None:
    driver = run(*(step(i, params={"expression": f"input.n + {n}.0"}) for n, i in enumerate("abc")), input={"n": 1})
    assert driver.state.state == "COMPLETED"
    assert len(driver.turns) == 2
    assert driver.state.result == 3
    kinds = [type(body) for body in driver.bodies]
    assert kinds == [events.Created, events.Started, *[events.StepCompleted] * 3, events.Finished]
    check_stored(driver)


def test_the_record_of_a_step_without_attempts_has_one_moment_and_no_number() -> None:
    row = only("transform", {"value": "${ input.x }"}, x=5)
    assert (row.attempt, row.start_time, row.end_time, row.input, row.worker) == (0, T0, T0, None, "")
    assert (row.state, row.output) == ("COMPLETED", 5)


def test_condition_assign_and_dependencies_are_those_of_any_step() -> None:
    driver = run(
        step("a", params={"value": 1}, assign={"x": "result + 1.0"}),
        step("b", condition="vars.x < 2.0", depends_on=["a"]),
        step("c", params={"value": "${ vars.x }"}, depends_on=["a", "b"]),
        step("d", depends_on=["b"]),
        ordering="GRAPH",
    )
    assert driver.states == {"a": "COMPLETED", "b": "SKIPPED", "c": "COMPLETED", "d": "SKIPPED"}
    assert driver.state.vars == {"x": 2}


@pytest.mark.parametrize(("on_error", "state"), [("CONTINUE", "COMPLETED"), ("STOP", "FAILED")])
def test_what_cannot_be_computed_fails_at_once_and_for_good(on_error: str, state: str) -> None:
    driver = run(step("a", params={"expression": "input.absent"}, on_error=on_error), step("b"))
    assert error(driver.rows["a"])[0] == "EXPRESSION_ERROR"
    assert driver.state.state == state
    assert [body.attempt for body in driver.bodies if isinstance(body, events.StepFailed)] == [0]


@pytest.mark.parametrize(
    "fields", [{"params": {"expression": "attempt"}}, {"params": {"value": "${attempt}"}}, {"assign": {"x": "attempt"}}]
)
def test_a_step_without_attempts_cannot_ask_for_their_number(fields: dict[str, Any]) -> None:
    ((_, message),) = wrong(workflow(step(**fields)))
    assert "unknown variable 'attempt'" in message


def test_heavy_steps_are_put_off_and_all_are_done() -> None:
    heavy = {"expression": "input.rows.all(x, x.v >= 0.0 && x.name != '')"}
    rows = [{"name": f"n{n}", "v": n} for n in range(600)]
    steps = [step(f"s{n}", params=heavy) for n in range(20)]
    driver = started(parse(graph(*steps), CATALOG, DEFAULTS), {"rows": rows})
    assert set(driver.states.values()) == {"COMPLETED"}
    assert len([turn for turn in driver.turns if turn.plan.work]) > 4
    check_stored(driver)


def test_what_is_recorded_together_fits_into_one_message() -> None:
    steps = [step(f"s{n}", params={"value": "${ input.text }"}, assign={"v": "result"}) for n in range(9)]
    driver = run(*steps, step("last"), input={"text": "x" * 200_000})
    assert driver.state.state == "COMPLETED"
    # What ends a step may be as much again as has been recorded before it.
    assert max(turn.plan.state.bytes - turn.before.bytes for turn in driver.turns) < 2 * ENOUGH
    check_stored(driver)


# --- transform


def test_transform() -> None:
    params = {"expression": "input.xs.filter(x, x > 1).map(x, {'n': x})"}
    assert only("transform", params, xs=[1, 2, 3]).output == [{"n": 2}, {"n": 3}]
    assert only("transform", {"value": {"a": [None]}}).output == {"a": [None]}


@pytest.mark.parametrize(
    ("params", "place"),
    [({"expression": "input.x"}, "there is no input.x"), ({"value": ["${input.x}"]}, "params.value[0]:")],
)
def test_transform_that_has_no_value(params: dict[str, Any], place: str) -> None:
    code, message = error(only("transform", params))
    assert code == "EXPRESSION_ERROR"
    assert message.startswith(place)


# --- condition


def test_condition_with_an_expression() -> None:
    for n, outcome in ((2, "true"), (0, "false")):
        row = only("condition", {"expression": "input.n > 1"}, n=n)
        assert row.output == {"outcome": outcome, "matched": n > 1}


@pytest.mark.parametrize(("n", "outcome"), [(50, "big"), (5, "small"), (-1, "odd")])
def test_condition_takes_the_first_outcome_that_holds(n: int, outcome: str) -> None:
    outcomes = [{"name": "big", "when": "input.n > 10"}, {"name": "small", "when": "input.n > 0"}, {"name": "odd"}]
    assert only("condition", {"outcomes": outcomes}, n=n).output == {"outcome": outcome, "matched": True}


def test_condition_without_any_outcome() -> None:
    row = only("condition", {"outcomes": [{"name": "big", "when": "input.n > 10"}]}, n=1)
    assert row.output == {"outcome": "none", "matched": False}


@pytest.mark.parametrize("expression", ["input.absent", "input.n"])
def test_condition_that_has_no_answer_fails(expression: str) -> None:
    assert error(only("condition", {"expression": expression}, n=1))[0] == "EXPRESSION_ERROR"


# --- wait


@pytest.mark.parametrize(
    ("duration", "length"),
    [
        (90, 90.0),
        (0.5, 0.5),
        ("45s", 45.0),
        ("1h30m", 5400.0),
        ("7d", 604800.0),
        ("1w2d", 777600.0),
        ("1.5h", 5400.0),
        ("250ms", 0.25),
        ("PT5M", 300.0),
        ("P1DT2H", 93600.0),
        ("P2W", 1209600.0),
        ("PT0.5S", 0.5),
    ],
)
def test_wait_for_a_duration(duration: Any, length: float) -> None:
    end = T0 + seconds(length)
    row = only("wait", {"duration": duration})
    assert (row.state, row.attempt, row.start_time, row.end_time) == ("WAITING", 0, T0, None)
    assert row.wait is not None
    assert (row.wait.kind, row.wait.start_time, row.wait.wake_time) == (WaitKind.TIMER, T0, end)
    assert row.wait.reason == f"waits until {written(end)}"


def test_wait_goes_on_when_its_time_has_come() -> None:
    driver = run(step(handler="wait", params={"duration": "${ input.s }"}), step("b"), input={"s": 90})
    driver.fire(89.0)
    assert driver.states == {"a": "WAITING"}
    driver.fire(1.0)
    assert driver.states == {"a": "COMPLETED", "b": "COMPLETED"}
    assert driver.rows["a"].output == {"waited_until": written(T0 + seconds(90))}
    assert driver.rows["a"].end_time == T0 + seconds(90)
    kinds = [type(body) for body in driver.bodies if getattr(body, "path", "") == "a"]
    assert kinds == [events.StepWaiting, events.StepCompleted]


def test_wait_goes_on_in_another_process() -> None:
    driver = run(step(handler="wait", params={"duration": 90}))
    driver.recover()
    assert driver.states == {"a": "WAITING"}
    driver.fire(90.0)
    assert driver.state.state == "COMPLETED"


@pytest.mark.parametrize("until", ["2026-01-01T01:00:00Z", "2026-01-01T02:00:00+01:00", "2026-01-01t01:00:00.000z"])
def test_wait_until(until: str) -> None:
    row = only("wait", {"until": until})
    assert row.wait is not None
    assert row.wait.wake_time == HOUR


@pytest.mark.parametrize("params", [{"until": "2020-01-01T00:00:00Z"}, {"duration": 0}, {"duration": "0s"}])
def test_wait_for_the_past_ends_at_once(params: dict[str, Any]) -> None:
    row = only("wait", params)
    assert (row.state, row.end_time) == ("COMPLETED", T0)
    assert set(row.output) == {"waited_until"}


@pytest.mark.parametrize(
    ("params", "end"),
    [
        ({"duration": 1}, T0 + seconds(1.5)),
        ({"duration": 0}, None),
        ({"until": written(T0 + seconds(0.2))}, T0 + seconds(0.2)),
        ({"until": written(T0)}, None),
    ],
)
def test_wait_is_never_too_short_where_the_time_is_not_known_exactly(
    params: dict[str, Any], end: datetime | None
) -> None:
    driver = Driver(parse(workflow(step(handler="wait", params=params)), CATALOG, DEFAULTS))
    plan = planner.apply(driver.definition, driver.state, happenings.Started(T0), latest=T0 + seconds(0.5))
    row = plan.state.steps["a"]
    assert row.state == ("COMPLETED" if end is None else "WAITING")
    assert (row.wait.wake_time if row.wait else None) == end


@pytest.mark.parametrize(
    ("params", "given", "wrong"),
    [
        ({"until": "2036-06-01T00:00:00Z"}, None, "until: is more than 10 years away"),
        ({"duration": "${ input.x }"}, "soon", "duration: "),
        ({"duration": "${ input.x }"}, True, "duration: must be a number of seconds"),
        ({"duration": "${ input.x }"}, None, "duration: must be a number of seconds"),
        ({"duration": "${ input.x }"}, -1, "duration: must be between 0 and 10 years"),
        ({"until": "${ input.x }"}, 5, "until: is no RFC 3339 time"),
        ({"until": "${ input.x }"}, "2026-02-30T00:00:00Z", "until: is no time of the calendar"),
    ],
)
def test_wait_that_has_no_end_fails(params: dict[str, Any], given: Any, wrong: str) -> None:
    code, message = error(only("wait", params, x=given))
    assert code == "INVALID_PARAMS"
    assert message.startswith(wrong)
