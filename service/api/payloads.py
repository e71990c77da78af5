"""JSON values to messages and back in slices: a payload of the largest size takes as long as a slice may not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.struct_pb2 import Struct, Value

from flowkeep import payload
from service.engine.payload import size
from service.engine.slices import Work

_SMALL = 4_096
"""Bytes of JSON that are converted at a time."""

_ITEMS = 200

_BYTES_A_MICROSECOND = 8
"""Bytes of JSON that are converted in a microsecond, about."""

_READ_A_MICROSECOND, _ITEMS_READ_A_MICROSECOND = 8, 4
"""Bytes of a message, and numbers of a list, that are read in a microsecond."""

_SCALAR = 5
"""Microseconds that a value alone takes, with its key."""


def is_small(value: Any) -> bool:
    """Return whether a value is converted in one go."""
    return size(value) <= _SMALL


def _cost(value: Any) -> int:
    return _SCALAR + (size(value) // _BYTES_A_MICROSECOND if isinstance(value, dict | list) else 0)


def filled_struct(target: Struct, members: Mapping[str, Any]) -> Work[None]:
    """Fill an empty `Struct` with a JSON object. Raises PayloadError for what is no JSON."""
    if is_small(members):
        yield _cost(members)
        target.CopyFrom(payload.to_struct(members))
        return
    for key, item in members.items():
        yield from filled_value(target.fields[key], item)


def filled_value(target: Value, value: Any) -> Work[None]:
    """Fill an empty `Value` with a JSON value. Raises PayloadError for what is no JSON."""
    if not isinstance(value, dict | list) or is_small(value):
        yield _cost(value)
        target.CopyFrom(payload.to_value(value))
    elif isinstance(value, dict):
        target.struct_value.SetInParent()
        yield from filled_struct(target.struct_value, value)
    else:
        for start in range(0, len(value), _ITEMS):
            yield from _extended(target, value[start : start + _ITEMS])


def _extended(target: Value, items: list[Any]) -> Work[None]:
    if is_small(items):
        yield _cost(items)
        target.list_value.values.extend(payload.to_value(items).list_value.values)
        return
    for item in items:
        yield from filled_value(target.list_value.values.add(), item)


def read_struct(struct: Struct) -> Work[dict[str, Any]]:
    """Return what `payload.from_struct` does."""
    if (size := struct.ByteSize()) <= _SMALL:
        yield size // _READ_A_MICROSECOND
        return payload.from_struct(struct)
    members = {}
    for key in sorted(struct.fields):
        members[key] = yield from read_value(struct.fields[key])
    return members


def read_value(value: Value) -> Work[Any]:
    """Return what `payload.from_value` does."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return (yield from read_struct(value.struct_value))
    if kind != "list_value":
        return payload.from_value(value)
    if (size := value.ByteSize()) <= _SMALL:
        yield size // _READ_A_MICROSECOND
        return payload.from_value(value)
    items = []
    for place, item in enumerate(value.list_value.values, start=1):
        if place % _ITEMS == 0:
            yield _ITEMS // _ITEMS_READ_A_MICROSECOND
        items.append((yield from read_value(item)))
    return items
