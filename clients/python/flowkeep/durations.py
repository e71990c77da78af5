"""Spans of time as people write them (`90s`, `1h30m`, `7d`, `PT5M`), and protobuf's `Duration`."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from fractions import Fraction

from google.protobuf.duration_pb2 import Duration

Span = timedelta | float | str
"""A span of time: a timedelta, a number of seconds, or text such as `90s`, `1h30m`, `7d` or `PT5M`."""

# The service's own reader takes the same texts; tests/unit/test_durations.py holds both to one table.
_NUMBER = r"(\d{1,12}(?:\.\d{1,9})?)"
_SHORT = re.compile(
    rf"(?:{_NUMBER}w)?(?:{_NUMBER}d)?(?:{_NUMBER}h)?(?:{_NUMBER}m(?!s))?(?:{_NUMBER}s)?(?:{_NUMBER}ms)?", re.ASCII
)
_ISO = re.compile(
    rf"P(?:{_NUMBER}W)?(?:{_NUMBER}D)?(?:T(?=\d)(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?", re.ASCII
)
_SECONDS = (Fraction(604_800), Fraction(86_400), Fraction(3_600), Fraction(60), Fraction(1), Fraction(1, 1000))
_MAX_SECONDS = 315_576_000_000  # what protobuf's Duration can hold
_NANOS = 1_000_000_000


def to_duration(span: Span) -> Duration:
    """Return a span as a `Duration`, exact to the nanosecond.

    Raises ValueError, which says what would be right, for a negative span, one longer than 10,000 years, and text that
    is no span. Text of digits only is refused too: it could be seconds or milliseconds.
    """
    nanos = round(_seconds(span) * _NANOS)
    if not 0 <= nanos <= _MAX_SECONDS * _NANOS:
        raise ValueError("must be between 0 and 10,000 years")
    return Duration(seconds=nanos // _NANOS, nanos=nanos % _NANOS)


def to_seconds(span: Span) -> float:
    """Return a span in seconds. Raises ValueError as `to_duration` does."""
    duration = to_duration(span)
    return duration.seconds + duration.nanos / _NANOS


def duration_text(duration: Duration) -> str:
    """Return the shortest text that `to_duration` reads as the same span, such as `1h30m` or `0.25s`."""
    rest = duration.seconds
    parts = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    fraction = f".{duration.nanos:09}".rstrip("0.")
    if rest or fraction or not parts:
        parts.append(f"{rest}{fraction}s")
    return "".join(parts)


def _seconds(span: Span) -> Fraction:
    if isinstance(span, timedelta):
        return Fraction(span // timedelta(microseconds=1), 1_000_000)
    if isinstance(span, str):
        return _seconds_of_text(span.strip())
    if isinstance(span, bool) or not isinstance(span, float | int):
        raise ValueError(f"must be a number of seconds or text such as '90s' or '1h30m', not {span!r}")
    if not -math.inf < span < math.inf:
        raise ValueError(f"must be a finite number of seconds, not {span}")
    # Through its text, so that 0.1 means a tenth and not the double beside it.
    return Fraction(repr(span))


def _seconds_of_text(text: str) -> Fraction:
    if re.fullmatch(_NUMBER, text, re.ASCII):
        raise ValueError(f"lacks a unit: write '{text}s', or the number without quotes for seconds")
    match = _SHORT.fullmatch(text) or _ISO.fullmatch(text)
    counts = match.groups() if match else ()
    if not any(counts):
        shown = text if len(text) <= 60 else f"{text[:57]}..."
        raise ValueError(f"must be a span of time such as '90s', '5m', '1h30m', '7d' or 'PT5M', not {shown!r}")
    return sum((Fraction(count) * size for count, size in zip(counts, _SECONDS, strict=False) if count), Fraction())
