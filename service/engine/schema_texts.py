"""What the patterns and formats of a schema take for the texts of one value, each at its own place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from service.engine import payload
from service.engine.schema_places import Path, Place

# Of schemas that look at a value; what is left then counts as if the dearest patterns looked at it.
_MOST_VISITS = 10_000

_Seen = list[tuple[Place, int]]
_Schemas = Iterator[tuple[Any, int]]


class Text(NamedTuple):
    """A text in a value: what its patterns take for it in nanoseconds, where it is, and how many characters it has."""

    cost: int
    path: Path
    length: int


class Texts:
    """One walk over a value together with the schemas that look at it. `dearest` is the text that takes most.

    `places` are those in the `root` by their ids, but what lets all pass or looks too deep; `worst` is the most that
    the patterns of all may take for one character.
    """

    def __init__(self, root: Mapping[str, Any], places: Mapping[int, Place], worst: int, value: Any) -> None:
        self._places = places
        self._left = _MOST_VISITS
        self._worst = worst
        self.dearest: Text | None = None
        self.cost = self._of(iter([(root, 1)]), value, ())

    def _of(self, schemas: _Schemas, value: Any, path: Path) -> int:
        if not isinstance(value, str | list | Mapping):
            return 0
        if self._left <= 0:
            return payload.size(value) * self._worst
        seen = self._seen(schemas)
        if self._left < 0:
            return payload.size(value) * self._worst
        if isinstance(value, str):
            return self._text(value, sum(factor * place.value.text for place, factor in seen), path)
        if not seen:
            return 0
        if isinstance(value, list):
            return sum(self._of(_items(seen, index), item, (*path, index)) for index, item in enumerate(value))
        each = sum(factor * place.keys.text for place, factor in seen)
        names = [(place.schema["propertyNames"], factor) for place, factor in seen if "propertyNames" in place.schema]
        cost = 0
        for key, item in value.items():
            cost += self._text(key, each, (*path, key)) + self._of(_members(seen, key), item, (*path, key))
            cost += self._of(iter(names), key, (*path, key)) if names else 0
        return cost

    def _seen(self, schemas: _Schemas) -> _Seen:
        """Return all schemas that look at the same value, and how often."""
        seen: _Seen = []
        pending = [*schemas]
        for schema, factor in pending:  # it grows
            place = self._places.get(id(schema))
            if place is not None:
                seen.append((place, factor))
                pending.extend((child, factor * place.factor) for _, child in place.here)
            if len(seen) > self._left:
                break
        self._left -= len(seen)
        return seen

    def _text(self, text: str, each: int, path: Path) -> int:
        cost = len(text) * each
        if self.dearest is None or cost > self.dearest.cost:
            self.dearest = Text(cost, path, len(text))
        return cost


def _items(seen: _Seen, index: int) -> _Schemas:
    for place, factor in seen:
        first = place.schema.get("prefixItems", ())
        if index < len(first):
            yield first[index], factor
        elif "items" in place.schema:
            yield place.schema["items"], factor
        yield from ((place.schema[name], factor) for name in ("contains", "unevaluatedItems") if name in place.schema)


def _members(seen: _Seen, key: str) -> _Schemas:
    for place, factor in seen:
        known = place.schema.get("properties", {})
        if key in known:
            yield known[key], factor
        elif "additionalProperties" in place.schema:
            yield place.schema["additionalProperties"], factor
        yield from ((schema, factor) for schema in place.schema.get("patternProperties", {}).values())
        if "unevaluatedProperties" in place.schema:
            yield place.schema["unevaluatedProperties"], factor
