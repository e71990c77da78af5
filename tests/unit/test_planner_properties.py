"""What holds for the planner whatever the workflow is and whatever happens, checked against simpler models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from persistence.model import ExecutionState, StepCounts, StepState, WaitKind
from service.engine import paths
from service.engine.awaited_signals import read_again
from service.engine.definition import Definition, OnError, OnItemError, Ordering, Repeat, StepSpec
from service.engine.planning import events, happenings, planner
from service.engine.planning.course import Course
from service.engine.planning.events import EventBody
from service.engine.planning.restoring import restore
from service.engine.planning.scopes import block_of
from service.engine.planning.state import awaited_signals
from service.engine.running.soundness import contradictions
from service.engine.wishes import awaited
from tests.unit.planner_histories import whatever_happens
from tests.unit.planner_programs import T0, Driver, told_by_rows

SETTLED = {events.StepCompleted: "completed", events.StepFailed: "failed", events.StepSkipped: "skipped"}
OPEN = (events.StepStarted, events.StepWaiting, events.StepRetrying)
IN_WORK = (StepState.RUNNING, StepState.WAITING)


def needs(definition: Definition, path: str) -> set[str]:
    """Return what has ended before a step begins."""
    scope, step_id = paths.split(path)
    block = block_of(definition, scope)
    if block.ordering is Ordering.GRAPH:
        before = block.by_id[step_id].depends_on
    else:
        ids = [step.id for step in block.steps]
        before = tuple(ids[: ids.index(step_id)][-1:])
    return {paths.join(scope, each) for each in before}


def spec_of(definition: Definition, path: str) -> StepSpec:
    spec = definition.find(path)
    assert spec is not None
    return spec


@whatever_happens
def test_no_step_begins_before_all_it_depends_on_has_ended(driver: Driver) -> None:
    ended: set[str] = set()
    for body in driver.bodies:
        if isinstance(body, events.StepStarted | events.StepSkipped | events.StepFailed):
            assert needs(driver.definition, body.path) <= ended
        if isinstance(body, events.StepCompleted | events.StepSkipped | events.StepFailed):
            ended.add(body.path)


@whatever_happens
def test_what_only_depends_on_skipped_steps_is_skipped_and_nothing_else(driver: Driver) -> None:
    skipped: set[str] = set()
    for body in driver.bodies:
        if isinstance(body, events.StepSkipped | events.StepStarted):
            is_graph = block_of(driver.definition, paths.split(body.path)[0]).ordering is Ordering.GRAPH
            waits_for = needs(driver.definition, body.path)
            is_moot = is_graph and bool(waits_for) and waits_for <= skipped
            by_condition = isinstance(body, events.StepSkipped) and "condition" in body.reason
            assert is_moot == (isinstance(body, events.StepSkipped) and not by_condition)
        if isinstance(body, events.StepSkipped):
            skipped.add(body.path)


@whatever_happens
def test_every_execution_ends_when_its_attempts_and_timers_do(driver: Driver) -> None:
    state = driver.state
    assert state.state.is_end
    assert state.end_time is not None and state.ending is None and state.next_wake is None and state.is_idle
    assert state.start_time is None or state.start_time <= state.end_time


@whatever_happens
def test_there_is_always_something_that_moves_an_execution_on(driver: Driver) -> None:
    for turn in driver.turns:
        state = turn.plan.state
        if not state.state.is_end and state.state is not ExecutionState.PENDING and not state.is_paused:
            in_work = [step for step in state.steps.values() if not step.state.is_end]
            goes_on = [step for step in in_work if step.attempt or step.state is StepState.WAITING]
            # What stops leaves it to whoever goes on from there.
            assert goes_on or turn.is_behind or not turn.begins


@whatever_happens
def test_the_end_is_the_one_that_was_earned(driver: Driver) -> None:
    state = driver.state
    failed = {p for p, row in driver.rows.items() if row.state is StepState.FAILED}
    fatal = {p for p in failed if spec_of(driver.definition, p).on_error is not OnError.CONTINUE}
    kinds = {type(turn.happening) for turn in driver.turns if not turn.before.state.is_end}
    if any(isinstance(body, events.Cancelling) for body in driver.bodies):
        assert state.state is ExecutionState.CANCELLED
    elif of_root := [path for path in fatal if "[" not in path]:
        assert state.state is ExecutionState.FAILED and len(of_root) == 1
        assert state.failure is not None and state.failure.step_path in fatal
        assert state.failure.step_path.startswith(of_root[0])
    elif state.state is ExecutionState.TIMED_OUT:
        assert state.deadline_time is not None and driver.now >= state.deadline_time
    elif happenings.Condemned in kinds:
        assert state.failure is not None and state.failure.code == "INTERNAL"
    else:
        assert state.state is (ExecutionState.FAILED if state.failure else ExecutionState.COMPLETED)
        assert state.failure is None or state.failure.code == "EXPRESSION_ERROR"
        assert driver.rows.keys() >= driver.definition.root.by_id.keys()


@whatever_happens
def test_an_item_that_has_failed_ends_and_so_do_the_others_unless_they_are_collected(driver: Driver) -> None:
    failed: list[str] = []
    for body in driver.bodies:
        if isinstance(body, events.StepStarted | events.StepSkipped):
            assert not any(body.path.startswith(prefix) for prefix in failed)
        if isinstance(body, events.StepFailed) and "[" in body.path:
            scope, _ = paths.split(body.path)
            path, _ = paths.owner(scope)
            action = spec_of(driver.definition, path).action
            is_fatal = spec_of(driver.definition, body.path).on_error is not OnError.CONTINUE
            assert isinstance(action, Repeat)
            if is_fatal:
                failed.append(f"{scope}." if action.on_item_error is OnItemError.COLLECT else f"{path}[")


def repeats(definition: Definition, path: str) -> bool:
    return isinstance(spec_of(definition, path).action, Repeat)


@whatever_happens
def test_a_step_that_repeats_ends_after_its_items_with_one_output_for_each(driver: Driver) -> None:
    open_steps: set[str] = set()
    for body in driver.bodies:
        if isinstance(body, OPEN):
            open_steps.add(body.path)
        elif isinstance(body, events.StepCompleted | events.StepFailed | events.StepSkipped | events.StepCancelled):
            open_steps.discard(body.path)
            assert not any(path.startswith(f"{body.path}[") for path in open_steps)
        if isinstance(body, events.StepCompleted) and repeats(driver.definition, body.path):
            items, begun = len(driver.rows[body.path].input["items"]), len(items_of(driver, body.path))
            assert len(body.output) == begun and (begun == items or until_of(driver.definition, body.path))


def until_of(definition: Definition, path: str) -> bool:
    action = spec_of(definition, path).action
    return isinstance(action, Repeat) and action.until is not None


def items_of(driver: Driver, path: str) -> set[int]:
    """Return the numbers of the items of a step of which something is recorded."""
    return {paths.owner(scope)[1] for scope in scopes_of(driver.rows) if paths.owner(scope)[0] == path}


def scopes_of(found: Iterable[str]) -> set[str]:
    """Return the scopes of these steps, the root's left out."""
    return {scope for scope, _ in map(paths.split, found) if scope}


