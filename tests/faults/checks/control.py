"""Whether what callers asked of executions happened, once: CA5, CA7, CA8, RE1, RE2, RE4, ST14."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from google.protobuf.struct_pb2 import Struct

from flowkeep.v1.event_pb2 import ExecutionEvent
from tests.faults.checks.violations import FINAL, Violation
from tests.faults.harness.records import Call, Outcome, Record, Row, name_of, path_of

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
    sent = _answers(record, "SignalExecution")
    for row in record.rows.values():
        came = Counter(event.detail for event in row.events if event.kind == "signal_received")
        taken = Counter(signal for event in row.events for signal in event.taken)
        is_over = row.state in FINAL and "CANCELLED" not in {event.state for event in row.events}
        lost = {call.detail for call in sent[row.execution_id]} - came.keys() if is_over else set()
        for signal in sorted(lost):
            yield Violation("ST14", row.execution_id, f"signal {signal} was acknowledged and never came")
        for signal, count in (came + taken).items():
            if came[signal] > 1 or taken[signal] > came[signal]:
                text = f"signal {signal} came {came[signal]} times and was taken {taken[signal]} times"
                yield Violation("ST14", row.execution_id, f"{text}, {count} in all")


def check_retries(record: Record) -> Iterator[Violation]:
    """RE1, RE2: each retry that was acknowledged opened its execution once; what is done never runs again."""
    asked = _answers(record, "Retry")
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
    asked = _answers(record, "EditStepInput")
    for row in record.rows.values():
        edited = dict[str, Struct]()
        for event in row.events:
            if event.kind == "step_edited":
                edited[event.path] = ExecutionEvent.FromString(event.body).step_edited.input
            given = edited.get(event.path) if event.kind == "step_started" else None
            if given is not None and ExecutionEvent.FromString(event.body).step_started.input != given:
                text = f"attempt {event.attempt} of step {event.path} is not called with what was edited"
                yield Violation("CA7", row.execution_id, text)
        if row.state in FINAL and "CANCELLED" not in {event.state for event in row.events}:
            for call in asked[row.execution_id]:
                if call.detail not in {path_of(name) for name in edited}:
                    text = f"an edit of step {call.detail} was acknowledged, and is not kept"
                    yield Violation("CA7", row.execution_id, text)


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


def _answers(record: Record, method: str) -> dict[str, list[Call]]:
    """Return the calls of a method that were answered with OK, by execution."""
    found: dict[str, list[Call]] = defaultdict(list)
    for call in record.calls:
        if call.method == method and call.outcome is Outcome.OK:
            found[call.execution_id].append(call)
    return found
