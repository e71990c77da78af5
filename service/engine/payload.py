"""The one check of JSON-like values, at every entrance: inputs, params, results of handlers, answers of servers.

What passes it can be kept in Postgres, sent as a protobuf Struct and read back unchanged. The limits on depth and
size lie under those of protobuf (33 nested maps, 50 nested lists) and of one gRPC message (4 MiB); those on
characters are Postgres's, which keeps neither NUL nor half of a surrogate pair.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any

import msgspec

from service.engine.slices import Work
from service.engine.violations import ValidationError, Violation

MAX_DEPTH = 24
# Room for a list of 10,000, the most items of a `for_each`, and what it lies in.
MAX_NODES = 10_240
MAX_PAYLOAD_BYTES = 256 * 1024
MAX_COLLECTED_BYTES = 1024 * 1024
"""Bytes of the outputs of all items together. With a result of as much, they still fit into one message."""
# A Struct carries doubles, in which 2^53 and 2^53 + 1 are one number; the numbers below are told apart.
MAX_INTEGER = 2**53 - 1
# A whole float from here on is no integer of any program that lost its digits, but a float.
_LEAST_FLOAT = 2.0**64
TOO_MANY_VALUES = f"must have at most {MAX_NODES:,} values in all"
NOT_FINITE = "must be a finite number; JSON has no NaN and no infinity"

_MAX_VIOLATIONS = 20
_CONTAINERS: tuple[type[Any], ...] = (dict, list, tuple, set, frozenset)
_KINDS: dict[type[Any], type[Any] | None] = {
    **{plain: plain for plain in _CONTAINERS},
    **dict.fromkeys((str, int, float, bool, NoneType)),
}
_MAX_SHOWN_KEY = 40
_MOST_OF_CHARACTER = 6  # bytes as JSON, where it is escaped

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()

# A value takes about half a microsecond.
_VALUES_AT_A_TIME = 1_000

# Where a value stands: the place of its container and its key there. Written out only for a violation.
_Place = tuple[Any, str | int] | None


def normalise(value: Any, field: str, max_bytes: int = MAX_PAYLOAD_BYTES) -> Any:
    """Return a clean copy of `value`, in which whole floats below 2^64 are ints (2.0 is 2, -0.0 is 0).

    Raises ValidationError with every path that is wrong (at most 20), under `field`.
    """
    rule = _SCALARS.get(type(value))
    if rule is not None and (rule is not _text or _MOST_OF_CHARACTER * len(value) + 2 <= max_bytes):
        try:
            return rule(value)
        except _Refused as error:
            raise ValidationError([Violation(field, str(error))]) from None
    clean, violations = _inspect(value, field, max_bytes)
    if violations:
        raise ValidationError(violations)
    return clean


def normalising(value: Any, field: str) -> Work[Any]:
    """Do what `normalise` does in pieces, for values that may be large."""
    walk = _Walk(field, MAX_PAYLOAD_BYTES)
    yield from walk.run(value)
    clean, violations = walk.found()
    if violations:
        raise ValidationError(violations)
    return clean


def check(value: Any, field: str = "", max_bytes: int = MAX_PAYLOAD_BYTES) -> list[Violation]:
    """Return what `normalise` would refuse; empty when it would accept."""
    return _inspect(value, field, max_bytes)[1]


def first_beyond(items: Sequence[Any], max_bytes: int) -> int | None:
    """Return which item of a list makes it larger than a payload of so many bytes, None when all of them fit."""
    nodes, length = 1, 1
    for index, item in enumerate(items):
        nodes += MAX_NODES - _extent(item)[0]
        length += len(_encoder.encode(item)) + 1
        if nodes > MAX_NODES or length > max_bytes:
            return index
    return None


def is_bounded(value: Any) -> bool:
    """Return whether JSON is within the limits on depth and values, however much more of it there is."""
    left, deeper = _extent(value)
    return left >= 0 and not deeper


def has_too_many_values(value: Any) -> bool:
    """Return whether plain containers hold more values than a payload may, whatever those are."""
    return _extent(value)[0] < 0


def values(value: Any) -> int:
    """Return how many values a payload is made of, itself among them."""
    return MAX_NODES - _extent(value)[0]


def _extent(value: Any) -> tuple[int, bool]:
    """Return how many more values there may be, below 0 if there are too many, and whether it is nested too deep.

    By the methods of the plain types themselves: a subclass is code of anybody.
    """
    left, level = MAX_NODES - 1, [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for each in level:
            plain = _KINDS[type(each)] if type(each) in _KINDS else _container_of(type(each))
            if plain is None:
                continue
            left -= plain.__len__(each)
            if left < 0:
                return left, False
            below.extend(dict.values(each) if plain is dict else plain.__iter__(each))
        if not below:
            return left, False
        level = below
    return left, any(issubclass(type(each), _CONTAINERS) for each in level)


def _container_of(kind: type[Any]) -> type[Any] | None:
    return next((plain for plain in _CONTAINERS if issubclass(kind, plain)), None)


def encode(value: Any) -> bytes:
    """Return the compact JSON of a value that `normalise` returned."""
    return _encoder.encode(value)


def decode(data: bytes | str) -> Any:
    """Return the value of a JSON text, unchecked. Raises ValidationError when it is not JSON."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ValidationError([Violation("", f"is not JSON: {error}")]) from None


def size(value: Any) -> int:
    """Return the bytes of the JSON of a value that `normalise` returned."""
    return len(_encoder.encode(value))


