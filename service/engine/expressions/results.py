"""Results of the library in the terms of JSON."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import Any

from service.engine import durations
from service.engine.expressions import numbers
from service.engine.expressions.errors import ExpressionError
from service.engine.payload import MAX_INTEGER


def plain(value: Any) -> Any:
    """Return a result in Python's terms, keys sorted (LIBRARIES C4). Raises ExpressionError for what is not JSON."""
    return value if type(value) in _SIMPLE else _plain(value)


def arguments(values: list[Any]) -> list[Any]:
    """Return a list of what `format` is to put into its template."""
    return [written(value) for value in values]


def written(value: Any) -> Any:
    """Return what `format` is to put into its template for a value: a whole number as an int.

    What is inside of a list or map can only be written as text, and its numbers are text already.
    """
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < MAX_INTEGER else value
    return _shown(value)


def keys(value: dict[Any, Any]) -> list[Any]:
    """Return the keys of a map in their order; those of different types by the names of these."""
    return sorted(value, key=lambda key: (type(key).__name__, key))


def distinct(value: dict[Any, Any], size: int) -> bool:
    """Return True for a map of so many entries, or raise ValueError when Python takes some of its keys for equal."""
    if len(value) != size:
        raise ValueError("builds a map with keys that differ in their types only, as true and 1 do")
    return True


def zone(name: str) -> str:
    """Return a time zone, or raise ValueError if it need not be the same on every machine: a local one, or a file."""
    if not _ZONE.fullmatch(name) or not _LOCAL.isdisjoint(name.split("/")):
        raise ValueError('reads a time zone that is none; write "Europe/Berlin" or "+02:00"')
    return name


def indexes(value: list[Any]) -> list[int]:
    """Return the indexes of a list."""
    return list(range(len(value)))


def pieces(size: int) -> list[list[int]]:
    """Return the indexes of a list of this size in pieces of 32."""
    return [list(range(first, min(first + PIECE, size))) for first in range(0, size, PIECE)]


def span(text: str) -> str:
    """Return a span of time as the library reads it: in seconds. What is no span stays, for the library to judge."""
    sign = "-" if text.startswith("-") else ""
    try:
        nanos = durations.nanoseconds(text.removeprefix(sign))
    except ValueError:
        return text
    return f"{sign}{nanos // 10**9}.{nanos % 10**9:09}s"


def _shown(value: Any) -> Any:
    match value:
        case bool() | None | int() | str() | bytes() | bytearray():
            return value
        case float():
            return numbers.text(value)
        case list():
            return [_shown(item) for item in value]
        case dict():
            return {key: _shown(item) for key, item in value.items()}
        case datetime.datetime() | datetime.timedelta():
            return _plain(value)
    raise ValueError("cannot be written by format")


def _plain(value: Any) -> Any:
    convert = _CONVERSIONS.get(type(value))
    if convert is None:
        # A type (`type(1)`), for one.
        raise ExpressionError("gives something that is not a JSON value")
    return convert(value)


def _plain_map(value: dict[Any, Any]) -> dict[str, Any]:
    for key in value:
        if type(key) is not str:
            raise ExpressionError("gives a map with keys that are not strings, which is not a JSON value")
    return {key: _plain(value[key]) for key in sorted(value)}


def _refuse_bytes(_: Any) -> Any:
    raise ExpressionError("gives bytes, which are not a JSON value; use string(…) or base64.encode(…)")


def _timestamp(value: datetime.datetime) -> str:
    text = value.astimezone(datetime.UTC).replace(tzinfo=None).isoformat()
    return (text.rstrip("0") if "." in text else text) + "Z"


def _duration(value: datetime.timedelta) -> str:
    micros = value // datetime.timedelta(microseconds=1)
    seconds, fraction = divmod(abs(micros), 1_000_000)
    text = f"{seconds}.{fraction:06}".rstrip("0").rstrip(".")
    return f"{'-' if micros < 0 else ''}{text}s"


def _same(value: Any) -> Any:
    return value


# Of the tz database, a difference to UTC, or UTC itself.
_LOCAL = frozenset({"localtime", "posixrules"})
_ZONE = re.compile(r"[A-Za-z][\w+-]*(?:/[A-Za-z][\w+-]*)*|[+-]?\d{1,2}:\d\d|", re.ASCII)
PIECE = 32
"""Elements of a piece of a list that is built in pieces."""
_SIMPLE: frozenset[type] = frozenset({str, int, float, bool, type(None)})
_CONVERSIONS: dict[type, Callable[[Any], Any]] = {
    **dict.fromkeys(_SIMPLE, _same),
    list: lambda value: [_plain(item) for item in value],
    dict: _plain_map,
    bytes: _refuse_bytes,
    bytearray: _refuse_bytes,
    datetime.datetime: _timestamp,
    datetime.timedelta: _duration,
}
