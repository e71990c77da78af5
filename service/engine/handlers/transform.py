"""The handler `transform`: computes a value from what the execution knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from service.engine.definition import Transform
from service.engine.handlers.model import Effect, Handler, Params, Source

PARAMS = {
    "type": "object",
    "properties": {
        "expression": {
            "description": "CEL whose value is the output; it may use map and filter.",
            "type": "string",
            "minLength": 1,
            "maxLength": 4096,
        },
        "value": {"description": "Any JSON, whose strings may hold templates; it is the output."},
    },
    "additionalProperties": False,
    "oneOf": [{"required": ["expression"]}, {"required": ["value"]}],
}


def transform() -> Handler:
    """Return the handler."""
    return Handler(
        name=Transform.handler,
        description="Computes a value, by CEL or by a JSON value with templates. Gives the value itself.",
        params_schema=PARAMS,
        effect=Effect.NONE,
        compile=_compile,
        sources=_sources,
    )


def _compile(params: Params) -> Transform:
    return Transform(params.cel[("expression",)] if "expression" in params.given else params.template.member("value"))


def _sources(params: Mapping[str, Any]) -> Iterator[Source]:
    if "expression" in params:
        yield Source(("expression",), params["expression"])
