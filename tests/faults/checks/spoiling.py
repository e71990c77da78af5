"""The sound record with something else in it, for tests that spoil it."""

from __future__ import annotations

from dataclasses import replace

from tests.faults.checks.sound_record import CALLS, EXECUTION, ROW, SOUND, STREAMS, WRITES, stream
from tests.faults.harness.records import Call, Message, Record, Write


def with_row(**changes: object) -> Record:
    """The sound record with another row."""
    return replace(SOUND, rows={EXECUTION: replace(ROW, **changes)})  # type: ignore[arg-type]


def with_events(*events: object) -> Record:
    """The sound record with another history, of which the row knows."""
    return with_row(events=events, last_seq=len(events))


def with_stream(*messages: Message, **facts: object) -> Record:
    """The sound record with another stream."""
    return replace(SOUND, streams=(*STREAMS, stream(messages, **facts)))  # type: ignore[arg-type]


def with_calls(*calls: Call) -> Record:
    """The sound record with more calls."""
    return replace(SOUND, calls=(*CALLS, *calls))


def with_writes(*writes: Write) -> Record:
    """The sound record with more writes."""
    return replace(SOUND, writes=(*WRITES, *writes))
