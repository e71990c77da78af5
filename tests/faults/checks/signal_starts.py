"""Whether of what signals start one goes on at a time, and each has its signals: ST15."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations

from tests.faults.checks.attempts import writes_by_execution
from tests.faults.checks.control import answers, binds
from tests.faults.checks.violations import FINAL, Violation
from tests.faults.harness.records import Record, Row, Write

METHOD = "SignalWithStart"


def check_signal_starts(record: Record) -> Iterator[Violation]:
    """ST15: one execution of a correlation id goes on at a time, begins with a signal, and gets what it was sent."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in record.rows.values():
        if row.correlation_id:
            groups[_group(row)].append(row)
    written = writes_by_execution(record)
    for rows in groups.values():
        yield from _beside(rows, written)
        for row in rows:
            if row.execution_id in written and not _first(row, written):
                yield Violation("ST15", row.execution_id, "was kept without the signal that started it")
    yield from _misled(record, written)


def _beside(rows: Sequence[Row], written: Mapping[str, Sequence[Write]]) -> Iterator[Violation]:
    """Give what was created before another one had ended.

    Whoever creates one looks at the others before, so that their ends, which it saw, were written before it was.
    """
    known = [(row, written[row.execution_id]) for row in rows if row.execution_id in written]
    for (_, before), (row, writes) in permutations(known, 2):
        end = next((write.id for write in before if write.state in FINAL), None)
        if before[0].id < writes[0].id and (end is None or writes[0].id < end):
            yield Violation("ST15", row.execution_id, f"was started while {before[0].execution_id} went on")


def _misled(record: Record, written: Mapping[str, Sequence[Write]]) -> Iterator[Violation]:
    """Give answers that do not tell what became of the signal."""
    came: dict[str, list[str]] = defaultdict(list)
    for row in record.rows.values():
        for event in row.events:
            if event.kind == "signal_received":
                came[event.detail].append(row.execution_id)
    for execution_id, calls in answers(record, METHOD).items():
        if (named := record.rows.get(execution_id)) is None:
            continue  # I1 tells
        for call in calls:
            if call.content != _group(named):
                text = f"is of {_group(named)}, and was told to a caller who meant {call.content}"
                yield Violation("ST15", execution_id, text)
            if came[call.detail] != [execution_id] and (binds(named) or came[call.detail]):
                text = f"signal {call.detail} was acknowledged for it, and came to {came[call.detail]}"
                yield Violation("ST15", execution_id, text)
            if call.created and execution_id in written and call.detail not in _first(named, written):
                yield Violation("ST15", execution_id, f"did not start with signal {call.detail}, as was told")
    for call in record.calls:
        if call.method == METHOD and call.reason == "CORRELATION_AMBIGUOUS":
            yield Violation("ST15", call.content, f"several went on, as {call.replica} told")


def _group(row: Row) -> str:
    return f"{row.workflow} {row.correlation_id}"


def _first(row: Row, written: Mapping[str, Sequence[Write]]) -> set[str]:
    """Return the signals that were kept in the commit which created an execution."""
    last = written[row.execution_id][0].last_seq
    return {event.detail for event in row.events if event.kind == "signal_received" and event.seq <= last}
