"""The handler `condition`: names which of several outcomes holds, for the conditions of later steps to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from service.engine.definition import Decide
from service.engine.handlers.model import Effect, Handler, Params, Source
from service.engine.schema import Problem

NO_OUTCOME = "none"
_CEL = {"type": "string", "minLength": 1, "maxLength": 4096}

PARAMS = {
    "type": "object",
    "properties": {
        "expression": {"description": 'CEL that gives a bool: the outcome is "true" or "false".', **_CEL},
        "outcomes": {
            "description": "The first outcome whose CEL is true holds; the last may be without, for otherwise.",
            "type": "array",
            "minItems": 1,
            "maxItems": 64,
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "minLength": 1, "maxLength": 64},
                    "when": _CEL,
                },
                "required": ["name"],
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
    "oneOf": [{"required": ["expression"]}, {"required": ["outcomes"]}],
}


def condition() -> Handler:
    """Return the handler."""
    return Handler(
        name=Decide.handler,
        description=(
            "Decides by CEL between named outcomes. Gives {outcome, matched}; when no outcome holds,"
            ' outcome is "none" and matched false.'
        ),
        params_schema=PARAMS,
        effect=Effect.NONE,
        compile=_compile,
        is_templated=False,
        check=_check,
        sources=_sources,
    )


def _compile(params: Params) -> Decide:
    if "expression" in params.given:
        return Decide((("true", params.cel[("expression",)]),), "false")
    outcomes = enumerate(params.given["outcomes"])
    return Decide(tuple((each["name"], params.cel.get(("outcomes", at, "when"))) for at, each in outcomes), NO_OUTCOME)


def _check(params: Mapping[str, Any]) -> Iterator[Problem]:
    outcomes, names = params.get("outcomes"), set[str]()
    for index, outcome in enumerate(outcomes if isinstance(outcomes, list) else ()):
        if not isinstance(outcome, Mapping):
            continue
        if (name := outcome["name"]) == NO_OUTCOME:
            yield Problem(("outcomes", index, "name"), f'must not be "{NO_OUTCOME}", which means that none holds')
        elif name in names:
            yield Problem(("outcomes", index, "name"), f'is the second outcome named "{name}"; names are unique')
        names.add(name)
        if "when" not in outcome and index < len(params["outcomes"]) - 1:
            yield Problem(("outcomes", index, "when"), "is required; only the last outcome may be without")


def _sources(params: Mapping[str, Any]) -> Iterator[Source]:
    if "expression" in params:
        yield Source(("expression",), params["expression"], is_condition=True)
    outcomes = params.get("outcomes")
    for index, outcome in enumerate(outcomes if isinstance(outcomes, list) else ()):
        if isinstance(outcome, Mapping) and "when" in outcome:
            yield Source(("outcomes", index, "when"), outcome["when"], is_condition=True)
