"""The handler `wait`: parks a step for a while or until a moment, from milliseconds to years."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from service.engine import durations
from service.engine.definition import Pause
from service.engine.failure import INVALID_PARAMS
from service.engine.handlers.model import Effect, Handler, HandlerError, StepContext, Suspend
from service.engine.schema import Problem

LONGEST = 3650 * 86400.0

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)")

PARAMS = {
    "type": "object",
    "properties": {
        "duration": {
            "description": 'How long: seconds as a number, "1h30m", "45s", "7d", or ISO 8601 such as "PT5M".',
            "type": ["number", "string"],
            "minimum": 0,
            "maximum": LONGEST,
        },
        "until": {
            "description": "The moment, RFC 3339 with a time zone. A past one completes the step at once.",
            "type": "string",
        },
    },
    "additionalProperties": False,
    "oneOf": [{"required": ["duration"]}, {"required": ["until"]}],
}


def wait() -> Handler:
    """Return the handler."""
    return Handler(
        name=Pause.handler,
        description="Waits for a duration or until a moment, at most 10 years. Gives {waited_until}.",
        params_schema=PARAMS,
        effect=Effect.NONE,
        check=_check,
        run=_run,
        compile=lambda params: Pause(params.template),
    )


def seconds(duration: Any) -> float:
    """Return the seconds of a duration in any of its forms, or raise ValueError with what would be right."""
    if isinstance(duration, str):
        duration = durations.nanoseconds(duration) / 10**9
    if not (math.isfinite(duration) and 0 <= duration <= LONGEST):
        raise ValueError("must be between 0 and 10 years")
    return float(duration)


def moment(until: str) -> datetime:
    """Return the moment of an RFC 3339 text in UTC, or raise ValueError with what would be right."""
    if not _RFC3339.fullmatch(until):
        raise ValueError('is no RFC 3339 time with a time zone; write it as in "2030-01-31T09:00:00Z"')
    try:
        return datetime.fromisoformat(until.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("is no time of the calendar") from None


def _check(params: Mapping[str, Any]) -> Iterator[Problem]:
    for name, read in (("duration", seconds), ("until", moment)):
        try:
            if name in params:
                read(params[name])
        except ValueError as error:
            yield Problem((name,), str(error))


async def _run(params: Mapping[str, Any], context: StepContext) -> Any:
    end = _end(params, context.now)
    output = {"waited_until": end.isoformat().replace("+00:00", "Z")}
    return Suspend(end, output, f"waits until {output['waited_until']}") if end > context.now else output


def _end(params: Mapping[str, Any], now: datetime) -> datetime:
    try:
        end = moment(params["until"]) if "until" in params else now + timedelta(seconds=seconds(params["duration"]))
    except OverflowError:
        raise HandlerError(INVALID_PARAMS, "duration ends after the year 9999", retryable=False) from None
    except ValueError as error:
        raise HandlerError(INVALID_PARAMS, f"{next(iter(params))} {error}", retryable=False) from None
    if (end - now).total_seconds() > LONGEST:
        raise HandlerError(INVALID_PARAMS, "until is more than 10 years away", retryable=False)
    return end.astimezone(UTC)
