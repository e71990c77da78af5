"""JSON values to protobuf's `Struct` and `Value`, and back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value

from flowkeep.arguments import kind
from flowkeep.errors import PayloadError

MAX_WHOLE_NUMBER = 2**53
"""Numbers travel as doubles, which hold every whole number only up to here."""

# A whole float from here on is no integer of 64 bits that lost its digits, but a float, such as 6.02e23.
_LEAST_FLOAT = 2.0**64

# Protobuf refuses messages nested more than 100 deep, and a level of JSON takes three of them. It also ends a value
# that contains itself. The service's own limit is lower, and is checked by the service.
_MAX_DEPTH = 32


class Dataclass(Protocol):
    """An instance of a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class Model(Protocol):
    """A pydantic model, or what dumps itself as one does."""

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """Return the fields; in the mode `json` as JSON values."""
        ...


Input = Mapping[str, Any] | Dataclass | Model
"""A JSON object: a mapping, or an instance of a dataclass or a pydantic model with such fields."""


def to_struct(mapping: Input, path: str = "") -> Struct:
    """Return a JSON object as a `Struct`. Dataclasses and pydantic models are objects, also as values in it.

    Raises PayloadError, with the path below `path`, for what JSON or a double cannot hold: NaN, infinity, whole numbers
    beyond 2^53 (send them as strings; floats from 2^64 on are floats), keys that are not strings, types without a JSON
    form.
    """
    struct = Struct()
    try:
        members = _members(mapping)
        if members is None:
            raise _UnfitError(f"must be an object, not {kind(mapping)}")
        _fill_struct(struct, members, 1)
    except _UnfitError as error:
        raise error.at(path) from None
    return struct


def to_value(value: Any, path: str = "") -> Value:
    """Return a JSON value as a `Value`. Raises PayloadError as `to_struct` does."""
    message = Value()
    try:
        _fill_value(message, value, 1)
    except _UnfitError as error:
        raise error.at(path) from None
    return message


def from_struct(struct: Struct) -> dict[str, Any]:
    """Return a `Struct` as a dict. Whole numbers up to 2^53 come out as int, others as float.

    Keys come in the order of the alphabet: protobuf keeps none, and gives another one each time.
    """
    return {key: from_value(struct.fields[key]) for key in sorted(struct.fields)}


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
    """Return the path of a key below a path, in the form that the service uses: `params.url`, `labels["a b"]`."""
    if not key.isidentifier():
        return f'{path}["{key}"]'
    return f"{path}.{key}" if path else key


def _number(number: float) -> int | float:
    return int(number) if number.is_integer() and abs(number) <= MAX_WHOLE_NUMBER else number


class _UnfitError(Exception):
    """What is wrong with a value. Its place is gathered on the way out, so that sound values pay nothing for it."""

    def __init__(self, description: str) -> None:
        self.description = description
        self.places: list[str | int] = []

    def at(self, path: str) -> PayloadError:
        for place in reversed(self.places):
            path = f"{path}[{place}]" if isinstance(place, int) else member(path, place)
        return PayloadError(path, self.description)


def _fill_struct(struct: Struct, mapping: Mapping[Any, Any], depth: int) -> None:
    fields = struct.fields
    for key, value in mapping.items():
        if not isinstance(key, str):
            raise _UnfitError(f"keys must be strings: put {key!r} in quotes")
        try:
            _fill_value(fields[_checked_text(key)], value, depth + 1)
        except _UnfitError as error:
            error.places.append(key)
            raise


def _fill_list(target: ListValue, items: list[Any] | tuple[Any, ...], depth: int) -> None:
    add = target.values.add
    for index, item in enumerate(items):
        try:
            _fill_value(add(), item, depth + 1)
        except _UnfitError as error:
            error.places.append(index)
            raise


def _fill_value(target: Value, value: Any, depth: int) -> None:
    if isinstance(value, str):
        target.string_value = _checked_text(value)
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int | float):
        target.number_value = _checked_number(value)
    elif value is None:
        target.null_value = NULL_VALUE
    elif depth > _MAX_DEPTH:
        raise _UnfitError(f"must not be nested more than {_MAX_DEPTH} deep, or contain itself")
    elif isinstance(value, list | tuple):
        target.list_value.SetInParent()
        _fill_list(target.list_value, value, depth)
    elif (members := _members(value)) is not None:
        target.struct_value.SetInParent()  # else an empty object would be no value at all
        _fill_struct(target.struct_value, members, depth)
    else:
        raise _UnfitError(f"must be a JSON value, not {kind(value)}: send it as a string")


def _members(value: object) -> Mapping[Any, Any] | None:
    """Return the members of what is an object in JSON, None for anything else."""
    if isinstance(value, dict | Mapping):
        return value
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if callable(dump := getattr(value, "model_dump", None)):
        try:
            dumped: dict[str, Any] = dump(mode="json")
        except ValueError as error:
            raise _UnfitError(f"cannot be written as JSON: {error}") from None
        return dumped
    return None


def _checked_number(number: int | float) -> float:
    if -MAX_WHOLE_NUMBER <= number <= MAX_WHOLE_NUMBER:
        return float(number) + 0.0  # -0.0 is 0, as everywhere in JSON that Postgres keeps
    if isinstance(number, float):
        if not math.isfinite(number):
            raise _UnfitError(f"must be a finite number, not {number}")
        if abs(number) >= _LEAST_FLOAT:
            return number
    # A double this large is always whole, so that the service cannot tell it from an integer that lost digits.
    raise _UnfitError("must not be beyond 2^53, or digits would be lost: send it as a string")


def _checked_text(text: str) -> str:
    if "\0" in text:
        raise _UnfitError("must not contain the NUL character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _UnfitError("must be valid Unicode, without lone surrogates") from None
    return text
