"""What the check of a value may take at most, told from the sizes of value and schema before it is done.

The library holds up the process and cannot be stopped. All costs are in nanoseconds, as measured at worst with
jsonschema-rs 0.60.3 on the 2-core machine of the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from service.engine import payload
from service.engine.expressions import regex

BUDGET = 30_000_000
"""What one check may take, and what telling its problems may take once more."""

MAX_TEXT = 30_000
"""What the patterns of a schema may take for one character: beyond, not even a thousand could be checked."""

# A pattern with few positions becomes a table, of which each character takes one step. One with more does not fit, and
# takes time for each position that a match can have come to.
_STEP, _SEARCH, _POSITION = 6, 700, 20
_SMALL, _LARGEST_TABLE = 10, 200
_SPECIAL = frozenset("\\[](){}.*+?^$|")
_LONGEST_PATTERN = 20_000
_FORMAT, _IDN = 30, 250
VERDICT = 80
_ENTRY, _COMPARISON, _DEEP_COMPARISON, _UNIQUE = 100, 30, 600, 150
# Remainders are computed by fractions of numbers as long as they are large.
_WHOLE_REMAINDER, _REMAINDER, _LONG_REMAINDER, _LARGE = 2_000, 6_000, 140_000, 1e15

_ERROR, _COPIED_VALUE, _COPIED_BYTE = 20_000, 300, 2


class Weight(NamedTuple):
    """What a schema may take for one of the values that it looks at."""

    verdicts: int = 0
    """How many there can be on the value; each of them may become an error."""
    value: int = 0
    """Whatever its size."""
    text: int = 0
    """For each character of it."""
    remainders: int = 0
    """How many are computed of it, if it is a number."""
    whole: int = 0
    """For each value inside of it."""

    def plus(self, other: Weight) -> Weight:
        """Return what both take."""
        if other is NOTHING:
            return self
        verdicts, value, text, remainders, whole = other
        return Weight(
            self.verdicts + verdicts,
            self.value + value,
            self.text + text,
            self.remainders + remainders,
            self.whole + whole,
        )

    def times(self, count: int) -> Weight:
        """Return what it takes so often."""
        return self if count == 1 else Weight(*(count * each for each in self))

    def larger(self, other: Weight) -> Weight:
        """Return what neither exceeds."""
        return self if other is NOTHING or other == self else Weight(*map(max, self, other))


NOTHING = Weight()


class Extent(NamedTuple):
    """The sizes of what lies at one depth of a value. Keys count where the values do that they lead to."""

    values: int
    characters: int
    fractions: int
    large: int


def own_weight(schema: Mapping[str, Any], bulk: int) -> Weight:
    """Return what the keywords of a schema take for a value, without the schemas in it; `bulk` are its verdicts."""
    text = pattern_cost(schema["pattern"]) if isinstance(schema.get("pattern"), str) else 0
    if isinstance(form := schema.get("format"), str):
        text += _IDN if form.startswith("idn") else _FORMAT
    entries = sum(len(_mapping(schema.get(name))) for name in ("dependentRequired", "dependentSchemas"))
    value = VERDICT * bulk + _ENTRY * entries + _comparisons(schema)
    divisor = schema.get("multipleOf")
    if isinstance(divisor, float):
        value += _WHOLE_REMAINDER if 1 / _LARGE < divisor < _LARGE else _LONG_REMAINDER
    return Weight(bulk, value, text, int(divisor is not None), _UNIQUE if schema.get("uniqueItems") is True else 0)


def keys_weight(schema: Mapping[str, Any]) -> Weight:
    """Return what patterns take for a key; whether others are left is asked of them once more."""
    patterns = _mapping(schema.get("patternProperties"))
    text = sum(pattern_cost(pattern) for pattern in patterns)
    is_asked_again = not schema.keys().isdisjoint(("additionalProperties", "unevaluatedProperties"))
    return Weight(0, VERDICT * len(patterns), text).times(2 if is_asked_again else 1)


def pattern_cost(pattern: str) -> int:
    """Return what a pattern may take for each character of a text."""
    if _SPECIAL.isdisjoint(pattern):
        return _STEP
    program = regex.program(pattern, _LONGEST_PATTERN)
    is_table = program.positions <= _SMALL or (program.together <= 1 and program.positions <= _LARGEST_TABLE)
    # A boundary of words is found without a table in a text beyond ASCII.
    return _STEP if is_table and "\\b" not in pattern.lower() else _SEARCH + _POSITION * program.together


def program_size(pattern: str) -> int:
    """Return how large a pattern becomes when it is compiled."""
    return regex.program(pattern, _LONGEST_PATTERN).size


def _comparisons(schema: Mapping[str, Any]) -> int:
    """Return what it takes to compare a value with those of `enum` and `const`."""
    options = schema.get("enum")
    found = sum(map(_comparison, options)) if isinstance(options, list) else 0
    return found + (_comparison(schema["const"]) if "const" in schema else 0)


def _comparison(option: Any) -> int:
    return _DEEP_COMPARISON * count(option) if isinstance(option, list | Mapping) else _COMPARISON


def count(value: Any) -> int:
    """Return how many values there are in a value, itself included."""
    return sum(extent.values for extent in extents(value))


def extents(value: Any) -> list[Extent]:
    """Return the sizes of a value, by depth."""
    found = []
    level = [value]
    keys = 0
    while level:
        below: list[Any] = []
        characters, fractions, large, next_keys = keys, 0, 0, 0
        for each in level:
            if isinstance(each, str):
                characters += len(each)
            elif isinstance(each, list):
                below += each
            elif isinstance(each, Mapping):
                next_keys += sum(map(len, each))
                below += each.values()
            elif isinstance(each, float):
                fractions += 1
                large += abs(each) >= _LARGE
        found.append(Extent(len(level), characters, fractions, large))
        level, keys = below, next_keys
    return found


def worst(weights: tuple[Weight, ...]) -> Weight:
    """Return what no depth exceeds."""
    found = NOTHING
    for weight in weights:
        found = found.larger(weight)
    return found


def values_cost(weights: tuple[Weight, ...], sizes: list[Extent]) -> int:
    """Return what the check of a value takes, but for the characters in it."""
    total, cost = sum(extent.values for extent in sizes), 0
    for weight, extent in zip(weights, sizes, strict=False):
        cost += extent.values * weight.value + total * weight.whole
        cost += weight.remainders * (extent.fractions * _REMAINDER + extent.large * _LONG_REMAINDER)
    return cost


def texts_cost(weights: tuple[Weight, ...], sizes: list[Extent]) -> int:
    """Return what the characters in a value take, if the dearest patterns of each depth look at them all."""
    return sum(extent.characters * weight.text for weight, extent in zip(weights, sizes, strict=False))


def largest_cost(weights: tuple[Weight, ...]) -> int:
    """Return what the check of the largest value takes, if all of it lies where that is dearest."""
    most = worst(weights)
    deep = sum(weight.whole for weight in weights)
    numbers = payload.MAX_NODES * most.remainders * (_REMAINDER + _LONG_REMAINDER)
    return payload.MAX_NODES * (most.value + deep) + payload.MAX_PAYLOAD_BYTES * most.text + numbers


def errors_cost(weights: tuple[Weight, ...], sizes: list[Extent], size: int) -> int:
    """Return what it takes to tell all problems of a value of `size` bytes: each carries a copy of what is wrong."""
    total = sum(extent.values for extent in sizes)
    return sum(
        weight.verdicts * (extent.values * _ERROR + total * _COPIED_VALUE + size * _COPIED_BYTE)
        for weight, extent in zip(weights, sizes, strict=False)
    )


def first_error_cost(form: tuple[int, int], size: int, total: int) -> int:
    """Return what it takes to tell the first problem, which carries those of all forms where one of them is wanted.

    The value of it has `size` bytes, and `total` values in it.
    """
    first, below = form
    return (1 + first + below * total) * _ERROR + (1 + first) * (total * _COPIED_VALUE + size * _COPIED_BYTE)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
