"""The schema of a workflow's input, and the check of an input against it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from service.engine.definition import Definition
from service.engine.kept import Kept
from service.engine.parsing.fields import Fields
from service.engine.schema import Schema, locate
from service.engine.schema_places import SchemaError
from service.engine.schema_weight import Scale, dialect
from service.engine.slices import Work, in_one_go
from service.engine.violations import ValidationError, Violation

DIALECT = "https://json-schema.org/draft/2020-12/schema"
COMPILED_BYTES = 16 << 20

# By their text, since definitions are parsed again and again.
_compiled: Kept[bytes, Schema] = Kept(COMPILED_BYTES)


def read_input_schema(fields: Fields) -> Work[Mapping[str, Any] | None]:
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
    text = msgspec.json.encode(document)
    yield len(text) // 10
    problems = _dialect().problems(document)
    yield len(text) // 10
    for problem in problems:
        fields.findings.add_problem(field, problem)
    try:
        if not problems:
            yield from _compile(text)
    except SchemaError as error:
        fields.findings.add(locate(field, error.path), error.message)
    return document


def check_input(definition: Definition, payload: Mapping[str, Any]) -> None:
    """Raise ValidationError with all that is wrong with an input, by paths such as `input.customer.id`."""
    if definition.input_schema is None:
        return
    schema = in_one_go(_compile(msgspec.json.encode(definition.input_schema)))
    problems = schema.problems(payload)
    if problems:
        raise ValidationError([Violation(locate("input", p.path), p.message) for p in problems])


def input_cost(definition: Definition, payload: Mapping[str, Any], *, is_wrong: bool) -> int:
    """Return about how many microseconds `check_input` took."""
    if definition.input_schema is None:
        return 0
    return in_one_go(_compile(msgspec.json.encode(definition.input_schema))).cost(payload, is_wrong=is_wrong)


@cache
def _dialect() -> Schema:
    """Return the schema of schemas."""
    return Schema({"$ref": DIALECT}, dialect())


def _compile(text: bytes) -> Work[Schema]:
    """Return the compiled schema."""
    if (known := _compiled.get(text)) is not None:
        return known
    document = msgspec.json.decode(text)
    scale = Scale(document, is_bounded=True)
    yield from scale.weigh()
    schema = Schema(document, scale)
    _compiled.put(text, schema, scale.bytes + len(text))
    yield scale.compile_cost
    return schema
