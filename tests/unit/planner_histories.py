"""Histories of random happenings to random workflows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from persistence.model import RETRIABLE_STATES, Edit, StepState, WaitKind
from persistence.usage import MOST, Usage
from service.engine.failure import HANDLER_ERROR, Failure
from service.engine.planning import happenings
from tests.unit.planner_definitions import DRY_RUNS
from tests.unit.planner_programs import CANCEL, T0, Driver
from tests.unit.planner_repeats import play_stale, repeat
from tests.unit.planner_workflows import Draw, workflows

WISHES = '[{"region":"eu"},[]]'
WISHED = f"work\t{WISHES}"

EXAMPLES = 400

MOST_HAPPENINGS = 40

MOST_STEPS = 2_000
"""Attempts and waits that are left of an execution by then, at most: it may have lists in lists."""

_RESULTS: list[Any] = [{"absent": 1}, None, 7, [True]]
_FAILURES = [
    *(Failure(HANDLER_ERROR, "boom", retryable=True),) * 4,
    Failure(HANDLER_ERROR, "long" * 1000, retryable=True, stack_trace="trace"),
    Failure(HANDLER_ERROR, "fatal"),
    Failure("NEVER", "not again", {"a": 1}, retryable=True),
]
_USAGES = [None, Usage(7, 1), Usage(cost_micros=MOST // 2)]
_FREQUENCIES = {
    **{"succeed": 24, "fail": 18, "due": 20, "pass": 6, "progress": 6, "suspend": 16, "stale": 8, "repeat": 6},
    **{"early": 6, "recover": 8, "stop": 6, "miss": 8, "free": 8, "lack": 6, "find": 6, "restart": 12, "rejoin": 8},
    **{"lose": 6, "hold": 12, "signal": 16, "debug": 10, "edit": 6},
}
_KINDS = [kind for kind, frequency in _FREQUENCIES.items() for _ in range(frequency)]
_ENDS = ["cancel", "cancel", "deadline", "deadline", "condemn", "terminate"]
_POINTS: list[list[str | tuple[str, str]]] = [
    *([],) * 3,
    ["*"],
    [("*", "params != null && has(params.n) && params.n > 1")],
    [("s0", "params == null"), ("*", "params.absent")],
]
_WORK = [None, 1, 1, 12_000, 40_000]
_ENOUGH = [None, None, 1, 2_000]
_RESULT_KINDS = {"succeed", "fail", "suspend", "progress"}
_IS_CUT_SHORT = [False] * 15 + [True]
_COMES_FIRST = [True, False]
_BEGINNINGS = ["start", "start", "start", "delay", "hold"]


@st.composite
def histories(draw: Draw) -> Driver:
    """Return an execution to which anything happened, and which was then driven to its end."""
    beginning = draw(st.sampled_from(_BEGINNINGS))
    delay = T0 + timedelta(seconds=5) if beginning == "delay" else None
    driver = Driver(
        draw(workflows()),
        {"a": 1},
        delay,
        waits_turns=True,
        work=draw(st.sampled_from(_WORK)),
        enough=draw(st.sampled_from(_ENOUGH)),
        dry_run=draw(st.sampled_from(DRY_RUNS)),
    )
    if beginning == "start":
        driver.start()
    ends = draw(st.dictionaries(st.integers(0, 15), st.sampled_from(_ENDS), max_size=2))
    for turn in range(MOST_HAPPENINGS):
        if driver.state.state.is_end:
            break
        while driver.backlog and draw(st.sampled_from(_COMES_FIRST)):
            driver.take_turn()
        is_cut_short = bool(driver.backlog) and draw(st.sampled_from(_IS_CUT_SHORT))
        kind = "cancel" if is_cut_short else ends.get(turn) or draw(st.sampled_from(_KINDS))
        _play(driver, kind, *divmod(draw(st.integers(0, 47)), 4))
    drain(driver)
    return driver


@st.composite
def retried(draw: Draw) -> Driver:
    """Return an execution that was retried in place after each of its first ends, as far as it could be."""
    driver: Driver = draw(histories())
    retry(draw, driver, draw(st.integers(1, 3)))
    return driver


def retry(draw: Draw, driver: Driver, times: int) -> None:
    """Let an execution be retried in place so often, as far as it can be, and anything happen to each run."""
    for _ in range(times):
        if driver.state.state not in RETRIABLE_STATES:
            break
        driver.now += timedelta(seconds=1)
        driver.reopen("again", draw(st.sampled_from([None, None, 5.0])), _edit(draw, driver))
        go_on(draw, driver)


def go_on(draw: Draw, driver: Driver) -> None:
    """Let anything happen to an execution that goes on, and drive it to its end."""
    ends = draw(st.dictionaries(st.integers(0, 15), st.sampled_from(_ENDS), max_size=1))
    for turn in range(draw(st.integers(0, MOST_HAPPENINGS // 2))):
        if driver.state.state.is_end:
            break
        kind = ends.get(turn) or draw(st.sampled_from(_KINDS))
        _play(driver, kind, *divmod(draw(st.integers(0, 47)), 4))
    drain(driver)


def _edit(draw: Draw, driver: Driver) -> Edit | None:
    """Return what differs in the next run, if anything: of some step that has ended otherwise than by completing."""
    rows = [row for _, row in sorted(driver.rows.items()) if row.state in (StepState.FAILED, StepState.CANCELLED)]
    if not rows or draw(st.booleans()):
        return None
    row = draw(st.sampled_from(rows))
    if draw(st.booleans()):
        return Edit(row.path, row.iteration + 1, [1], is_skipped=True)
    return Edit(row.path, row.iteration + 1, {"edited": True})


def whatever_happens(test: Callable[[Driver], None]) -> Callable[[], None]:
    """Run a test on executions to which anything happened, and which were then driven to their end."""

    def on_all() -> None:
        try:
            for driver in _drawn():
                test(driver)
        except Exception:
            _on_any(test)()  # it is to fail for the smallest
            raise

    on_all.__name__, on_all.__doc__ = test.__name__, test.__doc__
    return on_all


@cache
def _drawn() -> list[Driver]:
    """Return the histories of this process: they are drawn once, which takes much longer than a test of them."""
    drawn: list[Driver] = []
    _on_any(drawn.append)()
    return drawn


def _on_any(test: Callable[[Driver], None]) -> Callable[[], None]:
    @settings(max_examples=EXAMPLES)
    @given(driver=histories())
    def on_any(driver: Driver) -> None:
        test(driver)

    return on_any


def _play(driver: Driver, kind: str, which: int, how: int) -> None:
    """Let one thing happen: to `which` of the attempts that run, or to a step that does not, and `how`."""
    paths = sorted(driver.running) or [s.id for s in driver.definition.root.steps]
    path = paths[which % len(paths)]
    if not driver.running and how and kind in _RESULT_KINDS:
        kind = "due"  # else most of it would be about attempts that do not run
    usage = _USAGES[which % 3]
    match kind:
        case "succeed":
            driver.succeed(path, _RESULTS[how], usage=usage)
        case "fail":
            retry_after = 3.0 if how == 3 else None
            driver.fail(path, failure=_FAILURES[which % 7], draw=how / 4, retry_after=retry_after, usage=usage)
        case "suspend":
            driver.suspend(path, (0.5, 5, 60, -1)[how], _RESULTS[how], usage=usage)
        case "progress":
            driver.progress(path, (40, 20, 150, 0)[how])
        case "stop":
            driver.stopped(path, has_ended=how > 0, usage=usage)
        case "miss":
            driver.miss_thread(path)
        case "free":
            driver.free_thread(min(waiting(driver, WaitKind.SLOT), default=path))
        case "lack":
            driver.miss_handler(path, WISHES if how == 3 else "")
        case "find":
            driver.recover(handlers=["work", WISHED][: 1 + how % 2])
        case "stale":
            play_stale(driver, path, how)
        case "repeat":
            repeat(driver, which + 12 * how)
        case "cancel":
            driver.cancel()
        case "hold" if driver.state.pause is not None and driver.state.pause.is_joinable:
            driver.pause(hard=how > 1, stop_deadline=how % 2 > 0)
        case "hold" if driver.state.is_paused:
            driver.resume(workflow_pause_id=("w1" if which % 3 == 0 else ""))
        case "hold":
            driver.pause(hard=how > 1, stop_deadline=how % 2 > 0, workflow_pause_id=("w1" if which % 2 else ""))
        case "debug" if driver.state.is_paused and which % 3 == 0:
            driver.edit_variables({name: [which, how] for name in ("x", "y", "by_hand")[how % 3 :]})
        case "debug" if driver.state.is_paused:
            driver.edit_input(min(waiting(driver, WaitKind.BREAKPOINT), default=path), {"edited": how})
            driver.resume(**({}, {"step_over": True}, {"run_to": path}, {"step_over": True})[how])
        case "debug":
            driver.set_breakpoints(
                *_POINTS[which % len(_POINTS)], *(path, f"{path}.a0", "s1")[: how + 1] if how else ()
            )
        case "edit":
            driver.edit_input(min(waiting(driver, WaitKind.BREAKPOINT), default=path), {"edited": which})
        case "terminate":
            driver.terminate()
        case "signal":
            driver.signal("xy"[which % 2], [{"n": 1}, {}][how == 3])
        case "recover":
            driver.recover()
        case "rejoin":
            driver.recover(remote=["work"])
        case "lose":
            if path in driver.running and driver.running[path].resumed:
                driver.lose(path)
        case "restart":
            _restart(driver, path, how)
        case "condemn":
            driver.apply_now(happenings.Condemned(driver.now, Failure("INTERNAL", "it cannot go on")))
            driver.running.clear()
        case _:
            _pass_time(driver, kind, how)


def _restart(driver: Driver, path: str, how: int) -> None:
    """Let an attempt end while its process stops, and a message come before another goes on."""
    if path in driver.running:
        number = driver.ended(path)
        failure = _FAILURES[5]
        driver.backlog.append(
            happenings.StepFailed(driver.now, path, number, failure, iteration=driver.iteration(path))
            if how == 1
            else happenings.StepSucceeded(driver.now, path, number, _RESULTS[how], driver.iteration(path))
        )
    driver.shut_down()
    driver.recover(mail=[CANCEL] if how > 1 else [])


def _pass_time(driver: Driver, kind: str, how: int) -> None:
    """Let timers fire: at the next one, right before it, at the deadline, or whenever it is."""
    waits = [row.wait for row in driver.rows.values() if row.state is StepState.WAITING and row.wait]
    wake = min((wait.wake_time for wait in waits if wait.wake_time), default=driver.state.scheduled_time or driver.now)
    match kind:
        case "due":
            driver.now = max(driver.now, wake)
        case "early":
            driver.now = max(driver.now, wake - timedelta(microseconds=1))
        case "deadline":
            driver.now = max(driver.now, driver.state.deadline_time or driver.now)
        case _:
            driver.now += timedelta(seconds=(0.5, 2, 0, 20)[how])
    driver.fire()


def waiting(driver: Driver, kind: WaitKind) -> set[str]:
    """Return the steps that wait for something."""
    return {path for path, row in driver.rows.items() if row.waits_for(kind)}


def drain(driver: Driver) -> None:
    """Let every attempt succeed or stop and every timer fire, as long as that should take at most."""
    for _ in range(MOST_STEPS):
        if driver.state.state.is_end:
            return
        if driver.backlog:
            driver.take_turn()
        elif driver.state.is_paused:
            driver.resume()
        elif driver.told_to_stop:
            driver.stopped(min(driver.told_to_stop))
        elif driver.running:
            driver.succeed(min(driver.running), {"absent": 1})
        elif waiting(driver, WaitKind.WORKER):
            driver.recover(handlers=["work", WISHED])
        elif waiting(driver, WaitKind.SLOT):
            driver.free_thread(min(waiting(driver, WaitKind.SLOT)))
        elif waiting(driver, WaitKind.SIGNAL):
            driver.signal("xy"[driver.sent % 2], {"n": 1})
        else:
            wake = driver.state.next_wake
            driver.now = max(driver.now, wake or driver.now)
            driver.fire()
