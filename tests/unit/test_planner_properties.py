"""What holds for the planner whatever the workflow is and whatever happens, checked against simpler models."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from persistence.model import ExecutionState, Step, StepCounts, StepState, WaitKind
from service.engine import paths
from service.engine.definition import Definition, Delivery, OnError, OnItemError, Ordering, Repeat, StepSpec
from service.engine.failure import INTERRUPTED, Failure
from service.engine.planning import events, happenings, planner
from service.engine.planning.effects import CancelAttempt, StartAttempt
from service.engine.planning.events import EventBody
from service.engine.planning.restoring import restore
from service.engine.planning.scopes import block_of
from service.engine.running.soundness import contradictions
from tests.unit.planner_histories import whatever_happens
from tests.unit.planner_programs import Driver, Turn, told_by_rows

ENDINGS = (
    *(happenings.StepSucceeded, happenings.StepFailed, happenings.StepSuspended, happenings.StepStopped),
    happenings.ThreadMissed,
    happenings.HandlerMissed,
)
RESULTS = (*ENDINGS, happenings.StepProgressed)
SETTLED = {events.StepCompleted: "completed", events.StepFailed: "failed", events.StepSkipped: "skipped"}
FIRING = (happenings.TimerFired, happenings.Continued)
OPEN = (events.StepStarted, events.StepWaiting, events.StepRetrying)

LAST = (events.Cancelling, events.StepCancelled, events.Finished)


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


def starts(turn: Turn) -> list[StartAttempt]:
    return [effect for effect in turn.plan.effects if isinstance(effect, StartAttempt)]


def running(turn: Turn) -> dict[str, int]:
    """Return the attempts that run after a turn, as the state has it; not those that another process had begun."""
    state = turn.plan.state
    steps = (step for step in state.steps.values() if state.inherited.get(step.path) is not step)
    return {step.path: step.attempt for step in steps if step.state is StepState.RUNNING and step.attempt}


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
        if not state.state.is_end and state.state is not ExecutionState.PENDING:
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
    if happenings.MessageCame in kinds:
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
            assert len(body.output) == len(driver.rows[body.path].input["items"])


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
    progress, is_ending, shown = 0, False, 0
    for event in driver.events:
        _follow(where, event.body)
        counts = Counter(where.values())
        settled = counts["completed"] + counts["failed"] + counts["skipped"]
        total += _known_by(driver, event.body)
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


def _known_by(driver: Driver, body: EventBody) -> int:
    """Return how many steps more there are when this has happened."""
    action = spec_of(driver.definition, body.path).action if isinstance(body, events.StepStarted) else None
    if not isinstance(body, events.StepStarted) or not isinstance(action, Repeat):
        return 0
    return len(body.input["items"]) * len(action.body.steps)


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
    progress, bodies = 0, list[EventBody]()
    for turn in driver.turns:
        state = turn.plan.state
        bodies += [event.body for event in turn.plan.events]
        at = Counter(step.state for step in state.steps.values())
        never_started = state.counts.total - len(state.steps) if state.state.is_end else 0
        assert state.counts == StepCounts(
            total=len(driver.definition.root.steps) + sum(_known_by(driver, body) for body in bodies),
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
    of_steps: dict[str, list[Any]] = {}
    for body in driver.bodies:
        of_steps.setdefault(getattr(body, "path", ""), []).append(body)
    for path, row in driver.rows.items():
        step, of_step = spec_of(driver.definition, path), of_steps[path]
        if isinstance(step.action, Repeat):
            continue
        numbers = _begun(of_step)
        again = [body for body in of_step if isinstance(body, events.StepRetrying)]
        retries = [body for body in again if body.failure.code != INTERRUPTED]
        cut_off = sum(
            isinstance(turn.happening, happenings.Recovered) and path in _running_before(turn) for turn in driver.turns
        )
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(retries) <= step.retry.max_attempts - 1
        assert all(retry.failure.retryable and retry.failure.code != "NEVER" for retry in retries)
        assert all(retry.retry_time < _time_limit(row, step) for retry in retries)
        assert len(numbers) <= 1 + len(retries) + cut_off
        assert len(again) - len(retries) <= cut_off
        assert step.delivery is Delivery.AT_LEAST_ONCE or len(numbers) <= 1


def _begun(bodies: list[Any]) -> list[int]:
    """Return the numbers of the attempts of a step without those not begun for want of a thread or handler."""
    numbers: list[int] = []
    for body in bodies:
        if isinstance(body, events.StepStarted):
            numbers.append(body.attempt)
        elif isinstance(body, events.StepWaiting) and body.wait.kind in (WaitKind.SLOT, WaitKind.WORKER):
            numbers.pop()
    return numbers


def _time_limit(row: Step, step: StepSpec) -> datetime:
    start = row.start_time
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
        if turn.is_first or isinstance(happening, happenings.Condemned):
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
        if turn.is_first or isinstance(turn.happening, happenings.Condemned):
            told.clear()
        told.update({e.path: e.attempt for e in turn.plan.effects if isinstance(e, CancelAttempt)})
        if turn.before.ending or turn.plan.state.ending or turn.plan.state.state.is_end:
            assert not starts(turn)
        if turn.before.ending:
            assert all(isinstance(event.body, LAST) for event in turn.plan.events)
        if turn.plan.state.sweeps or turn.plan.state.inherited:  # there is some left to be seen to
            assert turn.is_behind or not turn.begins
        elif turn.plan.state.ending:
            assert running(turn).items() <= told.items()
            assert not any(step.state is StepState.WAITING for step in turn.plan.state.steps.values())
        else:
            assert turn.plan.state.state.is_end or all("[" in path for path in told)


@whatever_happens
def test_results_of_attempts_that_are_not_the_current_one_change_nothing(driver: Driver) -> None:
    for turn in driver.turns:
        happening = turn.happening
        if isinstance(happening, RESULTS):
            step = turn.before.steps.get(happening.path)
            is_current = step is not None and step.state is StepState.RUNNING and step.attempt == happening.attempt
            # It may be what finds time to end that of which all is done.
            if not is_current and not turn.plan.state.state.is_end:
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
                    assert wake is None or (isinstance(turn.happening, FIRING) and event.time >= wake)
                case events.Started() if driver.execution.scheduled_time:
                    assert event.time >= driver.execution.scheduled_time


@whatever_happens
def test_what_is_due_does_not_wait_on_and_what_is_not_does(driver: Driver) -> None:
    for turn in driver.turns:
        state, happening = turn.plan.state, turn.happening
        if isinstance(happening, happenings.TimerFired):
            assert turn.is_behind or state.next_wake is None or state.next_wake > happening.time
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