@whatever_happens
def test_a_round_begins_when_the_one_before_has_ended(driver: Driver) -> None:
    """And rounds come without gaps, also where another process asks whether they are over."""
    for turn in driver.turns:
        for path, repeat in turn.plan.state.repeats.items():
            if until_of(driver.definition, path):
                assert repeat.open <= 1 and repeat.next <= repeat.total
    for path in driver.rows:
        if until_of(driver.definition, path):
            rounds = items_of(driver, path)
            assert rounds == set(range(len(rounds)))


@whatever_happens
def test_no_more_items_are_in_work_than_may_be(driver: Driver) -> None:
    for turn in driver.turns:
        items: dict[str, set[int]] = {}
        for step in turn.plan.state.steps.values():
            if not step.state.is_end and "[" in step.path:
                path, index = paths.owner(paths.split(step.path)[0])
                items.setdefault(path, set()).add(index)
        for path, in_work in items.items():
            action = spec_of(driver.definition, path).action
            assert isinstance(action, Repeat) and len(in_work) <= action.max_parallel


@whatever_happens
def test_the_same_happenings_give_the_same_history(driver: Driver) -> None:
    """Recoveries included: here they go on from the state in memory, in the driver from the rows."""
    state = driver.initial
    recorded: list[events.Event] = []
    for turn in driver.turns:
        if turn.is_first:  # whatever the process was about to do that went before
            state = told_by_rows(driver.definition, state)
        plan = driver.plan(state, turn.happening, begins=turn.begins)
        state = plan.state
        recorded.extend(plan.events)
    assert recorded == driver.events
    assert replace(state, time=None) == replace(driver.state, time=None)


