"""Bounds on the sizes of values, for the estimate of work in `cost.py`.

A size counts the characters of a value, and 24 for every value in it, keys too: handling a value takes about as long
as handling 24 characters, and a number is written in at most as many.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType, NoneType
from typing import Any, NamedTuple

VALUE = 24


class Extent(NamedTuple):
    """Bounds on a value that is computed once in every round of a scope."""

    size: int  # of the largest one
    total: int  # of all together
    width: int = 0  # most elements in one
    elements: int = 0  # in all together
    item: int = 0  # of the largest element, key or member
    values: Sequence[Any] | None = None  # the values, where they are known
    repeats: int = 1  # rounds that each of `values` stands for

    @property
    def characters(self) -> int:
        """The length of the largest one, when they are strings."""
        return self.size - VALUE

    def part(self, rounds: int) -> Extent:
        """Return the extent of some element or member."""
        total = min(self.total, self.item * rounds)
        return Extent(self.item, total, self.item // VALUE, total // VALUE, self.item)

    def grown(self, factor: int) -> Extent:
        """Return the extent of what may be so many times as large."""
        return Extent(self.size * factor, self.total * factor, self.width, self.elements, self.item * factor)

    def in_rounds(self, rounds: int) -> Extent:
        """Return the extent of the same single value in every one of so many rounds."""
        return self._replace(total=self.size * rounds, elements=self.width * rounds, repeats=rounds)


class Scope(NamedTuple):
    """Where a node is evaluated: how often, inside of how many loops, and what the names there stand for."""

    rounds: int = 1
    depth: int = 0
    names: Mapping[str, tuple[Extent, int]] = MappingProxyType({})

    def bind(self, name: str, extent: Extent) -> Scope:
        return self._replace(names={**self.names, name: (extent, self.depth)})

    def look_up(self, name: str) -> Extent:
        """Return the extent of a name; one of an outer scope may be its largest in every round of this one."""
        extent, depth = self.names[name]
        return extent if depth == self.depth else extent.in_rounds(self.rounds)._replace(values=None)

    def each(self, size: int, width: int = 0, item: int = 0) -> Extent:
        """Return the extent of a value that may be of this size in every round."""
        return Extent(size, size * self.rounds, width, width * self.rounds, item)

    def sum(self, extents: Iterable[Extent]) -> Extent:
        """Return the extent of what is made of all these."""
        size, total, width, elements, item = VALUE, VALUE * self.rounds, 0, 0, 0
        for extent in extents:
            size += extent.size
            total += extent.total
            width += extent.width
            elements += extent.elements
            item = max(item, extent.item)
        return Extent(size, total, width, elements, item)


def known(values: Sequence[Any], repeats: int, limit: int) -> Extent:
    """Return the extent of these values; of the first ones only, once they are over the limit."""
    size = total = width = elements = item = 0
    for value in values:
        one, count, largest = _dimensions(value, limit - total)
        size, width, item = max(size, one), max(width, count), max(item, largest)
        total += one
        elements += count
        if total > limit:
            break
    return Extent(size, total * repeats, width, elements * repeats, item, values, repeats)


def members(values: Sequence[Any], key: str) -> list[Any]:
    """Return what a field of each of these values holds, None where there is none."""
    return [value.get(key) if isinstance(value, Mapping) else None for value in values]


def elements(values: Sequence[Any]) -> list[Any]:
    """Return what a loop over each of these values goes over: elements of lists, keys of maps."""
    return [item for value in values if isinstance(value, list | Mapping) for item in value]


def keys(values: Sequence[Any]) -> list[Any]:
    """Return what the first of two variables is in a loop over each of these values: an index or a key."""
    return [item for value in values for item in (range(len(value)) if isinstance(value, list) else _mapped(value))]


def contents(values: Sequence[Any]) -> list[Any]:
    """Return what the second of two variables is in a loop over each of these values: an element or a value."""
    return [item for value in values for item in (value if isinstance(value, list) else _mapped(value).values())]


def _mapped(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _dimensions(value: Any, limit: int) -> tuple[int, int, int]:
    """Return the size, the number of elements and the size of the largest element or key."""
    if not isinstance(value, list | Mapping):
        return measure(value, limit), 0, 0
    size, largest = VALUE, 0
    inside = value if isinstance(value, list) else [*value, *value.values()]
    for item in inside:
        one = VALUE + len(item) if isinstance(item, str) else measure(item, limit - size)
        size += one
        largest = max(largest, one)
        if size > limit:
            break
    return size, len(value), largest


def measure(value: Any, limit: int) -> int:
    """Return the size of a value. Stops soon after the limit."""
    size, pending = VALUE, [value]
    while pending and size <= limit:
        item = pending.pop()
        if isinstance(item, str):
            size += len(item)
        elif isinstance(item, list):
            size += VALUE * len(item)
            pending += [inside for inside in item if type(inside) not in _PLAIN]
        elif isinstance(item, Mapping):
            size += sum(map(len, item)) + 2 * VALUE * len(item)
            pending += [inside for inside in item.values() if type(inside) not in _PLAIN]
    return size


_PLAIN = frozenset({int, float, bool, NoneType})
