"""The schema of a workflow's input, and the check of an input against it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
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
    document = fields.object("input_schema")
    if document is None:
        return None
    field = fields.at("input_schema")
    if document.get("$schema", DIALECT) not in (DIALECT, f"{DIALECT}#"):
        fields.findings.add(locate(field, ("$schema",)), f'must be "{DIALECT}"')
    if document.get("type", "object") != "object":
        fields.findings.add(f"{field}.type", 'must be "object": an input is an object')
    problems = _dialect().problems(document)
    for problem in problems:
        fields.findings.add_problem(field, problem)
    try:
        if not problems:
            _compile(msgspec.json.encode(document))
    except SchemaError as error:
        fields.findings.add(locate(field, error.path), error.message)
    return document


def check_input(definition: Definition, payload: Mapping[str, Any]) -> None:
    """Raise ValidationError with all that is wrong with an input, by paths such as `input.customer.id`."""
    if definition.input_schema is None:
        return
    schema = _compile(msgspec.json.encode(definition.input_schema))
    problems = schema.problems(payload)
    if problems:
        raise ValidationError([Violation(locate("input", p.path), p.message) for p in problems])


@cache
def _dialect() -> Schema:
    """Return the schema of schemas."""
    return Schema({"$ref": DIALECT})


@lru_cache(COMPILED_KEPT)
def _compile(document: bytes) -> Schema:
    """Return the compiled schema. Kept by its text, since definitions are parsed again and again."""
    schema = msgspec.json.decode(document)
    return Schema(schema, weigh(schema))