def join_path(field: str, key: str | int) -> str:
    """Return the path of `key` inside `field`: `a.b`, `a[3]`, `a["not a name"]`; long keys are cut."""
    if isinstance(key, int):
        return f"{field}[{key}]"
    shown = key if len(key) <= _MAX_SHOWN_KEY else key[:_MAX_SHOWN_KEY] + "…"
    if shown.isidentifier():
        return f"{field}.{shown}" if field else shown
    # In ASCII and with escapes, so that the path can be printed whatever the key holds.
    return f"{field}[{json.dumps(shown)}]"


def _inspect(value: Any, field: str, max_bytes: int) -> tuple[Any, list[Violation]]:
    walk = _Walk(field, max_bytes)
    for _ in walk.run(value):
        pass
    return walk.found()


class _Refused(Exception):
    """A single value is not allowed; the message says what it must be."""


class _TooMuch(Exception):
    """The whole is over a limit, and the walk need not go on."""


class _Enough(Exception):
    """More violations would help nobody."""


class _Walk:
    """One pass, level by level and without recursion, so that no input can overflow the stack."""

    __slots__ = ("characters", "clean", "field", "max_bytes", "nodes", "pending", "violations")

    def __init__(self, field: str, max_bytes: int) -> None:
        self.field = field
        self.max_bytes = max_bytes
        self.violations: list[Violation] = []
        self.nodes = MAX_NODES - 1
        self.characters = max_bytes
        self.pending: list[tuple[Any, Any, _Place, int]] = []
        self.clean: Any = None

    def found(self) -> tuple[Any, list[Violation]]:
        """Return the clean copy, and what is wrong with it."""
        if not self.violations and (length := len(_encoder.encode(self.clean))) > self.max_bytes:
            text = f"must be at most {self.max_bytes:,} bytes as JSON, but has {length:,}"
            self.violations.append(Violation(self.field, text))
        return self.clean, self.violations

    def run(self, value: Any) -> Work[None]:
        left = self.nodes
        try:
            clean = self.visit(value, None, 1)
            # The list grows while it is read: containers are added behind the one at hand.
            for source, target, place, depth in self.pending:
                if left - self.nodes > _VALUES_AT_A_TIME:
                    yield (left - self.nodes) // 2
                    left = self.nodes
                if type(source) is dict:
                    self.fill_object(source, target, place, depth)
                else:
                    target.extend([self.visit(item, (place, i), depth) for i, item in enumerate(source)])
        except _TooMuch as error:
            self.violations = [Violation(self.field, str(error))]
        except _Enough:
            pass
        else:
            self.clean = clean

    def fill_object(self, source: dict[Any, Any], target: dict[str, Any], place: _Place, depth: int) -> None:
        for key, item in source.items():
            if type(key) is not str:
                self.refuse(place, f"must have strings as keys, not {type(key).__name__}")
                continue
            here = (place, key)
            self.scalar(_text, key, here)
            target[key] = self.visit(item, here, depth)

    def visit(self, item: Any, place: _Place, depth: int) -> Any:
        kind = type(item)
        if kind is dict or kind is list:
            return self.open(item, kind(), place, depth)
        rule = _SCALARS.get(kind)
        if rule is None:
            self.refuse(place, f"must be a JSON value, not {kind.__name__}")
            return None
        return self.scalar(rule, item, place)

    def open(self, source: Any, target: Any, place: _Place, depth: int) -> Any:
        """Count the members before any is looked at: a list of a million costs as little as a short one."""
        if depth > MAX_DEPTH:
            raise _TooMuch(f"must be nested at most {MAX_DEPTH} levels deep")
        self.nodes -= len(source)
        if self.nodes < 0:
            raise _TooMuch(TOO_MANY_VALUES)
        self.pending.append((source, target, place, depth + 1))
        return target

    def scalar(self, rule: Callable[[Any], Any], item: Any, place: _Place) -> Any:
        if type(item) is str:
            self.characters -= len(item)
            if self.characters < 0:
                raise _TooMuch(f"must be at most {self.max_bytes:,} bytes as JSON; its strings alone have more")
        try:
            return rule(item)
        except _Refused as error:
            self.refuse(place, str(error))

    def refuse(self, place: _Place, description: str) -> None:
        self.violations.append(Violation(self.path(place), description))
        if len(self.violations) >= _MAX_VIOLATIONS:
            raise _Enough

    def path(self, place: _Place) -> str:
        keys: list[str | int] = []
        while place is not None:
            place, key = place
            keys.append(key)
        field = self.field
        for key in reversed(keys):
            field = join_path(field, key)
        return field


def _text(value: str) -> str:
    if "\0" in value:
        raise _Refused("must not contain the character NUL (U+0000)")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Refused("must not contain half of a surrogate pair") from None
    return value


def _integer(value: int) -> int:
    if not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise _Refused(f"must be between -{MAX_INTEGER} and {MAX_INTEGER}; send larger numbers as strings")
    return value


def _number(value: float) -> float | int:
    if not math.isfinite(value):
        raise _Refused(NOT_FINITE)
    return _integer(int(value)) if value.is_integer() and abs(value) < _LEAST_FLOAT else value


def _same(value: Any) -> Any:
    return value


_SCALARS: dict[type, Callable[[Any], Any]] = {
    str: _text,
    int: _integer,
    float: _number,
    bool: _same,
    NoneType: _same,
}
