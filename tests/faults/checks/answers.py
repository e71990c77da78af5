"""Whether what callers were told is what was kept: I1, I2, I12, EX3, EX6, CA1, CA2."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tests.faults.checks.violations import FINAL, Violation
from tests.faults.harness.records import Call, Outcome, Record


def check_acknowledged(record: Record) -> Iterator[Violation]:
    """I1: no execution that was acknowledged is lost."""
    for call in record.calls:
        if call.outcome is Outcome.OK and call.execution_id and call.execution_id not in record.rows:
            yield Violation("I1", call.execution_id, f"{call.method} on {call.replica} told of it, and it is not kept")


def check_request_ids(record: Record) -> Iterator[Violation]:
    """I2: one execution for a request id, and one answer that says that it was made."""
    kept: dict[str, set[str]] = defaultdict(set)
    for row in record.rows.values():
        if row.request_id:
            kept[row.request_id].add(row.execution_id)
    for request_id, execution_id in record.requests:
        kept[request_id].add(execution_id)
    told, makers = _told(record)
    for request_id in kept.keys() | told.keys():
        ids = kept[request_id] | told[request_id]
        if len(ids) > 1:
            yield Violation("I2", request_id, f"started {len(ids)} executions: {sorted(ids)}")
    for request_id, calls in makers.items():
        if len(calls) > 1:
            yield Violation("I2", request_id, f"{len(calls)} answers say that they made the execution")
    for request_id, calls in _by_request(record).items():
        if all(call.outcome is Outcome.OK for call in calls) and not makers.get(request_id):
            yield Violation("I2", request_id, "every call succeeded and none of them made the execution")


def check_definite(record: Record) -> Iterator[Violation]:
    """I12: a definite error left no trace, and a reused request id changed nothing (EX3)."""
    kept = {row.request_id: row for row in record.rows.values() if row.request_id}
    kept_requests = {request_id for request_id, _ in record.requests}
    for request_id, calls in _by_request(record).items():
        if all(call.outcome is Outcome.DEFINITE for call in calls) and request_id in kept.keys() | kept_requests:
            codes = sorted({call.code for call in calls})
            yield Violation("I12", request_id, f"was refused with {codes}, and yet it is kept")
        first = next((call for call in calls if call.outcome is Outcome.OK), None)
        row = kept.get(request_id)
        if first is not None and row is not None and row.content != first.content:
            yield Violation("EX3", request_id, f"asked for {first.content!r}, and {row.content!r} is kept")
        for call in calls:
            if first is not None and call.outcome is Outcome.OK and call.content != first.content:
                yield Violation("EX3", request_id, f"was accepted with {first.content!r} and with {call.content!r}")


def check_reads(record: Record) -> Iterator[Violation]:
    """EX6: what was acknowledged is seen by every later call, on any replica; a seq once seen stays."""
    acked: dict[str, float] = {}
    for call in sorted(record.calls, key=lambda call: call.returned):
        if call.method in ("Execute", "SignalWithStart") and call.outcome is Outcome.OK:
            acked.setdefault(call.execution_id, call.returned)
    seen: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for call in record.calls:
        if call.outcome is Outcome.OK and call.execution_id:
            seen[call.execution_id].append((call.returned, call.last_seq))
    for call in record.calls:
        if call.method not in ("GetExecution", "Cancel") or call.invoked < acked.get(call.execution_id, float("inf")):
            continue
        if call.code == "NOT_FOUND":
            yield Violation("EX6", call.execution_id, f"{call.method} on {call.replica} did not find it after its ack")
        elif call.outcome is Outcome.OK:
            before = max((seq for time, seq in seen[call.execution_id] if time < call.invoked), default=0)
            if call.last_seq < before:
                text = f"{call.method} on {call.replica} showed seq {call.last_seq} after {before} had been shown"
                yield Violation("EX6", call.execution_id, text)


def check_cancels(record: Record) -> Iterator[Violation]:
    """CA1, CA2: an acknowledged Cancel ends CANCELLED; one that came too late found an end that stands."""
    for call in record.calls:
        row = record.rows.get(call.execution_id)
        if call.method != "Cancel" or row is None or row.state not in FINAL:
            continue
        ends = {event.state for event in row.events if event.kind == "finished"} | {row.state}
        if call.outcome is Outcome.OK and "CANCELLED" not in ends:
            yield Violation("CA1", call.execution_id, f"Cancel was acknowledged, and the end is {row.state}")
        if call.reason == "EXECUTION_FINISHED" and row.state == "CANCELLED":
            yield Violation("CA2", call.execution_id, "Cancel found it ended otherwise, and the end is CANCELLED")


def _by_request(record: Record) -> dict[str, list[Call]]:
    calls: dict[str, list[Call]] = defaultdict(list)
    for call in record.calls:
        if call.method in ("Execute", "ForkExecution") and call.request_id:
            calls[call.request_id].append(call)
    return calls


def _told(record: Record) -> tuple[dict[str, set[str]], dict[str, list[Call]]]:
    told: dict[str, set[str]] = defaultdict(set)
    makers: dict[str, list[Call]] = defaultdict(list)
    for request_id, calls in _by_request(record).items():
        for call in calls:
            if call.outcome is Outcome.OK:
                told[request_id].add(call.execution_id)
                if call.created:
                    makers[request_id].append(call)
    return told, makers
