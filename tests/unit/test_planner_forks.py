"""Forks: what lies before the chosen step is inherited as events of the new execution's own, and never runs again."""

from __future__ import annotations

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from persistence.model import StepState
from service.engine.definition import OnError, OnItemError
from service.engine.planning import events
from service.engine.planning.forking import Given
from service.engine.planning.inheriting import CheckKind
from service.engine.planning.restoring import restore
from service.engine.planning.state import newest
from service.engine.running.soundness import contradictions
from service.engine.violations import ValidationError
from tests.unit.planner_definitions import each, graph, sequence, step
from tests.unit.planner_forks import forked, inherited
from tests.unit.planner_histories import go_on, histories, retry
from tests.unit.planner_programs import FATAL, Driver, check_stored, started, starts, told_by_rows
from tests.unit.test_planner_folding import check


def begun(driver: Driver) -> list[str]:
    """Return what was started of its own."""
    own = (event.body for event in driver.events if not event.inherited)
    return [body.path for body in own if isinstance(body, events.StepStarted)]


def stands(driver: Driver, state: str) -> bool:
    return driver.state.state == state


def test_what_lies_before_the_step_is_inherited_and_the_step_runs_again() -> None:
    source = started(sequence(step("a", assign={"x": "result"}), step("b"), step("c", params={"x": "${ vars.x }"})))
    source.succeed("a", 7)
    source.succeed("b", 8)
    source.fail("c", failure=FATAL)
    fork = forked(source.stored, source.definition, "b")
    assert stands(fork, "PENDING") and fork.states == {"a": "COMPLETED"}
    assert [event.inherited for event in fork.events] == [False, True, True, True]
    fork.start()
    fork.succeed("b", 9)
    assert fork.running["c"].params == {"x": 7}
    fork.succeed("c", 10)
    assert begun(fork) == ["b", "c"] and fork.state.result == 10 and stands(fork, "COMPLETED")
    assert fork.state.counts.completed == fork.state.counts.total == 3
    check(fork)
    check_stored(fork)


def test_of_parallel_steps_those_that_are_done_are_inherited_and_the_others_run() -> None:
    ends = step("z", depends_on=("b", "c", "d"))
    source = started(graph(step("a"), step("b", depends_on=("a",)), step("c", depends_on=("a",)), step("d"), ends))
    source.succeed("a")
    source.succeed("b")
    fork = forked(source.stored, source.definition, "b")
    fork.start()
    assert sorted(begun(fork)) == ["b", "c", "d"] and fork.states["a"] == "COMPLETED"
    for path in ("b", "c", "d", "z"):
        fork.succeed(path)
    assert stands(fork, "COMPLETED")
    source.succeed("d", 4)
    later = forked(source.stored, source.definition, "c")
    later.start()
    assert begun(later) == ["c"] and later.rows["d"].output == 4


def test_a_for_each_is_inherited_whole_with_its_items() -> None:
    fan = each("fan", "[1, 2]", step("a", assign={"x": "item"}), step("b"), on_item_error=OnItemError.COLLECT, limit=1)
    source = started(sequence(step("s"), fan, step("z")))
    source.succeed("s")
    for path in ("fan[0].a", "fan[0].b", "fan[1].a"):
        source.succeed(path)
    source.fail("fan[1].b", failure=FATAL)
    fork = forked(source.stored, source.definition, "z")
    assert fork.rows["fan"].input == {"items": [1, 2]} and fork.rows["fan"].output == source.rows["fan"].output
    assert {path: row.state for path, row in fork.rows.items()} == {
        path: row.state for path, row in source.rows.items() if path != "z"
    }
    assert fork.state.counts.total == 7 and fork.state.vars == {"x": 2}
    assert not contradictions(fork.definition, fork.stored)
    fork.start()
    fork.succeed("z")
    assert begun(fork) == ["z"] and stands(fork, "COMPLETED")
    again = forked(source.stored, source.definition, "fan")
    again.start()
    assert begun(again) == ["fan", "fan[0].a"]


