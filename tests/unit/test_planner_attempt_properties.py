"""What holds for attempts and timers whatever the workflow is and whatever happens, checked against simpler models."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from persistence.model import MessageKind, Step, StepState, WaitKind
from service.engine.definition import Call, Delivery, StepSpec
from service.engine.failure import INTERRUPTED, Failure
from service.engine.planning import events, happenings
from service.engine.planning.effects import CancelAttempt, StartAttempt
from tests.unit.planner_histories import whatever_happens
from tests.unit.planner_programs import Driver, Turn

ENDINGS = (
    *(happenings.StepSucceeded, happenings.StepFailed, happenings.StepSuspended, happenings.StepStopped),
    happenings.SlotMissed,
    happenings.HandlerMissed,
    happenings.AttemptLost,
)
RESULTS = (*ENDINGS, happenings.StepProgressed)
LAST = (events.Cancelling, events.SignalReceived, events.StepCancelled, events.Finished)


def starts(turn: Turn) -> list[StartAttempt]:
    return [effect for effect in turn.plan.effects if isinstance(effect, StartAttempt)]


def running(turn: Turn) -> dict[str, int]:
    """Return the attempts that run after a turn, as the state has it; not those that another process had begun."""
    state = turn.plan.state
    steps = (step for step in state.steps.values() if state.inherited.get(step.path) is not step)
    return {step.path: step.attempt for step in steps if step.state is StepState.RUNNING and step.attempt}


@whatever_happens
def test_attempts_are_bounded(driver: Driver) -> None:
    of_steps: dict[str, list[Any]] = {}
    for body in driver.bodies:
        of_steps.setdefault(getattr(body, "path", ""), []).append(body)
    for path, row in driver.rows.items():
        step, of_step = driver.definition.find(path), of_steps[path]
        assert step is not None
        if not isinstance(step.action, Call):
            continue
        numbers = _begun(of_step)
        again = [body for body in of_step if isinstance(body, events.StepRetrying)]
        retries = [body for body in again if body.failure.code != INTERRUPTED]
        cut_off = sum(_cuts_off(turn, path) for turn in driver.turns)
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(retries) <= step.retry.max_attempts - 1
        assert all(retry.failure.retryable and retry.failure.code != "NEVER" for retry in retries)
        assert all(retry.retry_time < _time_limit(row, step) for retry in retries)
        assert len(numbers) <= 1 + len(retries) + cut_off
        assert len(again) - len(retries) <= cut_off
        # What has a mock calls nobody, and may be made again.
        assert step.delivery is Delivery.AT_LEAST_ONCE or row.is_mocked or len(numbers) <= 1


def _cuts_off(turn: Turn, path: str) -> bool:
    """Whether an attempt of a step that ran may have ended so that it counts for nothing."""
    match turn.happening:
        case happenings.Recovered() | happenings.StepStopped() | happenings.AttemptLost():
            return path in _running_before(turn)
        case happenings.StepFailed():  # because a pause had told it to stop
            return path in {stopping for stopping, _ in turn.before.stopping}
    return False


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
            elif turn.before.ending is None or not turn.before.ending.is_at_once:
                assert active[effect.path] == effect.attempt
        if turn.plan.state.ending is not None and turn.plan.state.ending.is_at_once:
            active = running(turn)  # nobody waits until what runs has stopped
        if not turn.plan.state.state.is_end:
            assert active == running(turn)


@whatever_happens
def test_when_the_end_is_decided_nothing_starts_and_all_that_runs_is_told(driver: Driver) -> None:
    told: dict[str, int] = {}
    for turn in driver.turns:
        if turn.is_first or isinstance(turn.happening, happenings.Condemned):
            told.clear()
        if not turn.plan.state.is_paused:  # what a pause stops is made again
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
def test_nothing_begins_where_nothing_may(driver: Driver) -> None:
    assert all(turn.begins or not starts(turn) for turn in driver.turns)


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
                case events.StepWaiting(path, wait) if wait.wake_time and wait.kind is not WaitKind.SIGNAL:
                    due[path] = wait.wake_time
                case events.StepRetrying(path, _, _, wake_time):
                    due[path] = wake_time
                case events.StepCompleted(path) | events.StepStarted(path) | events.StepFailed(path):
                    wake = due.pop(path, None)
                    assert wake is None or (_fires(turn) and event.time >= wake)
                case events.Started() if driver.execution.scheduled_time:
                    assert event.time >= driver.execution.scheduled_time


def _fires(turn: Turn) -> bool:
    """Whether what was due may go on with a turn: also with one that resumes it."""
    if isinstance(turn.happening, happenings.MessageCame):
        return turn.happening.message.kind == MessageKind.RESUME
    return isinstance(turn.happening, happenings.TimerFired | happenings.Continued)


@whatever_happens
def test_what_is_due_does_not_wait_on_and_what_is_not_does(driver: Driver) -> None:
    for turn in driver.turns:
        state, happening = turn.plan.state, turn.happening
        if isinstance(happening, happenings.TimerFired):
            assert turn.is_behind or state.next_wake is None or state.next_wake > happening.time
        if isinstance(happening, happenings.StepSuspended) and not (state.dry_run and state.dry_run.skips_waits):
            completed = [event for event in turn.plan.events if isinstance(event.body, events.StepCompleted)]
            assert all(event.time >= happening.until for event in completed)
