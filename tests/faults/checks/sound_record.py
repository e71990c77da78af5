"""The record of a small run in which everything was right, for tests that spoil one thing of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from tests.faults.harness.records import (
    Call,
    Effect,
    Event,
    Landing,
    Lease,
    Message,
    Outcome,
    Record,
    Row,
    Step,
    StepFacts,
    Stream,
    Usage,
    Write,
)

EXECUTION = "e1"
REQUEST = "r1"
WORKFLOW = "chaos_0"
BEGIN = datetime(2030, 1, 1, tzinfo=UTC)

PROGRAM = {
    "call": StepFacts("call_api"),
    "once": StepFacts("call_api", "AT_MOST_ONCE"),
    "rest": StepFacts("wait", seconds=1.0),
}


def at(seconds: float) -> datetime:
    """Return a moment of the run."""
    return BEGIN + timedelta(seconds=seconds)


def event(
    seq: int,
    transition_seq: int,
    kind: str,
    path: str = "",
    *,
    attempt: int = 0,
    state: str = "",
    wake_time: datetime | None = None,
) -> Event:
    """Return an event whose bytes tell it from every other one."""
    return Event(seq, transition_seq, kind, at(seq), f"{seq} {kind} {path}".encode(), path, attempt, state, wake_time)


EVENTS = (
    event(1, 1, "created"),
    event(2, 3, "started"),
    event(3, 3, "step_started", "call", attempt=1),
    event(4, 5, "step_completed", "call", attempt=1),
    event(5, 5, "step_started", "once", attempt=1),
    event(6, 7, "step_completed", "once", attempt=1),
    event(7, 7, "step_started", "rest", attempt=1),
    event(8, 8, "step_waiting", "rest", wake_time=at(8.5)),
    event(9, 10, "step_completed", "rest", attempt=1),
    event(10, 10, "finished", state="COMPLETED"),
)
STEPS = (Step("call", "COMPLETED", 1, 4), Step("once", "COMPLETED", 1, 6), Step("rest", "COMPLETED", 1, 9))
ROW = Row(EXECUTION, REQUEST, WORKFLOW, "COMPLETED", 10, f"{WORKFLOW} 7", EVENTS, STEPS)


def write(
    number: int,
    last_seq: int,
    *,
    old_seq: int | None,
    epoch: int = 1,
    old_epoch: int | None = 1,
    replica: str = "replica_0",
    old: str | None = "i0",
    new: str | None = "i0",
    state: str = "RUNNING",
    time: float | None = None,
) -> Write:
    """Return a write of the row."""
    moment = at(last_seq if time is None else time)
    return Write(number, moment, replica, EXECUTION, old_epoch, epoch, old, new, old_seq, last_seq, state)


WRITES = (
    write(1, 1, old_seq=None, old_epoch=None, old=None, state="PENDING"),
    write(2, 3, old_seq=1),
    write(3, 5, old_seq=3),
    # Another replica takes it over.
    write(4, 5, old_seq=5, epoch=2, replica="replica_1", new="i1", time=5.5),
    write(5, 7, old_seq=5, epoch=2, old_epoch=2, replica="replica_1", old="i1", new="i1"),
    write(6, 8, old_seq=7, epoch=2, old_epoch=2, replica="replica_1", old="i1", new="i1"),
    write(7, 10, old_seq=8, epoch=2, old_epoch=2, replica="replica_1", old="i1", new=None, state="COMPLETED"),
)


def call(method: str, invoked: float, outcome: Outcome = Outcome.OK, **facts: object) -> Call:
    """Return a call of the execution."""
    defaults: dict[str, object] = {"execution_id": EXECUTION, "state": "RUNNING", "last_seq": 1}
    if method == "Execute":
        defaults |= {"request_id": REQUEST, "content": ROW.content}
    if outcome is not Outcome.OK:
        defaults |= {"execution_id": "", "state": "", "last_seq": 0}
    return Call("client", method, "replica_0", invoked, invoked + 0.1, outcome, **{**defaults, **facts})  # type: ignore[arg-type]


CALLS = (
    call("Execute", 1.0, Outcome.UNKNOWN, code="UNAVAILABLE"),
    call("Execute", 1.5, created=True),
    call("Execute", 1.8),
    call("GetExecution", 2.0, last_seq=3),
    call("GetExecution", 2.5, last_seq=5),
    call(
        "GetExecution",
        20.0,
        state="COMPLETED",
        last_seq=10,
        step_states={step.path: step.state for step in STEPS},
        is_final=True,
    ),
)


def message(*events: Event) -> Message:
    """Return a message with these events."""
    return Message(0.0, tuple((each.seq, each.transition_seq, each.body) for each in events))


def stream(
    messages: Sequence[Message],
    *,
    after_seq: int = 0,
    ended: str = "OK",
    reason: str = "",
    known: int = 0,
    closed: float = 0.0,
    is_final: bool = False,
) -> Stream:
    """Return a stream of the execution."""
    return Stream(
        "watcher", "replica_0", EXECUTION, after_seq, known, 0.0, tuple(messages), ended, reason, closed, is_final
    )


STREAMS = (
    stream([message(EVENTS[0]), message(*EVENTS[1:5]), Message(0.0, bookmark=5), message(*EVENTS[5:])]),
    stream([message(*EVENTS[5:])], after_seq=5),
    stream([message(*EVENTS[1:3])], after_seq=1, ended="UNAVAILABLE"),
    stream([], after_seq=12, ended="OUT_OF_RANGE", reason="CURSOR_AHEAD", known=10),
)

EFFECTS = (
    Effect("t1", EXECUTION, "call", 1, at(3.5), at(3.8)),
    Effect("t2", EXECUTION, "once", 1, at(5.2), at(5.3)),
)
LEASES = (Lease(at(0), "i0", at(8)), Lease(at(5), "i1", at(13)))

SOUND = Record(
    "K1",
    1,
    calls=CALLS,
    streams=STREAMS,
    effects=EFFECTS,
    rows={EXECUTION: ROW},
    requests=((REQUEST, EXECUTION),),
    writes=WRITES,
    incarnations={"i0": "replica_0", "i1": "replica_1"},
    leases=LEASES,
    programs={WORKFLOW: PROGRAM},
    caps={WORKFLOW: 1},
    clock=BEGIN,
    landings=(Landing("kill", at(5.1), "replica_0", (EXECUTION,)),),
    logs={"replica_0": '{"level": "info", "event": "serving"}\n'},
    exit_codes={"replica_0": 0},
    fresh={"replica_0": Usage(100 << 20, 30, 10, {"serve": 20})},
    idle={"replica_0": Usage(150 << 20, 40, 12, {"serve": 22})},
)