def test_outputs_and_variables_are_given() -> None:
    source = started(sequence(step("a", assign={"x": "result.n"}), step("b"), step("c", condition="vars.x == 5")))
    source.succeed("a", {"n": 1})
    fork = forked(source.stored, source.definition, "b", Given({"a": {"n": 5}}, {"y": 2}))
    assert fork.state.vars == {"x": 5, "y": 2}
    assert restore(fork.definition, fork.stored) == told_by_rows(fork.definition, fork.state)
    fork.start()
    fork.succeed("b")
    assert begun(fork) == ["b", "c"]
    over = forked(source.stored, source.definition, "b", Given(vars={"x": 5}))
    assert over.state.vars == {"x": 5}
    check(over)
    with pytest.raises(ValidationError, match=r"outputs\[0\].output: assign"):
        forked(source.stored, source.definition, "b", Given({"a": {}}))


def test_what_does_not_fit_is_told() -> None:
    source = started(sequence(step("a"), step("b"), step("c")))
    source.succeed("a")
    [check] = inherited(source.definition, source.rows, "c").checks
    assert (check.kind, check.path) == (CheckKind.NOT_DONE, "b")
    assert not inherited(source.definition, source.rows, "c", Given({"b": 1})).checks
    source.succeed("b")
    other = sequence(step("a"), step("new"), each("b", "[1]", step("x")), step("c"))
    found = inherited(other, source.rows, "c").checks
    assert [(each.kind, each.path) for each in found] == [(CheckKind.NOT_DONE, "new")]
    replaced = sequence(step("a"), each("b", "[1]", step("x")), step("c"))
    [check] = inherited(replaced, source.rows, "c").checks
    assert (check.kind, check.path) == (CheckKind.HANDLER, "b") and "runs it by for_each" in check.message
    assigning = sequence(step("a", assign={"x": "result"}), step("b"), step("c"))
    [check] = inherited(assigning, source.rows, "c").checks
    assert check.path == "a" and "assigns other variables" in check.message
    assert not inherited(assigning, source.rows, "c", Given({"a": 1})).checks


def test_a_failure_is_inherited_only_where_others_go_on_with_it() -> None:
    source = started(sequence(step("a", on_error=OnError.CONTINUE), step("b")))
    source.fail("a", failure=FATAL)
    fork = forked(source.stored, source.definition, "b")
    assert fork.rows["a"].state is StepState.FAILED and fork.state.counts.failed == 1
    fork.start()
    fork.succeed("b")
    assert stands(fork, "COMPLETED")
    [check] = inherited(sequence(step("a"), step("b")), source.rows, "b").checks
    assert check.kind is CheckKind.NOT_DONE


def test_what_was_forked_is_retried_as_any() -> None:
    source = started(sequence(step("a"), step("b")))
    source.succeed("a")
    fork = forked(source.stored, source.definition, "b")
    fork.start()
    fork.fail("b", failure=FATAL)
    fork.reopen()
    fork.succeed("b")
    assert [path for path, _ in starts(fork)] == ["a", "b", "b"] and stands(fork, "COMPLETED")
    check_stored(fork)


@settings(max_examples=150)
@drawn(driver=histories(), data=st.data())
def test_from_any_step_of_any_prefix_what_is_inherited_never_runs_again_and_rows_and_events_tell_the_state(
    driver: Driver, data: st.DataObject
) -> None:
    turn = data.draw(st.sampled_from(driver.turns), "of")
    start = data.draw(st.sampled_from([spec.id for spec in driver.definition.root.steps]), "from")
    found = inherited(driver.definition, newest(turn.stored.steps), start)
    if found.checks:
        assert {each.kind for each in found.checks} == {CheckKind.NOT_DONE}
        return
    fork = forked(turn.stored, driver.definition, start, waits_turns=True)
    kept = {row.path: row for row in fork.rows.values()}
    assert set(kept) == {row.path for row in found.steps} and start not in kept
    fork.start()
    go_on(data.draw, fork)
    retry(data.draw, fork, 1)
    assert fork.state.state.is_end
    for after in fork.turns:
        state = after.plan.state
        assert restore(fork.definition, after.stored) == told_by_rows(fork.definition, state)
        assert state.state.is_end or not contradictions(fork.definition, after.stored)
    assert {path: fork.rows[path] for path in kept} == kept
    assert not set(begun(fork)) & set(kept)
    check(fork)
