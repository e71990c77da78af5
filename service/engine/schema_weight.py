"""How much work a schema of unknown origin may make: some few lines of references cost hours to check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any
from urllib.parse import unquote

import msgspec

from service.engine.payload import MAX_DEPTH
from service.engine.schema import Path, SchemaError

MAX_WEIGHT = 1000
# One may take 10 ms to compile.
MAX_PATTERNS = 50

# What a verdict carries along is copied for each value that fails.
_BYTES_OF_A_VERDICT = 200

_HERE_ONE = ("not", "if", "then", "else")
_HERE_MANY = ("allOf", "anyOf", "oneOf")
_BELOW_ONE = (
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "items",
    "unevaluatedItems",
    "contains",
)
_REFERENCE = '"#" or a pointer such as "#/$defs/address"'
_REFUSED = ("$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef")


def weigh(document: Mapping[str, Any]) -> int:
    """Return how many verdicts a check can give on one and the same value, or raise SchemaError beyond the limits.

    The document must be a valid schema but for its references.
    """
    scale = _Scale(document)
    by_depth = (scale.weigh(document, (), depth) for depth in range(MAX_DEPTH + 1))
    try:
        weight = max(takewhile(bool, by_depth))  # nothing looks deeper than where nothing looks
    except RecursionError:
        raise SchemaError((), "its references follow each other too far") from None
    if scale.patterns > MAX_PATTERNS:
        raise SchemaError((), f"has {scale.patterns} patterns; at most {MAX_PATTERNS} are allowed")
    return weight


class _Scale:
    """Weighs each schema once per depth; the depth counts how far below the root the value lies.

    A schema that refers to itself is unrolled as deep as payloads may be nested, and no further.
    """

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._known: dict[tuple[int, int], int] = {}
        self._open: set[tuple[int, int]] = set()
        self.patterns = 0

    def weigh(self, schema: Any, path: Path, depth: int) -> int:
        """Return the weight on one value `depth` levels below the value that `schema` is for."""
        if not isinstance(schema, Mapping):
            return 0 if depth else 1
        key = (id(schema), depth)
        if key in self._open:
            raise SchemaError(path, "refers to itself without going deeper into the value")
        if key not in self._known:
            self._open.add(key)
            self._known[key] = self._sum(schema, path, depth)
            self._open.remove(key)
        if self._known[key] > MAX_WEIGHT:
            raise SchemaError(path, f"is too costly: one value could take over {MAX_WEIGHT:,} comparisons")
        return self._known[key]

    def _sum(self, schema: Mapping[str, Any], path: Path, depth: int) -> int:
        if depth == 0:
            self._inspect(schema, path)
        weight = 0 if depth else _bulk(schema)
        weight += sum(self.weigh(child, (*path, *at), depth) for at, child in self._here(schema, path))
        if depth:
            weight += sum(self.weigh(child, (*path, *at), depth - 1) for at, child in _below(schema))
            weight += max((self.weigh(c, (*path, *at), depth - 1) for at, c in _apart(schema)), default=0)
        return weight

    def _inspect(self, schema: Mapping[str, Any], path: Path) -> None:
        self.patterns += ("pattern" in schema) + len(_members(schema, "patternProperties"))
        for keyword in _REFUSED:
            if keyword in schema and (path or keyword != "$id"):
                raise SchemaError((*path, keyword), f"is not supported; refer by {_REFERENCE}")

    def _here(self, schema: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, Any]]:
        """Yield the schemas that look at the same value."""
        yield from (((name,), schema[name]) for name in _HERE_ONE if name in schema)
        for name in _HERE_MANY:
            yield from (((name, index), child) for index, child in enumerate(_listed(schema, name)))
        for key, child in _members(schema, "dependentSchemas").items():
            yield ("dependentSchemas", key), child
        if "$ref" in schema:
            yield ("$ref",), self._target(schema["$ref"], (*path, "$ref"))

    def _target(self, reference: Any, path: Path) -> Any:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise SchemaError(path, f"must lead into the schema itself, by {_REFERENCE}")
        place: Any = self._root
        for part in unquote(reference).split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            try:
                place = place[int(name) if isinstance(place, list) else name]
            except (KeyError, IndexError, ValueError, TypeError):
                raise SchemaError(path, f"leads nowhere: {reference} does not exist in the schema") from None
        return place


def _bulk(schema: Mapping[str, Any]) -> int:
    """Return how many verdicts on a value, or what is as large as so many, the schema itself can give."""
    wanted = [schema.get("required", ()), *_members(schema, "dependentRequired").values()]
    carried = [msgspec.json.encode(schema[name]) for name in ("enum", "const", "pattern") if name in schema]
    return 1 + sum(map(len, wanted)) + sum(map(len, carried)) // _BYTES_OF_A_VERDICT


def _below(schema: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    """Yield the schemas that may all look at one and the same member of the value."""
    yield from (((name,), schema[name]) for name in _BELOW_ONE if name in schema)
    for key, child in _members(schema, "patternProperties").items():
        yield ("patternProperties", key), child


def _apart(schema: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    """Yield the schemas that look at members of the value, each at its own."""
    for key, child in _members(schema, "properties").items():
        yield ("properties", key), child
    for index, child in enumerate(_listed(schema, "prefixItems")):
        yield ("prefixItems", index), child


def _members(schema: Mapping[str, Any], keyword: str) -> Mapping[str, Any]:
    found = schema.get(keyword)
    return found if isinstance(found, Mapping) else {}


def _listed(schema: Mapping[str, Any], keyword: str) -> list[Any]:
    found = schema.get(keyword)
    return found if isinstance(found, list) else []
