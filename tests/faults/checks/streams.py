"""Whether every watch gave the history as it is kept: I11, which is W1 to W10."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.checks.violations import FINAL, Violation
from tests.faults.harness.records import Record, Row, Stream

_RESUMABLE = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED", "UNKNOWN", "INTERNAL"})


def check_streams(record: Record) -> Iterator[Violation]:
    """W1 to W10 for each stream."""
    for stream in record.streams:
        row = record.rows.get(stream.execution_id)
        if row is None:
            continue  # I1 tells
        for rule, text in [*_events(stream, row), *_bookmarks(stream), *_end(stream, row)]:
            yield Violation(
                rule, stream.execution_id, f"{stream.client} after {stream.after_seq} on {stream.replica}: {text}"
            )


def _events(stream: Stream, row: Row) -> Iterator[tuple[str, str]]:
    seen: set[int] = set()
    last, due = stream.after_seq, stream.after_seq + 1
    kept = {event.seq: event for event in row.events}
    for message in stream.messages:
        for seq, transition_seq, body in message.events:
            if seq in seen:
                yield "W2", f"event {seq} came twice"
            elif seq < last:
                yield "W1", f"event {seq} came after {last}"
            elif seq != due:
                yield "W3" if due != stream.after_seq + 1 else "W5", f"event {seq} came where {due} was due"
            seen.add(seq)
            last, due = max(last, seq), max(due, seq + 1)
            if seq not in kept:
                yield "W10", f"event {seq} was sent and is not kept"
            elif (kept[seq].body, kept[seq].transition_seq) != (body, transition_seq):
                yield "W10", f"event {seq} was sent with other bytes than are kept"
        if message.events and message.events[-1][0] != message.events[-1][1]:
            yield "W4", f"a message ends with event {message.events[-1][0]}, inside of a transition"


def _bookmarks(stream: Stream) -> Iterator[tuple[str, str]]:
    delivered, promised = stream.after_seq, 0
    for message in stream.messages:
        for seq, _, _ in message.events:
            if seq <= promised:
                yield "W6", f"event {seq} came after the bookmark {promised}"
            delivered = max(delivered, seq)
        if message.bookmark is not None:
            if message.bookmark != delivered:
                yield "W6", f"the bookmark {message.bookmark} came when {delivered} was delivered"
            promised = max(promised, message.bookmark)


def _end(stream: Stream, row: Row) -> Iterator[tuple[str, str]]:
    delivered = max([stream.after_seq, *(event[0] for message in stream.messages for event in message.events)])
    is_at_end = any(event.seq == delivered and event.kind == "finished" for event in row.events)
    if stream.ended == "OK" and not is_at_end:
        yield "W9", f"ended with OK at {delivered}, before the terminal event"
    elif stream.is_final and row.state in FINAL and stream.ended != "OK":
        yield "W9", f"ended with {stream.ended} at {delivered} although all was well and over, at {row.last_seq}"
    elif stream.reason == "CURSOR_AHEAD":
        if stream.after_seq <= stream.known_seq:
            yield "W7", f"was told that the position is ahead, and {stream.known_seq} was known"
        if stream.messages:
            yield "W7", "was told so after messages"
    elif stream.ended not in ("OK", "LEFT", "RESOURCE_EXHAUSTED", *_RESUMABLE):
        yield "W9", f"ended with {stream.ended} {stream.reason}, which cannot be resumed"
    if stream.after_seq > row.last_seq and stream.messages:
        yield "W7", f"began ahead of the whole history, {row.last_seq}, and was served"
