"""What the arguments of the handler API must be. Each check raises ValueError with the end of a sentence."""

from __future__ import annotations

import math
import operator
from datetime import UTC, datetime, timedelta
from numbers import Integral, Real
from typing import Any

MAX_AMOUNT = 10**12

_EXAMPLE = "datetime(2030, 1, 31, 9, tzinfo=UTC)"


def text(value: Any) -> str:
    """Return a plain str."""
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {kind(value)}")
    return str.__str__(value)  # a subclass may say anything of itself


def storable(value: Any) -> str:
    """Return a plain str that can be kept and sent."""
    plain = text(value)
    if "\0" in plain:
        raise ValueError("must not contain the character NUL (U+0000)")
    try:
        plain.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain half of a surrogate pair") from None
    return plain


def flag(value: Any) -> bool:
    """Return a bool."""
    if not isinstance(value, bool):
        raise ValueError(f"must be True or False, not {kind(value)}")
    return value


def number(value: Any) -> float:
    """Return a finite number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"must be a number, not {kind(value)}")
    try:
        plain = float(value)
    except (ArithmeticError, ValueError):
        plain = math.inf
    if not math.isfinite(plain):
        raise ValueError(f"must be a finite number, not {plain}")
    return plain


def amount(value: Any) -> int:
    """Return a whole number from 0 to MAX_AMOUNT."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"must be a whole number, not {kind(value)}")
    plain = operator.index(value)
    if not 0 <= plain <= MAX_AMOUNT:
        raise ValueError(f"must be from 0 to {MAX_AMOUNT:,}")
    return plain


def span(value: Any) -> float:
    """Return the seconds of a number or a timedelta that is not negative."""
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, Real):
        seconds = number(value)
    else:
        raise ValueError(f"must be seconds as a number, or a timedelta, not {kind(value)}")
    if seconds < 0:
        raise ValueError(f"must not be negative, but is {seconds:g} s")
    return seconds


def moment(value: Any) -> datetime:
    """Return a time with a time zone in UTC, as a plain datetime of the years 1 to 9999."""
    if not isinstance(value, datetime):
        raise ValueError(f"must be a datetime with a time zone, such as {_EXAMPLE}, not {kind(value)}")
    try:
        is_naive = value.utcoffset() is None
        utc = value.astimezone(UTC)
        plain = datetime(utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, utc.microsecond, UTC)
    except BaseException:  # a time zone is code of anybody
        raise ValueError("must be a time of the years 1 to 9999 in UTC") from None
    if is_naive:
        raise ValueError(f"must have a time zone, as {_EXAMPLE} has; datetime.now(UTC) is the present")
    return plain


def kind(value: Any) -> str:
    """Return how to call the type of a value."""
    return "None" if value is None else type(value).__name__
