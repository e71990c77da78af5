"""The schema of a workflow's input, and the check of an input against it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from service.engine.definition import Definition
from service.engine.parsing.fields import Fields
from service.engine.schema import Schema, SchemaError, locate
from service.engine.schema_weight import weigh
from service.engine.violations import ValidationError, Violation

DIALECT = "https://json-schema.org/draft/2020-12/schema"
COMPILED_KEPT = 256


def read_input_schema(fields: Fields) -> Mapping[str, Any] | None:
    """Return the input schema if there is one. It must be cheap to check, and accept objects."""
    if not fields.has("input_schema"):
        return None
    fields.mapping("input_schema")
    document = fields.json("input_schema")
    if not isinstance(document, Mapping):
        return None
    if document.get("$schema", DIALECT) not in (DIALECT, f"{DIALECT}#"):
        fields.wrong("input_schema.$schema", f'must be "{DIALECT}"')
    if document.get("type", "object") != "object":
        fields.wrong("input_schema.type", 'must be "object": an input is an object')
    try:
        _compile(msgspec.json.encode(document))
    except SchemaError as error:
        fields.findings.add(locate(fields.at("input_schema"), error.path), error.message)
    return document


def check_input(definition: Definition, payload: Mapping[str, Any]) -> None:
    """Raise ValidationError with all that is wrong with an input, by paths such as `input.customer.id`."""
    if definition.input_schema is None:
        return
    schema = _compile(msgspec.json.encode(definition.input_schema))
    problems = schema.problems(payload)
    if problems:
        raise ValidationError([Violation(locate("input", p.path), p.message) for p in problems])


@lru_cache(COMPILED_KEPT)
def _compile(document: bytes) -> Schema:
    """Return the compiled schema. Kept by its text, since definitions are parsed again and again."""
    schema = msgspec.json.decode(document)
    return Schema(schema, weigh(schema))
