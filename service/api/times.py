"""Times and durations, wire to domain and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import overload

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NANOS = 1_000_000_000
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799


@overload
def timestamp(moment: datetime) -> Timestamp: ...
@overload
def timestamp(moment: datetime | None) -> Timestamp | None: ...
def timestamp(moment: datetime | None) -> Timestamp | None:
    """Return the message of a moment, to the microsecond."""
    if moment is None:
        return None
    message = Timestamp()
    put_time(message, moment)
    return message


def put_time(target: Timestamp, moment: datetime) -> None:
    """Set a message, which thereby is there, to a moment, to the microsecond."""
    since = moment - _EPOCH
    target.seconds = since.days * 86_400 + since.seconds
    target.nanos = since.microseconds * 1_000


def moment(message: Timestamp) -> datetime:
    """Return the moment of a message, cut to the microsecond. Raises OverflowError outside of years 1 to 9999."""
    return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1_000)


def duration(length: float) -> Duration:
    """Return the message of a length in seconds, to the nanosecond."""
    message = Duration()
    put_span(message, length)
    return message


def put_span(target: Duration, length: float) -> None:
    """Set a message, which thereby is there, to a length in seconds, to the nanosecond."""
    target.seconds, target.nanos = divmod(round(length * 1e9), _NANOS)


def seconds(message: Duration) -> float:
    """Return the length of a message in seconds."""
    return message.seconds + message.nanos / 1e9


def wrong_moment(message: Timestamp) -> str:
    """Return what is wrong with a time that none is, empty when it is one."""
    if not 0 <= message.nanos < _NANOS:
        return "must have nanos between 0 and 999,999,999"
    if not _FIRST_SECOND <= message.seconds <= _LAST_SECOND:
        return "must be a time between the years 1 and 9999"
    return ""


def wrong_span(message: Duration) -> str:
    """Return what is wrong with a span of time that none is, empty when it is one, however long."""
    if not -_NANOS < message.nanos < _NANOS:
        return "must have nanos between -999,999,999 and 999,999,999"
    if message.seconds * message.nanos < 0:
        return "must have seconds and nanos of the same sign"
    return ""
