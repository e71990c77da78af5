"""The sound record with one thing spoilt of what callers asked of executions, under the promise that is broken then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flowkeep.payload import to_struct
from flowkeep.v1.event_pb2 import ExecutionEvent, StepEdited, StepStarted, StepWaiting, VariablesAssigned
from flowkeep.v1.execution_pb2 import BreakpointWait, Wait
from tests.faults.checks.sound_record import EVENTS, EXECUTION, PROGRAM, ROW, SOUND, WORKFLOW, WRITES, at, call, event
from tests.faults.checks.spoiling import with_calls, with_events
from tests.faults.harness.records import VARIABLE, Call, Event, Operation, Outcome, Record, Write


def with_edit(number: int) -> Record:
    """The sound record, in which a step was edited and is called with another number."""
    edited = StepEdited(path="once", input=to_struct({"number": number + 1}))
    started = StepStarted(path="once", attempt=1, input=to_struct({"number": number}))
    bodies = [ExecutionEvent(step_edited=edited), ExecutionEvent(step_started=started)]
    edit, begin = (body.SerializeToString() for body in bodies)
    told = replace(EVENTS[3], kind="step_edited", path="once", body=edit)
    return with_events(*EVENTS[:3], told, replace(EVENTS[4], body=begin), *EVENTS[5:])


def assigned(value: int) -> Mapping[str, Any]:
    """A step gives the variable a value."""
    return {"variables_assigned": VariablesAssigned(path="call", vars=to_struct({VARIABLE: value}))}


def is_set(value: int) -> Mapping[str, Any]:
    """Somebody sets it."""
    return {"variables_assigned": VariablesAssigned(vars=to_struct({VARIABLE: value}), edited_by="alice")}


def held(number: int) -> Mapping[str, Any]:
    """A step is held, and shown with this."""
    wait = Wait(breakpoint=BreakpointWait())
    return {"step_waiting": StepWaiting(path="once", wait=wait, input=to_struct({"number": number}))}


def edited(number: int) -> Mapping[str, Any]:
    """Somebody puts this in the place of what it is called with."""
    return {"step_edited": StepEdited(path="once", input=to_struct({"number": number}))}


def started(number: int, attempt: int = 1) -> Mapping[str, Any]:
    """It is called with this."""
    return {"step_started": StepStarted(path="once", attempt=attempt, input=to_struct({"number": number}))}


def with_variable(*told: Mapping[str, Any], inherited: bool = False) -> Record:
    """The sound record with a history of a variable, and of a step that is called with it."""
    messages = [ExecutionEvent(**content) for content in told]
    events = [_event(seq, message) for seq, message in enumerate(messages, 1)]
    record = with_events(*(replace(each, inherited=inherited) for each in events))
    return replace(record, programs={WORKFLOW: {**PROGRAM, "once": replace(PROGRAM["once"], reads=True)}})


def _event(seq: int, message: ExecutionEvent) -> Event:
    kind = message.WhichOneof("kind") or ""
    content = getattr(message, kind)
    attempt = getattr(content, "attempt", 0)
    return Event(seq, seq, kind, at(seq), message.SerializeToString(), content.path, attempt)


GROUP = "g"
"""What the executions belong to that signals start."""


def with_group(*calls: Call, first: int = 2, ended: int = 2, begun: int = 3) -> Record:
    """Two executions that signals started, "e1" with s1 and "e2" with s2: of the sound record, with these calls.

    In the order of writes the one ended when the other had begun, and with it the first so many events were kept.
    """
    rows, writes = {}, list[Write]()
    for number, execution_id in ((1, EXECUTION), (2, "e2")):
        signals = [replace(event(seq, seq, "signal_received"), detail=f"s{number}{more}") for seq, more in _SIGNALS]
        events = (EVENTS[0], *signals)
        rows[execution_id] = replace(
            ROW, execution_id=execution_id, correlation_id=GROUP, events=events, last_seq=len(events)
        )
        turns = ((1, first), (ended, 3)) if number == 1 else ((begun, 2), (9, 3))
        for turn, last_seq in turns:
            state = "COMPLETED" if last_seq == len(events) else "RUNNING"
            write = replace(WRITES[0], id=turn, execution_id=execution_id, last_seq=last_seq, state=state)
            writes.append(write)
    return replace(SOUND, rows=rows, writes=tuple(writes), calls=calls)


_SIGNALS = ((2, ""), (3, " later"))


def signalled(signal: str, execution_id: str = EXECUTION, **facts: object) -> Call:
    """Somebody was told that a signal is kept, for an execution that it started or that went on."""
    told = call("SignalWithStart", 3.0, execution_id=execution_id, detail=signal, content=f"{WORKFLOW} {GROUP}")
    return replace(told, **facts)  # type: ignore[arg-type]


SPOILT_CONTROL: Mapping[str, tuple[str, Record]] = {
    "a step began while its execution was paused": (
        "CA5",
        with_events(*EVENTS[:3], replace(EVENTS[3], kind="paused", path=""), *EVENTS[4:]),
    ),
    "a signal never came": ("ST14", with_calls(call("SignalExecution", 3.0, detail="s1"))),
    "a signal was taken and never came": (
        "ST14",
        with_events(*EVENTS[:3], replace(EVENTS[3], taken=("s1",)), *EVENTS[4:]),
    ),
    "a retry changed nothing": ("RE1", with_calls(call("Retry", 3.0, detail="it is mended"))),
    "a step that was done ran again": (
        "RE1",
        with_events(*EVENTS[:6], replace(EVENTS[6], path="call#2"), *EVENTS[7:]),
    ),
    "a step that was inherited was called": (
        "RE4",
        with_events(*EVENTS[:3], replace(EVENTS[3], inherited=True), *EVENTS[4:]),
    ),
    "an edit was forgotten": ("CA7", with_calls(call("EditStepInput", 3.0, detail="once"))),
    "an edit was lost": ("CA7", with_edit(7)),
    "an operation came twice to an execution": (
        "CA8",
        replace(SOUND, operations=(Operation("b1", "COMPLETED", ((EXECUTION, "DONE"),) * 2),)),
    ),
    "an operation was forgotten": ("CA8", with_calls(call("StartBulk", 3.0, detail="b1"))),
    "an operation asked something and does not say so": (
        "CA8",
        with_events(*EVENTS[:3], replace(EVENTS[3], bulk_id="b1"), *EVENTS[4:]),
    ),
    "an operation never ended": ("CA8", replace(SOUND, operations=(Operation("b1", "RUNNING"),))),
    "a variable that was set is forgotten": ("CA10", with_calls(call("EditVariables", 3.0, detail="7"))),
    "a variable was set twice": (
        "CA10",
        replace(with_variable(is_set(7), is_set(7)), calls=(call("EditVariables", 3.0, detail="7"),)),
    ),
    "a step does not see what was set": ("CA10", with_variable(assigned(5), is_set(7), started(5))),
    "a step that begins again does not see what was set": (
        "CA10",
        with_variable(assigned(5), started(5), is_set(7), started(5, attempt=2)),
    ),
    "a step does not see what was assigned since": ("CA10", with_variable(is_set(7), assigned(5), started(7))),
    "a step that is held is shown with something else": ("CA10", with_variable(assigned(5), held(4))),
    "a step that is held does not see what was set": (
        "CA10",
        with_variable(assigned(5), held(5), is_set(7), started(5)),
    ),
    "two that signals started went on at once": ("ST15", with_group(ended=4)),
    "one that a signal started never had it": ("ST15", with_group(first=1)),
    "a signal for one that goes on came to another": ("ST15", with_group(signalled("s1 later", "e2"))),
    "a signal that starts one when none goes on never came": ("ST15", with_group(signalled("s3"))),
    "one was started by another signal than was told": ("ST15", with_group(signalled("s1 later", created=True))),
    "a signal came to what belongs to something else": ("ST15", with_group(signalled("s1", content="chaos_0 h"))),
    "several are told to go on": (
        "ST15",
        with_group(signalled("", "", outcome=Outcome.DEFINITE, reason="CORRELATION_AMBIGUOUS")),
    ),
}
