"""Spans of time as people write them: `1h30m`, `45s`, `7d`, `1w`, and ISO 8601 such as `PT5M`."""

from __future__ import annotations

import re

YEAR = 31_536_000.0
"""Seconds of 365 days."""

TEN_YEARS = 10 * YEAR
"""The longest time that anything may take; the protos have the same bound."""

_NUMBER = r"(\d{1,12}(?:\.\d{1,9})?)"
_PLAIN = re.compile(
    rf"(?:{_NUMBER}w)?(?:{_NUMBER}d)?(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?(?:{_NUMBER}ms)?", re.ASCII
)
_ISO = re.compile(
    rf"P(?=[\dT])(?:{_NUMBER}W)?(?:{_NUMBER}D)?(?:T(?=\d)(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?", re.ASCII
)
# Nanoseconds of a week, a day, an hour, a minute, a second, a millisecond.
_UNITS = (604_800 * 10**9, 86_400 * 10**9, 3_600 * 10**9, 60 * 10**9, 10**9, 10**6)


def nanoseconds(text: str) -> int:
    """Return the nanoseconds of a span. Raises ValueError, which says what would be right."""
    found = _PLAIN.fullmatch(text) or _ISO.fullmatch(text)
    counts = found.groups() if found else ()
    if not any(counts):
        raise ValueError('is no duration; write "1h30m", "45s", "7d" or "PT5M", or a number of seconds')
    return sum(_nanoseconds(count, unit) for count, unit in zip(counts, _UNITS, strict=False) if count)


def _nanoseconds(count: str, unit: int) -> int:
    whole, _, fraction = count.partition(".")
    return int(whole) * unit + int(fraction.ljust(9, "0")) * unit // 10**9
