"""Whether executions were written by their owners only: I9, I10, and keeping what must be kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tests.faults.checks.violations import Violation
from tests.faults.harness.records import Record, Write

POOL_TAKEN, ROWS_LOCKED = "pool exhausted", "rows locked"
MILD = frozenset({POOL_TAKEN, ROWS_LOCKED})
"""Faults that cost no replica what it owns while they last."""


def check_epochs(record: Record) -> Iterator[Violation]:
    """I9: epochs never fall, rise by one, and belong to one incarnation each."""
    for execution_id, writes in _by_execution(record).items():
        owners: dict[int, str] = {}
        epoch = 0
        for write in writes:
            if write.epoch < epoch:
                yield Violation("I9", execution_id, f"write {write.id} has epoch {write.epoch} after {epoch}")
            elif write.old_epoch is not None and write.epoch > write.old_epoch + 1:
                yield Violation("I9", execution_id, f"write {write.id} jumps to epoch {write.epoch}")
            epoch = max(epoch, write.epoch)
            if write.incarnation is not None and owners.setdefault(write.epoch, write.incarnation) != write.incarnation:
                text = f"epoch {write.epoch} belongs to {owners[write.epoch]} and to {write.incarnation}"
                yield Violation("I9", execution_id, text)


def check_writers(record: Record) -> Iterator[Violation]:
    """I10: history grows only by the replica that owned the row, within one epoch, each write once."""
    for execution_id, writes in _by_execution(record).items():
        row, seq = record.rows.get(execution_id), 0
        # Whoever retries it opens it again, as nobody's.
        reopened = {event.seq for event in row.events if event.kind == "reopened"} if row is not None else set()
        for write in writes:
            if write.last_seq < seq:
                yield Violation("I10", execution_id, f"write {write.id} puts seq {write.last_seq} after {seq}")
            seq = write.last_seq
            if write.old_seq is None or write.last_seq == write.old_seq:
                continue
            if write.last_seq in reopened and write.old_seq == write.last_seq - 1 and not write.old_incarnation:
                continue
            if write.epoch != write.old_epoch:
                yield Violation("I10", execution_id, f"write {write.id} adds events and changes the epoch")
            owner = record.incarnations.get(write.old_incarnation or "")
            if owner != write.replica:
                text = f"write {write.id} adds events by {write.replica}, and the owner is {owner}"
                yield Violation("I10", execution_id, text)


def check_kept(record: Record) -> Iterator[Violation]:
    """CONTRACT 2.5: a pause well below the TTL costs a replica nothing, and neither do a full pool or locked rows."""
    mild = [
        (landing.time, landing.until)
        for landing in record.landings
        if landing.kind in MILD and landing.until is not None
    ]
    if not record.keeps_ownership and not mild:
        return
    for execution_id, writes in _by_execution(record).items():
        for write in writes:
            if not write.old_incarnation or not write.incarnation or write.old_incarnation == write.incarnation:
                continue
            if record.keeps_ownership or any(begin <= write.time <= end for begin, end in mild):
                text = f"was taken from {record.incarnations.get(write.old_incarnation)} by {write.replica}"
                yield Violation("KEEP", execution_id, text)


def _by_execution(record: Record) -> dict[str, list[Write]]:
    writes: dict[str, list[Write]] = defaultdict(list)
    for write in sorted(record.writes, key=lambda write: write.id):
        writes[write.execution_id].append(write)
    return writes
