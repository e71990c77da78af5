"""Whether what callers asked of executions happened, once: CA5, CA7, CA8, CA10, RE1, RE2, RE4, ST14."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from typing import Any

from google.protobuf.struct_pb2 import Struct

from flowkeep.payload import from_struct
from flowkeep.v1.event_pb2 import ExecutionEvent
from tests.faults.checks.violations import FINAL, Violation
from tests.faults.harness.records import UNSET, VARIABLE, Call, Event, Outcome, Record, Row, name_of, path_of

_BEGIN = frozenset({"started", "step_started", "step_skipped"})


def check_paused(record: Record) -> Iterator[Violation]:
    """CA5: what is paused begins nothing until it is resumed, and does not complete."""
    for row in record.rows.values():
        is_paused = False
        for event in row.events:
            is_paused = event.kind == "paused" or (is_paused and event.kind not in ("resumed", "cancelling"))
            if is_paused and (event.kind in _BEGIN or event.state == "COMPLETED"):
                yield Violation("CA5", row.execution_id, f"event {event.seq}, {event.kind}, comes while it is paused")
            is_paused = is_paused and event.kind != "finished"


def check_signals(record: Record) -> Iterator[Violation]:
    """ST14: a signal that was acknowledged came once, and each is taken by one step, which comes after it."""
    sent = answers(record, "SignalExecution", "SignalWithStart")
    for row in record.rows.values():
        came = Counter(event.detail for event in row.events if event.kind == "signal_received")
        taken = Counter(signal for event in row.events for signal in event.taken)
        lost = {call.detail for call in sent[row.execution_id]} - came.keys() if binds(row) else set()
        for signal in sorted(lost):
            yield Violation("ST14", row.execution_id, f"signal {signal} was acknowledged and never came")
        for signal, count in (came + taken).items():
            if came[signal] > 1 or taken[signal] > came[signal]:
                text = f"signal {signal} came {came[signal]} times and was taken {taken[signal]} times"
                yield Violation("ST14", row.execution_id, f"{text}, {count} in all")


def check_retries(record: Record) -> Iterator[Violation]:
    """RE1, RE2: each retry that was acknowledged opened its execution once; what is done never runs again."""
    asked = answers(record, "Retry")
    for row in record.rows.values():
        made = Counter(event.detail for event in row.events if event.kind == "reopened")
        for call in asked[row.execution_id]:
            if made[call.detail] != 1:
                text = f"a retry was acknowledged, and opened it {made[call.detail]} times"
                yield Violation("RE1", row.execution_id, text)
        done = {event.path for event in row.events if event.kind in ("step_completed", "step_skipped")}
        for event in row.events:
            iteration = int(event.path.partition("#")[2] or 1)
            before = {name_of(path_of(event.path), earlier) for earlier in range(1, iteration)}
            if event.kind == "step_started" and before & done:
                yield Violation("RE1", row.execution_id, f"step {event.path} begins, and was done before")


def check_forks(record: Record) -> Iterator[Violation]:
    """RE4: what is inherited is never called, nor begins once more."""
    called: dict[str, set[str]] = defaultdict(set)
    for effect in record.effects:
        called[effect.execution_id].add(path_of(effect.step))
    for row in record.rows.values():
        inherited = {event.path for event in row.events if event.inherited and event.kind != "step_started"} - {""}
        begun = {event.path for event in row.events if event.kind == "step_started" and not event.inherited}
        for path in sorted(inherited & (called[row.execution_id] | begun)):
            yield Violation("RE4", row.execution_id, f"step {path} is inherited, and was called")


def check_edits(record: Record) -> Iterator[Violation]:
    """CA7: an edit that was acknowledged is kept, and each attempt of its step is called with it."""
    asked = answers(record, "EditStepInput")
    for row in record.rows.values():
        edited = dict[str, Struct]()
        for event in row.events:
            if event.kind == "step_edited":
                edited[event.path] = ExecutionEvent.FromString(event.body).step_edited.input
            given = edited.get(event.path) if event.kind == "step_started" else None
            if given is not None and ExecutionEvent.FromString(event.body).step_started.input != given:
                text = f"attempt {event.attempt} of step {event.path} is not called with what was edited"
                yield Violation("CA7", row.execution_id, text)
        if binds(row):
            for call in asked[row.execution_id]:
                if call.detail not in {path_of(name) for name in edited}:
                    text = f"an edit of step {call.detail} was acknowledged, and is not kept"
                    yield Violation("CA7", row.execution_id, text)


def check_variables(record: Record) -> Iterator[Violation]:
    """CA10: an edit of variables that was acknowledged is kept once, and what is called after it is called with it."""
    asked = answers(record, "EditVariables")
    for row in record.rows.values():
        edits = [event for event in row.events if event.kind == "variables_assigned" and not event.path]
        kept = Counter(str(_assigned(event, UNSET)) for event in edits if _body(event).edited_by)
        for call in asked[row.execution_id]:
            if kept[call.detail] > 1 or (binds(row) and not kept[call.detail]):
                text = f"that the variable is {call.detail} was acknowledged, and kept {kept[call.detail]} times"
                yield Violation("CA10", row.execution_id, text)
        programs = record.programs.get(row.workflow, {})
        if readers := {path for path, facts in programs.items() if facts.reads}:
            yield from _misread(row, readers)


def _misread(row: Row, readers: Collection[str]) -> Iterator[Violation]:
    """Give what is called with another value than the variable has, by the events.

    What a breakpoint holds is called with what it is shown with then, or with what the variable is set to meanwhile.
    """
    value, by_hand, held = UNSET, set[str](), set[str]()
    fixed: dict[str, object] = {}
    for event in row.events:
        is_reader = path_of(event.path) in readers and event.path not in by_hand and not event.inherited
        if event.kind == "variables_assigned":
            value = _assigned(event, value)
            if _body(event).edited_by:
                fixed |= dict.fromkeys(held, value)
        elif event.kind == "step_edited":
            by_hand.add(event.path)
        elif event.kind == "step_waiting" and is_reader and _body(event).wait.HasField("breakpoint"):
            held.add(event.path)
            fixed.pop(event.path, None)
            if _body(event).HasField("input"):
                fixed[event.path] = value
                yield from _called(row, event, value)
        elif event.kind == "step_started" and is_reader:
            held.discard(event.path)
            yield from _called(row, event, fixed.get(event.path, value))


def _called(row: Row, event: Event, value: object) -> Iterator[Violation]:
    given = from_struct(_body(event).input)
    number = given.get("json", given).get("number")
    if number != value:
        text = f"event {event.seq}, {event.kind} of {event.path}: it is called with {number}, the variable is {value}"
        yield Violation("CA10", row.execution_id, text)


def _body(event: Event) -> Any:
    return getattr(ExecutionEvent.FromString(event.body), event.kind)


def _assigned(event: Event, otherwise: object) -> Any:
    """Return what an event says that the variable is."""
    return from_struct(_body(event).vars).get(VARIABLE, otherwise)


def check_operations(record: Record) -> Iterator[Violation]:
    """CA8: an operation that was acknowledged ends, and comes to each execution once."""
    kept = {operation.bulk_id for operation in record.operations}
    for call in record.calls:
        if call.method == "StartBulk" and call.outcome is Outcome.OK and call.detail not in kept:
            yield Violation("CA8", call.detail, "was acknowledged and is not kept")
    for operation in record.operations:
        if operation.state == "RUNNING":
            yield Violation("CA8", operation.bulk_id, "has not ended")
        for execution_id, count in Counter(execution_id for execution_id, _ in operation.results).items():
            if count > 1:
                yield Violation("CA8", operation.bulk_id, f"came {count} times to {execution_id}")
    for row in record.rows.values():
        yield from _acted(record, row)


def _acted(record: Record, row: Row) -> Iterator[Violation]:
    done = {
        operation.bulk_id
        for operation in record.operations
        if any(result == (row.execution_id, "DONE") for result in operation.results)
    }
    for bulk_id, count in Counter(event.bulk_id for event in row.events if event.bulk_id).items():
        if count > 1:
            yield Violation("CA8", row.execution_id, f"was acted on {count} times by operation {bulk_id}")
        if bulk_id not in done:
            yield Violation("CA8", row.execution_id, f"was acted on by operation {bulk_id}, which does not say so")


def answers(record: Record, *methods: str) -> dict[str, list[Call]]:
    """Return the calls of some methods that were answered with OK, by execution."""
    found: dict[str, list[Call]] = defaultdict(list)
    for call in record.calls:
        if call.method in methods and call.outcome is Outcome.OK:
            found[call.execution_id].append(call)
    return found


def binds(row: Row) -> bool:
    """Whether all that was asked of an execution has had to come: it has ended, and was never cancelled."""
    return row.state in FINAL and "CANCELLED" not in {event.state for event in row.events}
