"""Schemas that callers wrote, compiled: what is wrong with one, and values held against it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from service.engine.kept import Kept
from service.engine.schema import Problem, Schema
from service.engine.schema_places import SchemaError
from service.engine.schema_weight import Scale, dialect
from service.engine.slices import Work

DIALECT = "https://json-schema.org/draft/2020-12/schema"
COMPILED_BYTES = 16 << 20

# By their text, since definitions are parsed again and again.
_compiled: Kept[bytes, Schema] = Kept(COMPILED_BYTES)


def judging(document: Mapping[str, Any], most: int | None = None) -> Work[list[Problem]]:
    """Return all that is wrong with a schema of objects: it must be cheap to check, too, and to compile as `most` says.

    That is in microseconds, as `compile_cost` tells them.
    """
    found = []
    if document.get("$schema", DIALECT) not in (DIALECT, f"{DIALECT}#"):
        found.append(Problem(("$schema",), f'must be "{DIALECT}"'))
    if document.get("type", "object") != "object":
        found.append(Problem(("type",), 'must be "object"'))
    text = msgspec.json.encode(document)
    yield len(text) // 10
    problems = _dialect().problems(document)
    yield len(text) // 10
    try:
        if not problems:
            yield from compiling(text, most)
    except SchemaError as error:
        found.append(Problem(error.path, error.message))
    return [*found, *problems]


def compiling(text: bytes, most: int | None = None) -> Work[Schema]:
    """Return the schema of a JSON text, compiled. Raises SchemaError."""
    if (known := _compiled.get(text)) is not None:
        _check_cost(known.compile_cost, most)
        return known
    document = msgspec.json.decode(text)
    scale = Scale(document, is_bounded=True)
    yield from scale.weigh()
    _check_cost(scale.compile_cost, most)
    schema = Schema(document, scale)
    _compiled.put(text, schema, scale.bytes + len(text))
    yield scale.compile_cost
    return schema


def _check_cost(cost: int, most: int | None) -> None:
    if most is not None and cost > most:
        raise SchemaError((), "is too costly to compile; repeat less in it")


@cache
def _dialect() -> Schema:
    """Return the schema of schemas."""
    return Schema({"$ref": DIALECT}, dialect())
