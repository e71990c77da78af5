"""Does each oracle turn red for the wrong history that it is there for, and stay green for a sound one?"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest

from tests.faults.checks.attempts import CLOCK_OF_POSTGRES
from tests.faults.checks.checker import CHECKS, Result, judge
from tests.faults.checks.control import check_variables
from tests.faults.checks.delays import told_after
from tests.faults.checks.failover import moved_after, report, written_after
from tests.faults.checks.signal_starts import check_signal_starts
from tests.faults.checks.sound_record import (
    CALLS,
    EVENTS,
    EXECUTION,
    PROGRAM,
    REQUEST,
    ROW,
    SOUND,
    WORKFLOW,
    WRITES,
    at,
    call,
    event,
    message,
    stream,
)
from tests.faults.checks.spoilt_control import (
    assigned,
    edited,
    held,
    is_set,
    signalled,
    started,
    with_group,
    with_variable,
)
from tests.faults.checks.spoilt_records import SPOILT, with_cancel_of_a_live_owner, with_late_call
from tests.faults.checks.starts import check_cancelled, explained
from tests.faults.harness.records import (
    UNSET,
    Effect,
    Landing,
    Message,
    Pause,
    Record,
    Row,
    StepFacts,
)

SIGNS = [
    "Task was destroyed but it is pending!",
    "RuntimeWarning: coroutine 'run' was never awaited",
    '{"level": "critical", "event": "boom"}',
    '{"event": "call failed", "level": "error"}',
    '{"event": "task failed", "level": "error"}',
    '{"event": "loop failed, and begins again", "level": "error"}',
    '{"event": "the fate of a batch of 3 is unknown", "level": "error"}',
    '{"event": "ExecuteBatchError raised in core by servicer method [/v1/Watch]", "level": "error"}',
    '{"event": "execution cannot go on", "level": "error"}',
    "Traceback (most recent call last):",
]


def test_a_sound_history_passes() -> None:
    verdict = judge(SOUND)
    assert (verdict.result, verdict.violations) == (Result.PASS, [])


@pytest.mark.parametrize("name", SPOILT)
def test_a_wrong_history_is_seen(name: str) -> None:
    rule, record = SPOILT[name]
    verdict = judge(record)
    assert verdict.result is Result.FAIL
    assert rule in verdict.rules, verdict.violations


def test_every_check_was_red_once() -> None:
    red = {check for _, record in SPOILT.values() for check in CHECKS if list(check(record))}
    assert set(CHECKS) == red


@pytest.mark.parametrize("sign", SIGNS)
def test_a_bad_sign_in_a_log_is_seen(sign: str) -> None:
    assert judge(replace(SOUND, logs={"replica_0": f"fine\n{sign}\n"})).rules == {"I20": 1}


def test_what_the_version_before_did_wrong_is_past() -> None:
    log = '{"event": "boom", "level": "error", "exception": "File \\"/tmp/x/version_before/service/app.py\\""}'
    assert judge(replace(SOUND, logs={"replica_0": log})).result is Result.PASS
    log = log.replace("version_before", "other")
    assert judge(replace(SOUND, logs={"replica_0": log})).rules == {"I20": 1}


def test_a_run_that_shows_nothing_is_void() -> None:
    missed = Landing("kill", at(5), "replica_0", ())
    void = [
        replace(SOUND, landings=()),
        replace(SOUND, landings=(missed,)),
        replace(SOUND, traffic_share=0.4),
        replace(SOUND, void_reason="no compiler"),
    ]
    assert {judge(record).result for record in void} == {Result.VOID}
    assert all(judge(record).void_reason for record in void)


def test_a_void_run_with_a_violation_fails() -> None:
    assert judge(replace(SOUND, landings=(), leaks=("a lock is left",))).result is Result.FAIL


def test_a_pause_between_the_look_at_the_lease_and_the_call_explains_it() -> None:
    pause = Landing("stop", at(5.05), "replica_0", (EXECUTION,), until=at(6))
    record = replace(with_late_call(6.05), landings=(pause,))
    assert (judge(record).result, explained(record)) == (Result.PASS, 1)
    # Neither does one of another replica, nor what a blocked event loop did not block.
    assert judge(replace(record, landings=(replace(pause, victim="replica_1"),))).rules == {"ST10": 1, "ST11": 1}
    facts = {**SOUND.programs[ROW.workflow], "call": StepFacts("chaos_block", seconds=3)}
    blocked = replace(with_late_call(6.04), programs={ROW.workflow: facts})
    assert judge(blocked).rules == {"ST10": 1, "ST11": 1}
    started = (*WRITES[:2], replace(WRITES[2], time=at(3.01)), *WRITES[3:])
    assert judge(replace(blocked, writes=started)).result is Result.PASS


def test_what_arrived_while_the_harness_stood_still_may_have_come_before() -> None:
    record = replace(with_late_call(5.65), stalls=(Pause(at(5.55), at(5.64)),))
    assert judge(record).result is Result.PASS


def test_a_start_from_before_a_cancel_may_be_kept_after_it_but_not_be_called() -> None:
    record = with_cancel_of_a_live_owner()
    events = tuple(replace(each, time=at(4.4)) if each.seq == 7 else each for each in EVENTS)
    record = replace(record, rows={EXECUTION: replace(ROW, events=events)})
    assert not list(check_cancelled(record))
    called = replace(record, effects=(*record.effects, Effect("t3", EXECUTION, "rest", 1, at(7))))
    assert [violation.rule for violation in check_cancelled(called)] == ["CA3"]


def test_what_the_machine_takes_is_no_hang_and_no_deafness() -> None:
    hanging = SPOILT["a call hangs"][1]
    assert "HANG" in judge(replace(hanging, stalls=(Pause(at(10), at(10.5)),))).rules
    assert "HANG" not in judge(replace(hanging, stalls=(Pause(at(10), at(11.5)),))).rules
    deaf = with_cancel_of_a_live_owner()
    assert list(check_cancelled(replace(deaf, stalls=(Pause(at(5), at(5.5)),))))
    assert not list(check_cancelled(replace(deaf, stalls=(Pause(at(5), at(6.5)),))))


def test_timers_go_by_the_clock_of_postgres_or_by_the_right_one() -> None:
    wrong = Landing(CLOCK_OF_POSTGRES, at(7.2), "postgres", until=at(9))
    late = (*WRITES[:5], replace(WRITES[5], time=at(7.4 - 60)), replace(WRITES[6], time=at(8.6 - 60)))
    record = replace(SOUND, kind="K16", landings=(wrong,), writes=late)
    assert "I14" not in judge(record).rules
    assert "I14" in judge(replace(record, landings=(replace(wrong, until=at(8)),))).rules
    early = (*late[:6], replace(late[6], time=at(7.7 - 60)))
    assert "I14" in judge(replace(record, writes=early)).rules
    # By the clock of Postgres it was due as soon as that was put right.
    waking = replace(EVENTS[7], wake_time=at(8.5 - 60))
    row = replace(ROW, events=(*EVENTS[:7], waking, *EVENTS[8:]))
    righted = (*WRITES[:4], replace(WRITES[4], time=at(7.3 - 60)), late[5], replace(WRITES[6], time=at(7.6)))
    landings = (replace(wrong, until=at(7.5)),)
    assert "I14" not in judge(replace(record, landings=landings, rows={EXECUTION: row}, writes=righted)).rules


def test_a_wait_without_an_attempt_is_as_long_as_any_other() -> None:
    def judged(length: float, wake_time: float) -> Collection[str]:
        waiting = event(8, 8, "step_waiting", "rest", wake_time=at(wake_time))
        events = (*EVENTS[:6], event(7, 7, "variables_assigned", "once"), waiting, *EVENTS[8:])
        programs = {WORKFLOW: {**PROGRAM, "rest": StepFacts("wait", seconds=length)}}
        return judge(replace(SOUND, rows={EXECUTION: replace(ROW, events=events)}, programs=programs)).rules

    # That it waits is written at 8, and its end at 10.
    assert "I14" not in judged(1.9, wake_time=8.5 - 60)
    assert "I14" in judged(2.1, wake_time=8.5 - 60)
    # What begins to wait has its turn and its write later.
    assert "I14" not in judged(2.1, wake_time=9.9)
    assert "I14" in judged(2.1, wake_time=10.2)


@pytest.mark.parametrize(
    "record",
    [
        with_variable(started(UNSET), assigned(5), started(5, attempt=2)),
        with_variable(assigned(5), is_set(7), started(7), assigned(5)),
        with_variable(held(UNSET), is_set(7), held(7), started(7), is_set(8), started(7, attempt=2)),
        # What others assign while it is held does not change what it was shown with.
        with_variable(held(UNSET), assigned(5), started(UNSET)),
        with_variable(assigned(5), held(5), edited(9), is_set(7), started(9)),
        with_variable(is_set(7), started(5), inherited=True),
    ],
)
def test_what_a_step_is_called_with_is_what_the_variable_was(record: Record) -> None:
    assert not list(check_variables(record))


def test_signals_start_one_after_the_other_and_come_also_later() -> None:
    told = (signalled("s1", created=True), signalled("s1"), signalled("s1 later"), signalled("s2", "e2", created=True))
    record = with_group(*told)
    assert not list(check_signal_starts(record))
    # A cancel passes what has not come yet.
    row = record.rows[EXECUTION]
    cancelled = replace(row, events=(*row.events, event(4, 4, "finished", state="CANCELLED")))
    rows = {**record.rows, EXECUTION: cancelled}
    assert not list(check_signal_starts(replace(record, rows=rows, calls=(*told, signalled("s3")))))


def test_the_delay_of_watchers() -> None:
    told = stream([Message(1.5, message(EVENTS[0]).events), Message(3.25, message(*EVENTS[1:3]).events)], ended="LEFT")
    late = replace(told, opened=2.0)
    assert told_after(replace(SOUND, streams=(told,))) == "n=3 p50=0.25 s p99=0.50 s max=0.50 s"
    assert told_after(replace(SOUND, streams=(late,))) == "n=2 p50=0.25 s p99=0.25 s max=0.25 s"
    assert told_after(replace(SOUND, streams=(replace(told, closed=6.0),))) == "none"  # its replica was killed


def test_the_failover_clock() -> None:
    kill = SOUND.landings[0]
    assert moved_after(SOUND, kill) == [pytest.approx(0.4)]
    # What its own owner goes on with has not failed over.
    assert moved_after(SOUND, replace(kill, time=at(5.6))) == []
    crash = Landing("crash", at(5), "postgres", (EXECUTION,), at(6))
    assert written_after(SOUND, crash) == pytest.approx(1.0)
    assert written_after(SOUND, kill) is None
    assert report([replace(SOUND, landings=(kill, crash))]) == [
        "first write after Postgres was back (crash): n=1 p50=1.00 s p99=1.00 s max=1.00 s",
        "moved again after kill -9: n=1 p50=0.40 s p99=0.40 s max=0.40 s",
    ]


def test_rows_of_steps_that_never_started_are_not_asked_for() -> None:
    states = {"call": "CANCELLED", "once": "CANCELLED", "rest": "CANCELLED"}
    row = Row(
        EXECUTION,
        REQUEST,
        ROW.workflow,
        "CANCELLED",
        2,
        ROW.content,
        (event(1, 1, "created"), event(2, 2, "finished", state="CANCELLED")),
    )
    get = replace(CALLS[-1], state="CANCELLED", last_seq=2, step_states=states)
    record = Record("K1", 1, calls=(call("Execute", 1.0, created=True), get), rows={EXECUTION: row})
    assert not judge(record).violations
