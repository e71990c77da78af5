"""JSON values as Postgres's jsonb takes and gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persistence.errors import PersistenceError


def copied(value: Any) -> Any:
    """Return a deep copy in which tuples are lists and -0.0 is 0.0.

    Raises PersistenceError when the value holds what jsonb refuses: NUL or half of a surrogate pair in a string,
    a number that is not finite, a key that is not a string, anything that is not JSON.
    """
    match value:
        case None | bool() | int():
            return value
        case float():
            if value - value != 0:
                raise PersistenceError(f"{value} is not a JSON number")
            return value + 0.0
        case str():
            return text(value)
        case Mapping():
            return {_key(key): copied(item) for key, item in value.items()}
        case list() | tuple():
            return [copied(item) for item in value]
    raise PersistenceError(f"{type(value).__name__} is not a JSON value")


def same(one: Any, other: Any) -> bool:
    """Return whether two copied values are equal as JSON: `1` and `1.0` are, `1` and `true` are not."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) is isinstance(other, bool) and bool(one == other)


def text(value: str) -> str:
    """Return the string. Raises PersistenceError when Postgres cannot hold it."""
    if "\0" in value:
        raise PersistenceError("a string holds the character NUL")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise PersistenceError("a string holds half of a surrogate pair") from None
    return value


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise PersistenceError(f"{type(key).__name__} is not a JSON key")
    return text(key)
