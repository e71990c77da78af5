"""Times and durations, wire to domain and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def timestamp(moment: datetime | None) -> Timestamp | None:
    """Return the message of a moment, to the microsecond."""
    if moment is None:
        return None
    whole, micros = divmod((moment - _EPOCH) // _MICROSECOND, 1_000_000)
    return Timestamp(seconds=whole, nanos=micros * 1_000)


def moment(message: Timestamp) -> datetime:
    """Return the moment of a message, cut to the microsecond. Raises OverflowError outside of years 1 to 9999."""
    return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1_000)


def duration(length: float) -> Duration:
    """Return the message of a length in seconds, to the nanosecond."""
    nanos = round(length * 1e9)
    return Duration(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)


def seconds(message: Duration) -> float:
    """Return the length of a message in seconds."""
    return message.seconds + message.nanos / 1e9
