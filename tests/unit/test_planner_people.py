"""Steps that ask people: what they wait for, what they go on with, and what becomes of their tasks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from persistence.model import Message, MessageKind, StepState, Wait, WaitKind
from persistence.people import TaskState
from service.api.event_reading import decode
from service.api.events import encode
from service.engine.definition import Ask, Definition, Delivery, OnError
from service.engine.expressions import Template
from service.engine.parsing.sources import VARIABLES
from service.engine.planning.folding import Folding
from tests.unit.planner_definitions import each, graph, sequence, step
from tests.unit.planner_programs import T0, Driver, check_stored, started

ESCALATING: dict[str, Any] = {
    "due_in": 60,
    "overdue": {"escalate": {"groups": ["heads"], "due_in": 30}, "outcome": "no"},
}


def asking(step_id: str = "ask", **params: Any) -> Any:
    given = {"title": "Approve ${ input.what }", "outcomes": ["yes", "no"], **params}
    return step(step_id, action=Ask(Template.parse(given, VARIABLES)), on_error=OnError.STOP)


def asked(definition: Definition) -> Driver:
    return started(definition, {"what": "it"})


def task_id(driver: Driver, path: str = "ask") -> str:
    wait = driver.rows[path].wait
    assert wait is not None
    return wait.task


def completion(driver: Driver, path: str = "ask", **body: Any) -> Message:
    """What comes when somebody has completed the task of a step."""
    (task,) = [each for turn in driver.turns for each in turn.plan.tasks if each.path == path]
    said = {"path": path, "iteration": 1, "outcome": "yes", "values": {"n": 1}, "comment": "fine", **body}
    return Message(task.id, MessageKind.TASK_COMPLETED, driver.now, "bob", said)


def check(driver: Driver) -> None:
    """What is stored gives the state again, and the events what is stored."""
    check_stored(driver)
    folding = Folding(driver.definition, driver.execution, driver.input)
    for event in driver.events:
        stored = decode(encode(event))
        assert stored is not None
        folding.take(stored)
    assert list(folding.detail.steps) == sorted(driver.rows.values(), key=lambda row: row.key)


def test_a_step_that_asks_waits_for_the_task_that_its_transition_makes() -> None:
    driver = asked(sequence(asking(due_in="1m", groups=["heads"])))
    (task,) = driver.turns[-1].plan.tasks
    assert (task.title, task.groups, task.outcomes) == ("Approve it", ("heads",), ("yes", "no"))
    assert (task.due_time, task.waited, task.workflow_name) == (T0 + timedelta(minutes=1), True, driver.definition.name)
    row = driver.rows["ask"]
    reason = f"waits for a person: task {task.id}"
    wait = Wait(WaitKind.TASK, T0, task.due_time, reason, task=str(task.id))
    assert (row.state, row.wait, row.attempt) == (StepState.WAITING, wait, 0)
    assert driver.state.is_idle
    assert driver.state.next_wake == task.due_time
    check(driver)


def test_it_goes_on_with_what_somebody_says() -> None:
    driver = asked(sequence(asking(), step("b", params={"by": "${ steps.ask.output.completed_by }"})))
    message = completion(driver)
    plan = driver.receive(message)
    output = {"task_id": str(message.id), "outcome": "yes", "values": {"n": 1}}
    assert driver.rows["ask"].output == {**output, "completed_by": "bob", "comment": "fine", "overdue": False}
    assert (plan.consumed, plan.task_changes) == ((message,), ())
    assert driver.running["b"].params == {"by": "bob"}
    assert driver.receive(message).steps == ()  # once more
    check(driver)


def test_without_waiting_it_gives_the_id_at_once() -> None:
    driver = asked(sequence(asking(wait=False)))
    (task,) = driver.turns[-1].plan.tasks
    assert not task.waited
    assert driver.rows["ask"].output == {"task_id": str(task.id)}
    assert driver.states == {"ask": "COMPLETED"}
    check(driver)


def test_one_that_is_overdue_is_for_others_once_and_then_ends_with_the_default() -> None:
    driver = asked(sequence(asking(**ESCALATING)))
    before = task_id(driver)
    (handed,) = driver.fire(60).task_changes
    assert (handed.state, handed.groups, handed.due_time) == (TaskState.OPEN, ("heads",), T0 + timedelta(seconds=90))
    wait = driver.rows["ask"].wait
    assert wait is not None
    assert (wait.task, wait.wake_time, wait.escalated) == (before, handed.due_time, True)
    check(driver)
    (expired,) = driver.fire(30).task_changes
    assert (expired.state, expired.outcome) == (TaskState.EXPIRED, "no")
    assert driver.rows["ask"].output["outcome"] == "no"
    assert driver.rows["ask"].output["overdue"]
    check(driver)


def test_another_process_does_with_an_overdue_one_what_the_first_would_have_done() -> None:
    driver = asked(sequence(asking(**ESCALATING)))
    driver.recover()
    assert driver.states == {"ask": "WAITING"}
    assert driver.fire(60).task_changes[0].groups == ("heads",)
    driver.recover()
    driver.fire(30)
    assert driver.states == {"ask": "COMPLETED"}
    check(driver)


def test_what_an_answer_begins_at_a_takeover_was_not_cut_off() -> None:
    driver = asked(sequence(asking(), step("b", delivery=Delivery.AT_MOST_ONCE)))
    driver.recover(mail=[completion(driver)])
    assert (driver.states, driver.rows["b"].attempt) == ({"ask": "COMPLETED", "b": "RUNNING"}, 1)
    check(driver)


def test_a_part_that_an_answer_ends_at_a_takeover_leaves_the_rest_to_it() -> None:
    part = each("part", "[1]", asking(), step("wrong", params={"x": "${ input.absent }"}), on_error=OnError.CONTINUE)
    driver = asked(graph(part, step("beside")))
    driver.recover(mail=[completion(driver, "part[0].ask")])
    assert driver.states["part"] == "FAILED"
    assert (driver.states["beside"], driver.rows["beside"].attempt) == ("RUNNING", 2)
    check(driver)


def test_one_that_nobody_does_in_time_fails_where_nothing_else_is_said() -> None:
    driver = asked(sequence(asking(due_in=60)))
    (change,) = driver.fire(60).task_changes
    failure = driver.rows["ask"].failure
    assert failure is not None
    assert (failure["code"], failure["details"]) == ("TASK_OVERDUE", {"task_id": str(change.id)})
    assert change.state is TaskState.EXPIRED
    check(driver)


@pytest.mark.parametrize("how", ["cancel", "failure", "deadline"])
def test_a_task_ends_with_its_step(how: str) -> None:
    driver = asked(graph(asking(), step("b"), timeout=100))
    plan = (
        driver.cancel()
        if how == "cancel"
        else driver.fire(100)
        if how == "deadline"
        else driver.fail("b", failure=None, draw=0.5)
    )
    if how == "failure":
        assert driver.states["b"] == "FAILED"
    (change,) = plan.task_changes
    assert (str(change.id), change.state) == (task_id(driver), TaskState.CANCELLED)
    assert driver.states["ask"] == "CANCELLED"
    assert driver.receive(completion(driver)).steps == ()  # somebody was a moment too late
    check(driver)


def test_two_steps_that_ask_have_each_a_task_of_its_own() -> None:
    driver = asked(graph(asking("a"), asking("b")))
    assert len({task.id for task in driver.turns[-1].plan.tasks}) == 2


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"title": 5}, "title"),
        ({"assignees": "${ input.what }"}, "assignees"),
        ({"form": {"type": "array"}}, "form.type"),
        ({"due_in": "soon"}, "due_in is no duration"),
        ({"due_in": 1, "overdue": {"outcome": "perhaps"}}, "overdue.outcome is none of the outcomes"),
    ],
)
def test_params_that_turn_out_wrong_fail_the_step_and_make_no_task(params: Any, said: str) -> None:
    driver = asked(sequence(asking(**params)))
    failure = driver.rows["ask"].failure
    assert failure is not None
    assert failure["code"] == "INVALID_PARAMS"
    assert said in failure["message"]
    assert driver.turns[-1].plan.tasks == ()
