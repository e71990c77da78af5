"""How JSON values differ, as a JSON Patch (RFC 6902): made in pieces, and never more than what it says of the whole.

Not by a library: what those do with two lists may take the square of their lengths, all at once, and some take true
for 1. Here each value is looked at about once.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from persistence.model import Json
from service.engine.slices import Work, parts

Patch: TypeAlias = list[dict[str, Any]]
"""Operations `add`, `remove` and `replace`, which are applied in their order."""

_VALUE = 16
"""What a value weighs beside its text, and so does the name of a member: as many bytes as either takes in an answer."""


def patching(old: Json, new: Json) -> Work[Patch]:
    """Return what makes `new` of `old`, nothing where they are equal.

    Where that would weigh more than `new`, the whole is replaced.
    """
    made = _Patch((yield from weighing(new)))
    left: list[tuple[Any, Any, _Place]] = [(old, new, _ROOT)]
    while left and not made.is_too_large:
        before, after, place = left.pop()
        if isinstance(before, dict) and isinstance(after, dict):
            for names in parts(list(before)):
                for name in names:
                    if name in after:
                        left.append((before[name], after[name], place.member(name)))
                    else:
                        made.remove(place.member(name))
                yield len(names)
            for names in parts([name for name in after if name not in before]):
                for name in names:
                    yield from made.put("add", place.member(name), after[name])
                yield len(names)
        elif isinstance(before, list) and isinstance(after, list):
            left += yield from _compare_lists(made, before, after, place)
        elif not _is_same(before, after):
            yield from made.put("replace", place, after)
        else:
            yield 1
    return [{"op": "replace", "path": "", "value": new}] if made.is_too_large else made.operations


def weighing(value: Any) -> Work[int]:
    """Return about how many bytes a value takes in an answer."""
    weight, level = 0, [value]
    while level:
        below: list[Any] = []
        for some in parts(level):
            for each in some:
                weight += _VALUE
                if isinstance(each, str):
                    weight += _length(each)
                elif isinstance(each, dict):
                    weight += sum(_VALUE + _length(name) for name in each)
                    below.extend(each.values())
                elif isinstance(each, list):
                    below.extend(each)
            yield len(some)
        level = below
    return weight


class _Place:
    """Where a value stands. It is written as a pointer only where it is told of: a name in it may be long."""

    __slots__ = ("_above", "_name", "length")

    def __init__(self, above: _Place | None, name: str) -> None:
        self._above = above
        self._name = name
        self.length: int = above.length + 1 + _length(name) if above else 0

    def member(self, name: str) -> _Place:
        return _Place(self, name.replace("~", "~0").replace("/", "~1"))

    def item(self, index: int) -> _Place:
        return _Place(self, str(index))

    def pointer(self) -> str:
        names, at = list[str](), self
        while at._above is not None:
            names.append(at._name)
            at = at._above
        return "".join(f"/{name}" for name in reversed(names))


class _Patch:
    """Operations that are gathered while they weigh no more than the whole."""

    def __init__(self, whole: int) -> None:
        self._left = whole + 4 * _VALUE  # what the replacement of the whole has beside its value
        self.operations: Patch = []

    @property
    def is_too_large(self) -> bool:
        return self._left < 0

    def remove(self, place: _Place) -> None:
        if self._has_room(place):
            self.operations.append({"op": "remove", "path": place.pointer()})

    def put(self, op: str, place: _Place, value: Any) -> Work[None]:
        if self._has_room(place):
            self._left -= yield from weighing(value)
            self.operations.append({"op": op, "path": place.pointer(), "value": value})

    def _has_room(self, place: _Place) -> bool:
        if self._left >= 0:
            self._left -= 3 * _VALUE + place.length
        return self._left >= 0


_ROOT = _Place(None, "")


def _compare_lists(
    made: _Patch, before: list[Any], after: list[Any], place: _Place
) -> Work[list[tuple[Any, Any, _Place]]]:
    """Add and remove what one list has more, before what both have alike at their ends; return what is left to compare.

    What is added or removed stands behind all that is left, and so moves none of it.
    """
    first, shorter, tail = 0, min(len(before), len(after)), 0
    if len(before) != len(after):
        while first < shorter and (yield from _comparing(before[first], after[first])):
            first += 1
        while tail < shorter - first and (yield from _comparing(before[-1 - tail], after[-1 - tail])):
            tail += 1
    end = shorter - tail
    for index in range(len(before) - tail - 1, end - 1, -1):
        made.remove(place.item(index))
    yield abs(len(before) - len(after))
    for index in range(end, len(after) - tail):
        yield from made.put("add", place.item(index), after[index])
    return [(before[index], after[index], place.item(index)) for index in range(first, end)]


def _comparing(one: Any, other: Any) -> Work[bool]:
    left = [(one, other)]
    while left:
        one, other = left.pop()
        yield 1
        if isinstance(one, dict) and isinstance(other, dict):
            if one.keys() != other.keys():
                return False
            left += [(one[name], other[name]) for name in one]
        elif isinstance(one, list) and isinstance(other, list):
            if len(one) != len(other):
                return False
            left += zip(one, other, strict=True)
        elif not _is_same(one, other):
            return False
    return True


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values, one of which at least is a leaf, are equal in JSON: there 1 is 1.0, and true is not 1."""
    return isinstance(one, bool) is isinstance(other, bool) and bool(one == other)


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="replace"))