@whatever_happens
def test_what_is_stored_gives_the_state_again(driver: Driver) -> None:
    for turn in driver.turns:
        assert restore(driver.definition, turn.stored) == told_by_rows(driver.definition, turn.plan.state)


@whatever_happens
def test_what_is_kept_of_the_steps_in_work_is_what_all_steps_tell(driver: Driver) -> None:
    """After each application, and after each restore that another process goes on from."""
    for turn in driver.turns:
        for state in (turn.before, turn.plan.state):
            in_work = {step.path: step for step in state.steps.values() if step.state in IN_WORK}
            running = [step for step in in_work.values() if step.state is StepState.RUNNING and step.attempt]
            waits = [step.wait for step in in_work.values() if step.waits_for(WaitKind.WORKER)]
            assert dict(state.open) == in_work
            assert dict(state.running) == {step.key: step.attempt for step in running}
            assert dict(state.awaited) == Counter(awaited(wait.handler, wait.wishes) for wait in waits if wait)
            assert state.is_idle == (not running)
            waits_by_name = [(name, path) for path, step in in_work.items() for name in awaited_signals(step)]
            assert sorted((name, path) for name, paths in state.listening.items() for path in paths) == sorted(
                waits_by_name
            )


@whatever_happens
def test_each_signal_is_taken_once_or_kept_and_nobody_waits_for_one_that_is_kept(driver: Driver) -> None:
    """CONTRACT ST14."""
    came, taken = list[UUID](), list[UUID]()
    for turn in driver.turns:
        for body in (event.body for event in turn.plan.events):
            if isinstance(body, events.SignalReceived):
                came.append(body.signal.id)
            elif isinstance(body, events.StepCompleted | events.StepFailed):
                taken += body.signals
        state = turn.plan.state
        assert len(taken) == len(set(taken))
        assert [signal.id for signal in state.signals] == [each for each in came if each not in taken]
        if not state.state.is_end and state.ending is None:
            for path in {path for paths in state.listening.values() for path in paths}:
                is_ending = Course(driver.definition, state, T0).is_ending(paths.split(path)[0])
                assert is_ending or not read_again(state.steps[path].input).chosen(state.signals)


@whatever_happens
def test_what_is_stored_never_contradicts_itself(driver: Driver) -> None:
    """Or whoever takes the execution over would end it."""
    for turn in driver.turns:
        assert turn.plan.state.state.is_end or not contradictions(driver.definition, turn.stored)


@whatever_happens
def test_events_are_numbered_without_gaps_and_end_with_the_end(driver: Driver) -> None:
    recorded = driver.events
    assert [event.time for event in recorded] == sorted(event.time for event in recorded)
    assert [event.seq for event in recorded] == list(range(1, len(recorded) + 1))
    assert [type(event.body) is events.Finished for event in recorded] == [False] * (len(recorded) - 1) + [True]
    for turn in driver.turns:
        assert all(event.transition_seq == turn.plan.state.last_seq for event in turn.plan.events)
        assert turn.plan.state.last_seq == turn.before.last_seq + len(turn.plan.events)
        assert bool(turn.plan.steps) <= bool(turn.plan.events)


@whatever_happens
def test_nothing_changes_after_the_end(driver: Driver) -> None:
    final = driver.state
    again = [turn.happening for turn in driver.turns]
    late: list[Any] = [happenings.Recovered(driver.now), happenings.Started(driver.now)]
    for happening in [*again, *late, happenings.TimerFired(datetime.max.replace(tzinfo=UTC))]:
        plan = planner.apply(driver.definition, final, happening)
        assert plan.is_empty and plan.state == final


