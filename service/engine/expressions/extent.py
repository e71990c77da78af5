"""Bounds on the sizes of values, for the estimate of work in `cost.py`.

A size counts the characters of a value, and 24 for every value in it, keys too: handling a value takes about as long
as handling 24 characters, and a number is written in at most as many.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType, NoneType
from typing import Any, NamedTuple

VALUE = 24

# By how many values more a container counts as work.
_CONTAINER = 5
# Characters that are only copied for one unit of work.
_COPIED = 4
_PLAIN = frozenset({int, float, bool, NoneType})


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


class Measure(NamedTuple):
    """What there is in a value: values, itself and keys too, containers among these, and characters."""

    values: int
    containers: int = 0
    characters: int = 0
    width: int = 0  # elements or entries
    item: int = 0  # size of the largest element, key or member

    @property
    def size(self) -> int:
        """The size of the value."""
        return VALUE * self.values + self.characters

    def work(self, each: int) -> int:
        """Return the work of what takes so much for each value, and little for characters, which are only copied."""
        return each * (self.values + _CONTAINER * self.containers) + self.characters // _COPIED


_ONE = Measure(1)


class Measures:
    """Measures values, each container once. `take` is told of what is in one before it is looked into: the values, and
    the work of copying the characters of its keys.

    It is told as often as a container is found inside of others or given: that two are one object in this process says
    nothing of the next one, which is to come to the same end.
    """

    def __init__(self, take: Callable[[int, int], None] = lambda values, copying: None) -> None:
        self._take = take
        self._told = self._told_copying = 0
        # By identity, with what was told of each: what is measured lives longer than this.
        self._known: dict[int, tuple[Measure, int, int]] = {}

    def of(self, value: Any) -> Measure:
        """Return the measure of a value; of one that was found before nothing is told."""
        if isinstance(value, str):
            return Measure(1, 0, len(value))
        if type(value) in _PLAIN:
            return _ONE
        if (known := self._known.get(id(value))) is None:
            told, copying = self._told, self._told_copying
            measure = self._measure(value)
            known = measure, self._told - told, self._told_copying - copying
            self._known[id(value)] = known
        return known[0]

    def each(self, value: Any) -> Measure:
        """Return the measure of a value, and tell of it once more if it was found before."""
        if (known := self._known.get(id(value))) is not None:
            self._tell(known[1], known[2])
            return known[0]
        return self.of(value)

    def _tell(self, values: int, copying: int) -> None:
        self._told += values
        self._told_copying += copying
        self._take(values, copying)

    def _measure(self, value: Any) -> Measure:
        names: Collection[str] = ()
        if isinstance(value, list):
            inside: Collection[Any] = value
        elif isinstance(value, Mapping):
            names, inside = value, value.values()
        else:
            return _ONE
        lengths = list(map(len, names))
        values, containers, characters = 1 + len(lengths) + len(inside), 1, sum(lengths)
        self._tell(values + _CONTAINER, characters // _COPIED)
        item = VALUE + max(lengths) if lengths else VALUE if inside else 0
        kinds = set(map(type, inside))
        if not kinds <= _PLAIN:
            for member in inside:
                if type(member) is str:
                    length = len(member)
                    characters += length
                    if VALUE + length > item:
                        item = VALUE + length
                elif type(member) not in _PLAIN:
                    found = self.each(member)
                    values += found.values - 1
                    containers += found.containers
                    characters += found.characters
                    if found.size > item:
                        item = found.size
        return Measure(values, containers, characters, len(inside), item)

    def known(self, values: Sequence[Any], repeats: int) -> Extent:
        """Return the extent of these values."""
        kinds = set(map(type, values))
        if kinds <= _PLAIN:
            return Extent(VALUE if values else 0, VALUE * len(values) * repeats, values=values, repeats=repeats)
        size = total = width = elements = item = 0
        for value in values:
            found = self.of(value)
            one = VALUE * found.values + found.characters
            total += one
            elements += found.width
            if one > size:
                size = one
            if found.width > width:
                width = found.width
            if found.item > item:
                item = found.item
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
