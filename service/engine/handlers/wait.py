"""The handler `wait`: parks a step for a while or until a moment, from milliseconds to years."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from service.engine import pauses
from service.engine.definition import Pause
from service.engine.durations import TEN_YEARS
from service.engine.handlers.model import Effect, Handler
from service.engine.schema import Problem

PARAMS = {
    "type": "object",
    "properties": {
        "duration": {
            "description": 'How long: seconds as a number, "1h30m", "45s", "7d", or ISO 8601 such as "PT5M".',
            "type": ["number", "string"],
            "minimum": 0,
            "maximum": TEN_YEARS,
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
        compile=lambda params: Pause(params.template),
    )


def _check(params: Mapping[str, Any]) -> Iterator[Problem]:
    for name, read in (("duration", pauses.seconds), ("until", pauses.moment)):
        try:
            if name in params:
                read(params[name])
        except ValueError as error:
            yield Problem((name,), str(error))
