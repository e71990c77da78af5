"""The schemas in a schema: where each stands, what it weighs by itself, and which of them it looks at values with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import msgspec

from service.engine import schema_charge as charge

Path: TypeAlias = tuple[str | int, ...]

Children: TypeAlias = list[tuple[Path, Any]]
"""Schemas in one, by where they stand in it."""

# What a verdict carries along is copied for each value that fails.
_BYTES_OF_A_VERDICT = 200
# Which members are left is found out by checking all that may have looked at them once more.
_AGAIN = 3

_BELOW_ONE = (
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "items",
    "unevaluatedItems",
    "contains",
)


class SchemaError(ValueError):
    """A document is no schema; `path` says where in it."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path
        self.message = message


class Place:
    """One schema in a schema: its own weight on its value and on the keys in that, and the schemas in it.

    `here` look at the same value; all of `below` may look at one and the same member of it, and each of `apart` at its
    own. What is `here` is checked `factor` times.
    """

    __slots__ = ("apart", "below", "deeper", "factor", "first", "has_forms", "here", "keys", "path", "schema", "value")

    def __init__(self, schema: Mapping[str, Any], path: Path, here: Children) -> None:
        self.schema = schema
        self.path = path
        self.here = here
        self.below = [*_below(schema)]
        self.apart = [*_apart(schema)]
        self.value = charge.own_weight(schema, _bulk(schema))
        self.keys = charge.keys_weight(schema)
        self.has_forms = "anyOf" in schema or "oneOf" in schema
        self.factor = _AGAIN if "unevaluatedProperties" in schema or "unevaluatedItems" in schema else 1
        # Verdicts on the value, and on one at each depth inside of it.
        self.first = self.deeper = 0


def _bulk(schema: Mapping[str, Any]) -> int:
    """Return how many verdicts on a value, or what is as large as so many, the schema itself can give."""
    wanted = [schema.get("required", ()), *members(schema, "dependentRequired").values()]
    carried = [msgspec.json.encode(schema[name]) for name in ("enum", "const", "pattern") if name in schema]
    return (
        1
        + sum(len(each) for each in wanted if isinstance(each, list))
        + (sum(map(len, carried)) // _BYTES_OF_A_VERDICT)
    )


def _below(schema: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    """Yield the schemas that may all look at one and the same member of the value."""
    yield from (((name,), schema[name]) for name in _BELOW_ONE if name in schema)
    for key, child in members(schema, "patternProperties").items():
        yield ("patternProperties", key), child


def _apart(schema: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    """Yield the schemas that look at members of the value, each at its own."""
    for key, child in members(schema, "properties").items():
        yield ("properties", key), child
    for index, child in enumerate(listed(schema, "prefixItems")):
        yield ("prefixItems", index), child


def members(schema: Mapping[str, Any], keyword: str) -> Mapping[str, Any]:
    """Return what stands at a keyword by names, nothing where there is something else."""
    found = schema.get(keyword)
    return found if isinstance(found, Mapping) else {}


def listed(schema: Mapping[str, Any], keyword: str) -> list[Any]:
    """Return the list that stands at a keyword, an empty one where there is something else."""
    found = schema.get(keyword)
    return found if isinstance(found, list) else []