@whatever_happens
def test_events_show_counts_and_progress_as_they_add_up(driver: Driver) -> None:
    total, most = len(driver.definition.root.steps), driver.state.counts.total
    where: dict[str, str] = {}
    known = _Known(driver)
    progress, is_ending, shown = 0, False, 0
    for event in driver.events:
        _follow(where, event.body)
        counts = Counter(where.values())
        settled = counts["completed"] + counts["failed"] + counts["skipped"]
        total += known.by(event.body)
        if isinstance(event.body, events.StepFailed) and "[" not in event.body.path:
            spec = driver.definition.root.by_id[event.body.path]
            is_ending = is_ending or spec.on_error is not OnError.CONTINUE
        is_ending = is_ending or isinstance(event.body, events.Cancelling)
        if not is_ending:
            progress = max(progress, min(99, 100 * settled // total))
        if isinstance(event.body, events.Finished):
            counts["cancelled"] += total - len(where)
            progress = 100 if event.body.state is ExecutionState.COMPLETED else progress
        assert event.counts == StepCounts(total=total, **counts)
        is_unmade = event.transition_seq == driver.events[-1].seq and _lacks_result(driver)
        assert event.progress == min(progress, max(shown, 100 * most // (most + 1)) if is_unmade else 100)
        if event.transition_seq != driver.events[-1].seq:
            shown = event.progress


class _Known:
    """Counts the steps that there are: those of a list when it is known, those of a round when it begins."""

    def __init__(self, driver: Driver) -> None:
        self._definition = driver.definition
        self._begun = set[str]()

    def by(self, body: EventBody) -> int:
        """Return how many steps more there are when this has happened."""
        path = getattr(body, "path", "")
        more = 0
        scope, _ = paths.split(path)
        if scope and scope not in self._begun:
            self._begun.add(scope)
            if until_of(self._definition, paths.owner(scope)[0]):
                more += len(block_of(self._definition, scope).steps)
        action = spec_of(self._definition, path).action if isinstance(body, events.StepStarted) else None
        if isinstance(body, events.StepStarted) and isinstance(action, Repeat) and action.until is None:
            more += len(body.input["items"]) * len(action.body.steps)
        return more


def _lacks_result(driver: Driver) -> bool:
    """Whether all steps were done and the output could not be had."""
    failure = driver.state.failure
    return failure is not None and failure.code in ("EXPRESSION_ERROR", "INVALID_OUTPUT") and not failure.step_path


def _follow(where: dict[str, str], body: EventBody) -> None:
    if isinstance(body, OPEN):
        where[body.path] = "running"
    elif isinstance(body, events.StepCancelled):
        where[body.path] = "cancelled"
    elif isinstance(body, events.StepCompleted | events.StepFailed | events.StepSkipped):
        where[body.path] = SETTLED[type(body)]


@whatever_happens
def test_counts_and_progress_of_the_state_match_its_steps(driver: Driver) -> None:
    progress, total, known = 0, len(driver.definition.root.steps), _Known(driver)
    for turn in driver.turns:
        state = turn.plan.state
        total += sum(known.by(event.body) for event in turn.plan.events)
        at = Counter(step.state for step in state.steps.values())
        never_started = state.counts.total - len(state.steps) if state.state.is_end else 0
        assert state.counts == StepCounts(
            total=total,
            completed=at[StepState.COMPLETED],
            failed=at[StepState.FAILED],
            skipped=at[StepState.SKIPPED],
            running=at[StepState.RUNNING] + at[StepState.WAITING],
            cancelled=at[StepState.CANCELLED] + never_started,
        )
        assert sum(at.values()) <= state.counts.total
        assert progress <= state.progress <= 100
        assert (state.progress == 100) == (state.state is ExecutionState.COMPLETED)
        progress = state.progress
        assert all((step.end_time is not None) == step.state.is_end for step in state.steps.values())


@whatever_happens
def test_a_step_ends_once_and_nothing_of_it_follows(driver: Driver) -> None:
    ended: dict[str, int] = {}
    for event in driver.events:
        path = getattr(event.body, "path", None)
        if path is None or isinstance(event.body, events.VariablesAssigned):
            continue
        assert path not in ended
        if isinstance(event.body, (*SETTLED, events.StepCancelled)):
            ended[path] = event.seq
    assert ended == {path: row.end_seq for path, row in driver.rows.items()}


@whatever_happens
def test_variables_are_those_that_the_events_assign(driver: Driver) -> None:
    assigned: dict[str, Any] = {}
    for body in driver.bodies:
        if isinstance(body, events.VariablesAssigned):
            assigned.update(body.vars)
    assert driver.state.vars == assigned
