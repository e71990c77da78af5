"""The sound record with one thing of it spoilt, under the promise that is broken then."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from flowkeep.payload import to_value
from flowkeep.v1.event_pb2 import ExecutionEvent, StepCompleted, StepFailed
from flowkeep.v1.execution_pb2 import Failure
from tests.faults.checks.sound_record import (
    CALLS,
    EFFECTS,
    EVENTS,
    EXECUTION,
    LEASES,
    PROGRAM,
    REQUEST,
    ROW,
    SOUND,
    STEPS,
    WORKFLOW,
    WRITES,
    at,
    call,
    event,
    message,
    write,
)
from tests.faults.checks.spoiling import with_calls, with_events, with_row, with_stream, with_writes
from tests.faults.checks.spoilt_control import SPOILT_CONTROL
from tests.faults.harness.records import (
    REMOTE,
    Effect,
    Event,
    Landing,
    Lease,
    Message,
    Outcome,
    Record,
    Replay,
    Step,
    StepFacts,
    Usage,
)


def with_late_call(time: float) -> Record:
    """The sound record, in which the last call before the execution was taken over came later."""
    return replace(SOUND, effects=(EFFECTS[0], replace(EFFECTS[1], time=at(time), ended=at(time))))


def with_cancel_of_a_live_owner() -> Record:
    """The sound record with a cancel well before its last start, and nobody else who took it over."""
    writes = [replace(each, epoch=1, old_epoch=1, replica="replica_0") for each in (*WRITES[:3], *WRITES[4:])]
    return replace(with_calls(call("Cancel", 4.4, last_seq=5)), writes=tuple(writes), landings=())


def with_result(attempt: int) -> Record:
    """The sound record, in which a worker ran the first attempt of a step and gave the result of this one."""
    completed = StepCompleted(path="call", output=to_value({"attempt": attempt}))
    body = ExecutionEvent(step_completed=completed).SerializeToString()
    record = with_events(*EVENTS[:3], replace(EVENTS[3], body=body), *EVENTS[4:])
    return replace(record, programs={WORKFLOW: {**PROGRAM, "call": StepFacts(REMOTE)}})


def with_failure(code: str) -> Record:
    """The sound record, in which the step that may run once lost its worker and ended with this failure."""
    failed = StepFailed(path="once", failure=Failure(code=code))
    lost = Event(6, 7, "step_failed", at(6), ExecutionEvent(step_failed=failed).SerializeToString(), "once", 1)
    replay = Replay(EXECUTION, "once", 1, is_recorded=False)
    return replace(with_events(*EVENTS[:5], lost, *EVENTS[6:]), replays=(replay,))


REFUSAL = json.dumps(
    {
        "event": "transition not committed",
        "result": "FENCED",
        "execution_id": EXECUTION,
        "timestamp": at(5.05).isoformat(),
    }
)
OTHER = replace(ROW, execution_id="e2", content=ROW.content)
SPOILT: Mapping[str, tuple[str, Record]] = {
    "an acknowledged execution is gone": ("I1", replace(SOUND, rows={}, streams=(), effects=())),
    "an execution that called out is gone": (
        "I1",
        replace(SOUND, effects=(*EFFECTS, Effect("t9", "e9", "call", 1, at(1)))),
    ),
    "a request id has two rows": ("I2", replace(SOUND, rows={EXECUTION: ROW, "e2": OTHER})),
    "a request id has a row and another tombstone": ("I2", replace(SOUND, requests=((REQUEST, "e2"),))),
    "a request id was answered with two executions": (
        "I2",
        replace(
            with_calls(call("Execute", 3.0, execution_id="e2")),
            rows={EXECUTION: ROW, "e2": replace(OTHER, request_id="r2")},
        ),
    ),
    "two answers say that they made it": ("I2", with_calls(call("Execute", 3.0, created=True))),
    "nobody made it": ("I2", replace(SOUND, calls=(call("Execute", 1.5), *CALLS[2:]))),
    "an event is missing": ("I3", with_events(*EVENTS[:4], *EVENTS[5:])),
    "an event is there twice": ("I3", with_events(*EVENTS[:4], *EVENTS[3:])),
    "the row counts otherwise": ("I3", with_row(last_seq=9)),
    "a transition is torn": ("I3", with_events(EVENTS[0], event(2, 4, "started"), *EVENTS[2:])),
    "the last transition is torn": ("I3", with_events(*EVENTS[:9], event(10, 11, "finished", state="COMPLETED"))),
    "there are two terminal events": ("I4", with_events(*EVENTS, event(11, 11, "finished", state="COMPLETED"))),
    "the terminal event is not the last": (
        "I4",
        with_events(*EVENTS[:8], event(9, 9, "finished", state="COMPLETED"), event(10, 10, "step_completed", "rest")),
    ),
    "it ended without a terminal event": ("I4", with_events(*EVENTS[:8], event(9, 9, "step_completed", "rest"))),
    "a terminal event of one that goes on": ("I4", with_row(state="RUNNING")),
    "the row has another state": ("I5", with_row(state="FAILED")),
    "a step has another state": ("I5", with_row(steps=(Step("call", "FAILED", 1, 4), *STEPS[1:]))),
    "a step has no row": ("I5", with_row(steps=STEPS[1:])),
    "a step has no event": ("I5", with_row(steps=(*STEPS, Step("ghost", "RUNNING", 1, None)))),
    "Get shows another state": ("I5", with_calls(replace(CALLS[-1], state="RUNNING"))),
    "Get shows another step": (
        "I5",
        with_calls(replace(CALLS[-1], step_states={"call": "FAILED", "once": "COMPLETED", "rest": "COMPLETED"})),
    ),
    "a step ended twice": ("I6", with_events(*EVENTS[:4], event(5, 5, "step_failed", "call"), *EVENTS[5:])),
    "the row points at another end": ("I6", with_row(steps=(Step("call", "COMPLETED", 1, 3), *STEPS[1:]))),
    "a completed step started again": (
        "I7",
        with_events(*EVENTS[:4], event(5, 5, "step_started", "call", attempt=2), *EVENTS[5:]),
    ),
    "a step that must not be repeated was": (
        "I8",
        replace(SOUND, effects=(*EFFECTS, Effect("t2", EXECUTION, "once", 1, at(5.4)))),
    ),
    "an epoch fell": (
        "I9",
        with_writes(write(8, 10, old_seq=10, epoch=1, old_epoch=2, replica="replica_0", old=None, new="i0")),
    ),
    "an epoch has two incarnations": (
        "I9",
        with_writes(write(8, 10, old_seq=10, epoch=2, old_epoch=2, replica="replica_0", old="i1", new="i0")),
    ),
    "an epoch was skipped": ("I9", with_writes(write(8, 10, old_seq=10, epoch=4, old_epoch=2, new="i2"))),
    "a zombie added events": (
        "I10",
        replace(SOUND, writes=(*WRITES[:4], replace(WRITES[4], replica="replica_0"), *WRITES[5:])),
    ),
    "events were added together with a claim": (
        "I10",
        replace(SOUND, writes=(*WRITES[:3], replace(WRITES[3], last_seq=7), *WRITES[5:])),
    ),
    "events were taken back": ("I10", with_writes(write(8, 9, old_seq=10, epoch=2, old_epoch=2, replica="replica_1"))),
    "a refused request is kept": (
        "I12",
        replace(SOUND, calls=(*(replace(each, outcome=Outcome.DEFINITE, code="NOT_FOUND") for each in CALLS[:3]),)),
    ),
    "a refused request left its id": (
        "I12",
        replace(
            with_calls(call("Execute", 4.0, Outcome.DEFINITE, code="INVALID_ARGUMENT", request_id="r5")),
            requests=((REQUEST, EXECUTION), ("r5", "e5")),
        ),
    ),
    "other content was kept": ("EX3", with_row(content="chaos_0 8")),
    "other content was accepted": ("EX3", with_calls(call("Execute", 3.0, content="chaos_0 8"))),
    "a read after the ack found nothing": (
        "EX6",
        with_calls(call("GetExecution", 3.0, Outcome.DEFINITE, code="NOT_FOUND", execution_id=EXECUTION)),
    ),
    "a read went back in time": ("EX6", with_calls(call("GetExecution", 3.0, last_seq=4))),
    "an acknowledged cancel had no effect": ("CA1", with_calls(call("Cancel", 3.0, last_seq=5))),
    "a cancel that came too late won": (
        "CA2",
        replace(
            with_calls(call("Cancel", 3.0, Outcome.DEFINITE, reason="EXECUTION_FINISHED", execution_id=EXECUTION)),
            rows={EXECUTION: replace(ROW, state="CANCELLED")},
        ),
    ),
    "a wait ended before its wake time": (
        "I14",
        replace(SOUND, writes=(*WRITES[:6], replace(WRITES[6], time=at(8.4)))),
    ),
    "a wait was shorter than it says": (
        "I14",
        replace(
            with_events(*EVENTS[:7], event(8, 8, "step_waiting", "rest", wake_time=at(-60)), *EVENTS[8:]),
            writes=(*WRITES[:6], replace(WRITES[6], time=at(7.9))),
        ),
    ),
    "a wait without an attempt was shorter than it says": (
        "I14",
        replace(
            with_events(
                *EVENTS[:6],
                event(7, 7, "variables_assigned", "once"),
                event(8, 8, "step_waiting", "rest", wake_time=at(8.9 - 60)),
                *EVENTS[8:],
            ),
            writes=(*WRITES[:6], replace(WRITES[6], time=at(8.9))),
        ),
    ),
    "a retry came before its time": (
        "I14",
        with_events(
            *EVENTS[:3],
            event(4, 4, "step_retrying", "call", attempt=1, wake_time=at(9)),
            event(5, 5, "step_started", "call", attempt=2),
            *EVENTS[5:],
        ),
    ),
    "a call was never kept": ("ST6", replace(SOUND, effects=(*EFFECTS, Effect("t1", EXECUTION, "call", 2, at(3))))),
    "an attempt began after the end of its step": (
        "ST3",
        with_events(
            *EVENTS[:2],
            event(3, 3, "step_completed", "call", attempt=1),
            event(4, 5, "step_started", "call", attempt=1),
            *EVENTS[4:],
        ),
    ),
    "a step completed without its call": ("ST1", replace(SOUND, effects=EFFECTS[1:])),
    "a step used two tokens": ("ST5", replace(SOUND, effects=(*EFFECTS, Effect("t3", EXECUTION, "call", 1, at(3))))),
    "two steps share a token": (
        "ST5",
        replace(SOUND, effects=(EFFECTS[0], replace(EFFECTS[1], token="t1"))),
    ),
    "an old result was recorded": (
        "ST4",
        replace(SOUND, replays=(Replay(EXECUTION, "call", 1, is_recorded=True),)),
    ),
    "a lost worker's step that may run once ended with a known failure": ("ST6", with_failure("WORKER_LOST")),
    "a worker's result is that of another attempt": ("ST4", with_result(2)),
    "a worker's result was never called for": ("ST4", replace(with_result(1), effects=EFFECTS[1:])),
    "a pause cost an execution": ("KEEP", replace(SOUND, keeps_ownership=True)),
    "a full pool cost an execution": (
        "KEEP",
        replace(SOUND, landings=(Landing("pool exhausted", at(5), "replica_0", (EXECUTION,), until=at(6)),)),
    ),
    "a call was made by who had lost the execution": ("ST10", with_late_call(5.65)),
    "a call was made after a write was refused": ("ST10", replace(SOUND, logs={"replica_0": REFUSAL})),
    "a call was made by who had lost it before the pause": (
        "ST10",
        replace(with_late_call(6.05), landings=(Landing("stop", at(4.9), "replica_0", until=at(6)),)),
    ),
    "a call was made long after the pause": (
        "ST10",
        replace(with_late_call(6.2), landings=(Landing("stop", at(5.05), "replica_0", until=at(6)),)),
    ),
    "a call was made after the fence": ("ST11", replace(SOUND, leases=(Lease(at(0), "i0", at(7)),))),
    "a call was made after the lease was given back": (
        "ST11",
        replace(SOUND, leases=(*LEASES, Lease(at(5.05), "i0", at(5.05)))),
    ),
    "a new owner started what was cancelled": ("CA3", with_calls(call("Cancel", 5.2, last_seq=5))),
    "an owner did not hear of a cancel": ("CA3", with_cancel_of_a_live_owner()),
    "two calls at a time": ("I13", replace(SOUND, effects=(replace(EFFECTS[0], ended=at(5.4)), EFFECTS[1]))),
    "a call went on after its owner had lost it": (
        "I13",
        replace(SOUND, effects=(EFFECTS[0], replace(EFFECTS[1], ended=at(14)))),
    ),
    "two steps at a time": (
        "I13",
        with_events(
            *EVENTS[:3],
            event(4, 5, "step_started", "once", attempt=1),
            event(5, 5, "step_completed", "call", attempt=1),
            *EVENTS[5:],
        ),
    ),
    "an event came too late": (
        "W11",
        replace(with_stream(Message(6.5, message(EVENTS[0]).events), ended="LEFT"), kind="K8", landings=()),
    ),
    "an event did not come": (
        "W11",
        replace(with_stream(ended="LEFT", closed=8.0), kind="K8", landings=()),
    ),
    "a stream went back": ("W1", with_stream(message(*EVENTS[1:3]), message(EVENTS[0]), after_seq=1, ended="LEFT")),
    "a stream repeated an event": ("W2", with_stream(message(EVENTS[0]), message(EVENTS[0]), ended="LEFT")),
    "a stream left out an event": ("W3", with_stream(message(EVENTS[0]), message(*EVENTS[3:5]), ended="LEFT")),
    "a message tears a transition": ("W4", with_stream(message(*EVENTS[:2]), ended="LEFT")),
    "a stream resumed too far": ("W5", with_stream(message(*EVENTS[3:5]), after_seq=1, ended="LEFT")),
    "a bookmark came too early": ("W6", with_stream(message(EVENTS[0]), Message(0.0, bookmark=3), ended="LEFT")),
    "a bookmark was not kept": (
        "W6",
        with_stream(message(EVENTS[0]), Message(0.0, bookmark=3), message(*EVENTS[1:3]), ended="LEFT"),
    ),
    "a known position was called ahead": (
        "W7",
        with_stream(after_seq=5, known=5, ended="OUT_OF_RANGE", reason="CURSOR_AHEAD"),
    ),
    "a position beyond the end was served": (
        "W7",
        with_stream(Message(0.0, bookmark=12), after_seq=12, ended="LEFT"),
    ),
    "a stream ended well before the end": ("W9", with_stream(message(EVENTS[0]))),
    "a stream was told nothing when all was over": ("W9", with_stream(ended="LEFT", is_final=True)),
    "a stream ended so that it cannot resume": ("W9", with_stream(ended="NOT_FOUND")),
    "an event was sent that is not kept": (
        "W10",
        with_stream(message(*EVENTS), message(event(11, 11, "cancelling")), ended="LEFT"),
    ),
    "an event was sent with other bytes": (
        "W10",
        with_stream(message(replace(EVENTS[0], body=b"other")), ended="LEFT"),
    ),
    "an execution does not end": ("I19", with_row(state="RUNNING")),
    "everything ended too late": ("I19", replace(SOUND, all_ended=False)),
    "a replica does not answer": (
        "I19",
        with_calls(call("GetExecution", 21.0, Outcome.UNKNOWN, code="UNAVAILABLE", is_final=True)),
    ),
    "a call hangs": ("HANG", with_calls(replace(CALLS[3], returned=12.0, deadline=8.0))),
    "a session is left": ("I20", replace(SOUND, leaks=("a session is left",))),
    "a replica keeps tasks": ("I20", replace(SOUND, idle={"replica_0": Usage(0, 30, 10, {"serve": 20, "run": 30})})),
    "a replica keeps descriptors": ("I20", replace(SOUND, idle={"replica_0": Usage(0, 90, 10, {"serve": 20})})),
    "a replica has gone in silence": ("I20", replace(SOUND, idle={})),
    **SPOILT_CONTROL,
    "a replica ended badly": ("I20", replace(SOUND, exit_codes={"replica_0": 1})),
    "the run broke down": ("RUN", replace(SOUND, crash="a replica did not start")),
}
