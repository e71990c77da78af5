"""How long a step waits: durations and moments as they are written in the params of `wait`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from service.engine import durations
from service.engine.durations import TEN_YEARS

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)")


def seconds(duration: Any) -> float:
    """Return the seconds of a duration in any of its forms, or raise ValueError with what would be right."""
    if isinstance(duration, str):
        duration = durations.nanoseconds(duration) / 10**9
    if isinstance(duration, bool) or not isinstance(duration, int | float):
        raise ValueError("must be a number of seconds, or a string such as 1h30m")
    if not (math.isfinite(duration) and 0 <= duration <= TEN_YEARS):
        raise ValueError("must be between 0 and 10 years")
    return float(duration)


def moment(until: Any) -> datetime:
    """Return the moment of an RFC 3339 text in UTC, or raise ValueError with what would be right."""
    if not isinstance(until, str) or not _RFC3339.fullmatch(until):
        raise ValueError('is no RFC 3339 time with a time zone; write it as in "2030-01-31T09:00:00Z"')
    try:
        return datetime.fromisoformat(until.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("is no time of the calendar") from None


def end(params: Mapping[str, Any], now: datetime) -> datetime:
    """Return when a pause that begins now ends, or raise ValueError that names the param and what is wrong with it."""
    try:
        if "until" not in params:
            return (now + timedelta(seconds=seconds(params["duration"]))).astimezone(UTC)
        until = moment(params["until"])
    except OverflowError:
        raise ValueError("duration: ends after the year 9999") from None
    except ValueError as error:
        raise ValueError(f"{next(iter(params))}: {error}") from None
    if (until - now).total_seconds() > TEN_YEARS:
        raise ValueError("until: is more than 10 years away")
    return until
