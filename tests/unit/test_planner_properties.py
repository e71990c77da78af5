"""What holds for the planner whatever the workflow is and whatever happens, checked against simpler models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings

from persistence.model import ExecutionState, StepCounts, StepState, WaitKind
from service.engine.definition import Definition, Delivery, OnError, Ordering, StepSpec
from service.engine.failure import INTERRUPTED, Failure
from service.engine.planning import events, happenings, planner
from service.engine.planning.effects import CancelAttempt, StartAttempt
from service.engine.planning.events import EventBody
from service.engine.planning.restoring import restore
from service.engine.running.soundness import contradictions
from tests.unit.planner_histories import histories
from tests.unit.planner_programs import Driver, Turn, told_by_rows

EXAMPLES = 100

ENDINGS = (
    *(happenings.StepSucceeded, happenings.StepFailed, happenings.StepSuspended, happenings.StepStopped),
    happenings.ThreadMissed,
    happenings.HandlerMissed,
)
RESULTS = (*ENDINGS, happenings.StepProgressed)
SETTLED = {events.StepCompleted: "completed", events.StepFailed: "failed", events.StepSkipped: "skipped"}
OPEN = (events.StepStarted, events.StepWaiting, events.StepRetrying)

LAST = (events.Cancelling, events.StepCancelled, events.Finished)


def whatever_happens(test: Callable[[Driver], None]) -> Callable[[], None]:
    """Run a test on executions to which anything happened, and which were then driven to their end."""
    return settings(max_examples=EXAMPLES, deadline=None)(given(driver=histories())(test))


def needs(definition: Definition) -> Mapping[str, set[str]]:
    """Return what each step waits for."""
    if definition.root.ordering is Ordering.GRAPH:
        return {step.id: set(step.depends_on) for step in definition.root.steps}
    ids = [step.id for step in definition.root.steps]
    return {step_id: set(ids[max(0, index - 1) : index]) for index, step_id in enumerate(ids)}


def starts(turn: Turn) -> list[StartAttempt]:
    return [effect for effect in turn.plan.effects if isinstance(effect, StartAttempt)]


def running(turn: Turn) -> dict[str, int]:
    """Return the attempts that run after a turn, as the state has it."""
    steps = turn.plan.state.steps.values()
    return {step.path: step.attempt for step in steps if step.state is StepState.RUNNING}


@whatever_happens
def test_no_step_begins_before_all_it_depends_on_has_ended(driver: Driver) -> None:
    ended: set[str] = set()
    waits_for = needs(driver.definition)
    for body in driver.bodies:
        if isinstance(body, events.StepStarted | events.StepSkipped | events.StepFailed):
            assert waits_for[body.path] <= ended
        if isinstance(body, events.StepCompleted | events.StepSkipped | events.StepFailed):
            ended.add(body.path)


@whatever_happens
def test_what_only_depends_on_skipped_steps_is_skipped_and_nothing_else(driver: Driver) -> None:
    skipped: set[str] = set()
    is_graph = driver.definition.root.ordering is Ordering.GRAPH
    for body in driver.bodies:
        if isinstance(body, events.StepSkipped | events.StepStarted):
            waits_for = set(driver.definition.root.by_id[body.path].depends_on)
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
        if not state.state.is_end and state.state is not ExecutionState.PENDING:
            assert any(not step.state.is_end for step in state.steps.values())


@whatever_happens
def test_the_end_is_the_one_that_was_earned(driver: Driver) -> None:
    state = driver.state
    failed = {p for p, row in driver.rows.items() if row.state is StepState.FAILED}
    fatal = {p for p in failed if driver.definition.root.by_id[p].on_error is not OnError.CONTINUE}
    kinds = {type(turn.happening) for turn in driver.turns if not turn.before.state.is_end}
    if happenings.MessageCame in kinds:
        assert state.state is ExecutionState.CANCELLED
    elif fatal:
        assert state.state is ExecutionState.FAILED
        assert state.failure is not None and state.failure.step_path in fatal and len(fatal) == 1
    elif state.state is ExecutionState.TIMED_OUT:
        assert state.deadline_time is not None and driver.now >= state.deadline_time
    elif happenings.Condemned in kinds:
        assert state.failure is not None and state.failure.code == "INTERNAL"
    else:
        assert state.state is (ExecutionState.FAILED if state.failure else ExecutionState.COMPLETED)
        assert state.failure is None or state.failure.code == "EXPRESSION_ERROR"
        assert len(driver.rows) == len(driver.definition.root.steps)


@whatever_happens
def test_the_same_happenings_give_the_same_history(driver: Driver) -> None:
    """Recoveries included: here they go on from the state in memory, in the driver from the rows."""
    state = driver.initial
    recorded: list[events.Event] = []
    for turn in driver.turns:
        plan = planner.apply(driver.definition, state, turn.happening)
        state = plan.state
        recorded.extend(plan.events)
    assert recorded == driver.events
    assert state == driver.state


@whatever_happens
def test_what_is_stored_gives_the_state_again(driver: Driver) -> None:
    for turn in driver.turns:
        assert restore(driver.definition, turn.stored) == told_by_rows(driver.definition, turn.plan.state)


@whatever_happens
def test_what_is_stored_never_contradicts_itself(driver: Driver) -> None:
    """Or whoever takes the execution over would end it."""
    for turn in driver.turns:
        assert turn.plan.state.state.is_end or not contradictions(driver.definition, turn.stored)


@whatever_happens
def test_events_are_numbered_without_gaps_and_end_with_the_end(driver: Driver) -> None:
    recorded = driver.events
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
    total = len(driver.definition.root.steps)
    where: dict[str, str] = {}
    progress, is_ending = 0, False
    for event in driver.events:
        _follow(where, event.body)
        counts = Counter(where.values())
        settled = counts["completed"] + counts["failed"] + counts["skipped"]
        if isinstance(event.body, events.StepFailed):
            spec = driver.definition.root.by_id[event.body.path]
            is_ending = is_ending or spec.on_error is not OnError.CONTINUE
        is_ending = is_ending or isinstance(event.body, events.StepCancelled)
        if not is_ending:
            progress = max(progress, min(99, 100 * settled // total))
        if isinstance(event.body, events.Finished):
            counts["cancelled"] += total - len(where)
            progress = 100 if event.body.state is ExecutionState.COMPLETED else progress
        assert event.counts == StepCounts(total=total, **counts)
        is_unmade = event.transition_seq == driver.events[-1].seq and _lacks_result(driver)
        assert event.progress == min(progress, 100 * total // (total + 1) if is_unmade else 100)


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
    progress = 0
    for turn in driver.turns:
        state = turn.plan.state
        at = Counter(step.state for step in state.steps.values())
        never_started = state.counts.total - len(state.steps) if state.state.is_end else 0
        assert state.counts == StepCounts(
            total=len(driver.definition.root.steps),
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
def test_attempts_are_bounded(driver: Driver) -> None:
    for step in driver.definition.root.steps:
        of_step = [body for body in driver.bodies if getattr(body, "path", None) == step.id]
        numbers = _begun(of_step)
        again = [body for body in of_step if isinstance(body, events.StepRetrying)]
        retries = [body for body in again if body.failure.code != INTERRUPTED]
        cut_off = sum(
            isinstance(turn.happening, happenings.Recovered) and step.id in _running_before(turn)
            for turn in driver.turns
        )
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(retries) <= step.retry.max_attempts - 1
        assert all(retry.failure.retryable and retry.failure.code != "NEVER" for retry in retries)
        assert all(retry.retry_time < _time_limit(driver, step) for retry in retries)
        assert len(numbers) <= 1 + len(retries) + cut_off
        assert len(again) - len(retries) <= cut_off
        assert step.delivery is Delivery.AT_LEAST_ONCE or len(numbers) <= 1


def _begun(bodies: list[Any]) -> list[int]:
    """Return the numbers of the attempts of a step, without those that did not begin for want of a thread."""
    numbers: list[int] = []
    for body in bodies:
        if isinstance(body, events.StepStarted):
            numbers.append(body.attempt)
        elif isinstance(body, events.StepWaiting) and body.wait.kind is not WaitKind.TIMER:
            numbers.pop()
    return numbers


def _time_limit(driver: Driver, step: StepSpec) -> datetime:
    start = driver.rows[step.id].start_time
    if start is None or step.total_timeout is None:
        return datetime.max.replace(tzinfo=UTC)
    return start + timedelta(seconds=step.total_timeout)


def _running_before(turn: Turn) -> set[str]:
    return {step.path for step in turn.before.steps.values() if step.state is StepState.RUNNING}


@whatever_happens
def test_attempts_of_a_step_never_overlap(driver: Driver) -> None:
    """What runs by the effects, and what runs by the state, is the same at every point."""
    active: dict[str, int] = {}
    for turn in driver.turns:
        happening = turn.happening
        if isinstance(happening, happenings.Recovered):
            active.clear()
        elif isinstance(happening, ENDINGS) and active.get(happening.path) == happening.attempt:
            del active[happening.path]
        for effect in turn.plan.effects:
            if isinstance(effect, StartAttempt):
                assert effect.path not in active
                active[effect.path] = effect.attempt
            else:
                assert active[effect.path] == effect.attempt
        if not turn.plan.state.state.is_end:
            assert active == running(turn)


@whatever_happens
def test_when_the_end_is_decided_nothing_starts_and_all_that_runs_is_told(driver: Driver) -> None:
    told: dict[str, int] = {}
    for turn in driver.turns:
        if isinstance(turn.happening, happenings.Recovered):
            told.clear()
        told.update({e.path: e.attempt for e in turn.plan.effects if isinstance(e, CancelAttempt)})
        if turn.before.ending or turn.plan.state.ending or turn.plan.state.state.is_end:
            assert not starts(turn)
        if turn.before.ending:
            assert all(isinstance(event.body, LAST) for event in turn.plan.events)
        if turn.plan.state.ending:
            assert running(turn).items() <= told.items()
            assert not any(step.state is StepState.WAITING for step in turn.plan.state.steps.values())
        else:
            assert turn.plan.state.state.is_end or not told


@whatever_happens
def test_results_of_attempts_that_are_not_the_current_one_change_nothing(driver: Driver) -> None:
    for turn in driver.turns:
        happening = turn.happening
        if isinstance(happening, RESULTS):
            step = turn.before.steps.get(happening.path)
            is_current = step is not None and step.state is StepState.RUNNING and step.attempt == happening.attempt
            if not is_current:
                assert turn.plan.is_empty and turn.plan.state == turn.before


@whatever_happens
def test_no_timer_fires_early(driver: Driver) -> None:
    due: dict[str, datetime] = {}
    for turn in driver.turns:
        for event in turn.plan.events:
            match event.body:
                case events.StepRetrying(path, _, Failure(code="INTERRUPTED"), wake_time):
                    assert wake_time == event.time
                case events.StepWaiting(path, wait) if wait.wake_time:
                    due[path] = wait.wake_time
                case events.StepRetrying(path, _, _, wake_time):
                    due[path] = wake_time
                case events.StepCompleted(path) | events.StepStarted(path) | events.StepFailed(path):
                    wake = due.pop(path, None)
                    assert wake is None or (isinstance(turn.happening, happenings.TimerFired) and event.time >= wake)
                case events.Started() if driver.execution.scheduled_time:
                    assert event.time >= driver.execution.scheduled_time


@whatever_happens
def test_what_is_due_does_not_wait_on_and_what_is_not_does(driver: Driver) -> None:
    for turn in driver.turns:
        state, happening = turn.plan.state, turn.happening
        if isinstance(happening, happenings.TimerFired):
            assert state.next_wake is None or state.next_wake > happening.time
        if isinstance(happening, happenings.StepSuspended):
            completed = [event for event in turn.plan.events if isinstance(event.body, events.StepCompleted)]
            assert all(event.time >= happening.until for event in completed)


@whatever_happens
def test_variables_are_those_that_the_events_assign(driver: Driver) -> None:
    assigned: dict[str, Any] = {}
    for body in driver.bodies:
        if isinstance(body, events.VariablesAssigned):
            assigned.update(body.vars)
    assert driver.state.vars == assigned
