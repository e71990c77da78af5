"""JSON values to protobuf's `Struct` and `Value`, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value

from flowkeep.errors import PayloadError

MAX_WHOLE_NUMBER = 2**53
"""Numbers travel as doubles, which hold every whole number only up to here."""

# Protobuf refuses messages nested more than 100 deep, and a level of JSON takes three of them. It also ends a value
# that contains itself. The service's own limit is lower, and is checked by the service.
_MAX_DEPTH = 32


def to_struct(mapping: Mapping[str, Any], path: str = "") -> Struct:
    """Return a JSON object as a `Struct`.

    Raises PayloadError, with the path below `path`, for what JSON or a double cannot hold: NaN, infinity, whole numbers
    beyond 2^53 (send them as strings), keys that are not strings, types without a JSON form.
    """
    if not isinstance(mapping, Mapping):
        raise PayloadError(path, f"must be an object, not {_kind(mapping)}")
    struct = Struct()
    _fill_struct(struct, mapping, path, 1)
    return struct


def to_value(value: Any, path: str = "") -> Value:
    """Return a JSON value as a `Value`. Raises PayloadError as `to_struct` does."""
    message = Value()
    _fill_value(message, value, path, 1)
    return message


def from_struct(struct: Struct) -> dict[str, Any]:
    """Return a `Struct` as a dict. Whole numbers up to 2^53 come out as int, others as float."""
    return {key: from_value(value) for key, value in struct.fields.items()}


def from_value(value: Value) -> Any:
    """Return a `Value` as plain Python, as `from_struct` does. A value that is not set is None."""
    match value.WhichOneof("kind"):
        case "struct_value":
            return from_struct(value.struct_value)
        case "list_value":
            return [from_value(item) for item in value.list_value.values]
        case "number_value":
            return _number(value.number_value)
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None


def member(path: str, key: str) -> str:
    """Return the path of a key below a path, in the form that the service uses: `params.url`, `metadata["a b"]`."""
    if not key.isidentifier():
        return f'{path}["{key}"]'
    return f"{path}.{key}" if path else key


def _number(number: float) -> int | float:
    return int(number) if number.is_integer() and abs(number) <= MAX_WHOLE_NUMBER else number


def _fill_struct(struct: Struct, mapping: Mapping[Any, Any], path: str, depth: int) -> None:
    for key, value in mapping.items():
        if not isinstance(key, str):
            raise PayloadError(path, f"keys must be strings: put {key!r} in quotes")
        _check_text(key, path)
        _fill_value(struct.fields[key], value, member(path, key), depth + 1)


def _fill_list(target: ListValue, items: list[Any] | tuple[Any, ...], path: str, depth: int) -> None:
    for index, item in enumerate(items):
        _fill_value(target.values.add(), item, f"{path}[{index}]", depth + 1)


def _fill_value(target: Value, value: Any, path: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise PayloadError(path, f"must not be nested more than {_MAX_DEPTH} deep, or contain itself")
    match value:
        case None:
            target.null_value = NULL_VALUE
        case bool():
            target.bool_value = value
        case int() | float():
            target.number_value = _checked_number(value, path)
        case str():
            target.string_value = _check_text(value, path)
        case Mapping():
            target.struct_value.SetInParent()  # else an empty object would be no value at all
            _fill_struct(target.struct_value, value, path, depth)
        case list() | tuple():
            target.list_value.SetInParent()
            _fill_list(target.list_value, value, path, depth)
        case _:
            raise PayloadError(path, f"must be a JSON value, not {_kind(value)}: send it as a string")


def _checked_number(number: int | float, path: str) -> float:
    if isinstance(number, float) and not math.isfinite(number):
        raise PayloadError(path, f"must be a finite number, not {number}")
    if abs(number) > MAX_WHOLE_NUMBER:
        # A double this large is always whole, so that the service cannot tell it from an integer that lost digits.
        raise PayloadError(path, "must not be beyond 2^53, or digits would be lost: send it as a string")
    return float(number)


def _check_text(text: str, path: str) -> str:
    if "\0" in text:
        raise PayloadError(path, "must not contain the NUL character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise PayloadError(path, "must be valid Unicode, without lone surrogates") from None
    return text


def _kind(value: object) -> str:
    return f"a value of type {type(value).__name__}"
