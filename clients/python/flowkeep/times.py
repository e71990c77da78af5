"""Moments as people give them: times of the calendar, or spans before now such as `2h`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from flowkeep.durations import to_duration

Time = datetime | timedelta | str
"""A moment: a datetime with a time zone, ISO 8601 text such as `2026-11-21T08:00:00Z`, or how long before now it was,
as a timedelta or as text such as `2h`."""

_RIGHT = "must be a time such as '2026-11-21T08:00:00Z', or a span before now such as '2h'"
_BEYOND = "must be within the years 1 to 9999 in UTC"
_DATE = re.compile(r"\d{4}-")


def to_datetime(time: Time, *, local: bool = False) -> datetime:
    """Return a moment in UTC.

    With `local`, as people type them, a time without a time zone is of this machine's, and one that lies beyond the
    calendar by its zone only is the calendar's end.

    Raises ValueError, which says what would be right, for one without a time zone, outside of the years 1 to 9999 in
    UTC, and for what is no moment at all.
    """
    moment = _moment(time)
    if moment.tzinfo is None and not local:
        raise ValueError(f"{moment.isoformat()} lacks a time zone: write {moment.isoformat()}Z for one in UTC")
    try:
        return moment.astimezone(UTC)
    except (OverflowError, OSError, ValueError):
        if local:
            return (datetime.max if moment.year > 1 else datetime.min).replace(tzinfo=UTC)
        raise ValueError(f"{_BEYOND}, unlike {time}") from None


def to_timestamp(time: Time) -> Timestamp:
    """Return a moment as a `Timestamp`. Raises ValueError as `to_datetime` does."""
    stamp = Timestamp()
    stamp.FromDatetime(to_datetime(time))
    return stamp


def _moment(time: Time) -> datetime:
    if isinstance(time, datetime):
        return time
    if isinstance(time, timedelta):
        return _before_now(time)
    if not isinstance(time, str):
        raise TypeError(f"{_RIGHT}, not {time!r}")
    try:
        if _DATE.match(time.strip()):
            return datetime.fromisoformat(time.strip())
        span = to_duration(time)
    except ValueError:
        raise ValueError(f"{_RIGHT}, not {time!r}") from None
    return _before_now(timedelta(seconds=span.seconds, microseconds=span.nanos // 1000))


def _before_now(span: timedelta) -> datetime:
    try:
        return datetime.now(UTC) - span
    except OverflowError:
        raise ValueError(f"{_BEYOND}, unlike {span} before now") from None
