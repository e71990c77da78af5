"""JSON values as the bytes of protobuf's `Value` and `Struct`, without the messages: they cost half as much again."""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct as Format
from typing import Any

from flowkeep import payload
from service.wire import varint

# What stands before the content of a Value, or is it; then the tags in Struct and its entries, and in ListValue.
_NUMBER, _TEXT, _OBJECT, _LIST = 0x11, b"\x1a", b"\x2a", b"\x32"
_NULL, _FALSE, _TRUE = b"\x08\x00", b"\x20\x00", b"\x20\x01"
_MEMBER, _KEY, _HELD, _ITEM = b"\x0a", b"\x0a", b"\x12", b"\x0a"

_number = Format("<Bd").pack

_MAX_DEPTH = 32
"""Levels that are written here; nothing that is kept has as many."""


def value_bytes(value: Any) -> bytes:
    """Return the bytes of what `payload.to_value` gives, as `deterministic`. Raises PayloadError as that does."""
    try:
        return _value(value, _MAX_DEPTH)
    except _UnfitError:
        return payload.to_value(value).SerializeToString(deterministic=True)


def struct_bytes(members: Mapping[str, Any]) -> bytes:
    """Return the bytes of what `payload.to_struct` gives, as `deterministic`. Raises PayloadError as that does."""
    try:
        return _members(members, _MAX_DEPTH)
    except _UnfitError:
        return payload.to_struct(members).SerializeToString(deterministic=True)


class _UnfitError(Exception):
    """There is something that is not plain JSON, or no message can hold; `payload` says what, or knows how."""


def _value(value: Any, levels: int) -> bytes:
    kind = type(value)
    if kind is str:
        text = _text(value)
        return b"%b%b%b" % (_TEXT, varint(len(text)), text)
    if kind is int or kind is float:
        if not -payload.MAX_WHOLE_NUMBER <= value <= payload.MAX_WHOLE_NUMBER:  # NaN is not within, either
            raise _UnfitError
        return _number(_NUMBER, value + 0.0)
    if kind is bool:
        return _TRUE if value else _FALSE
    if value is None:
        return _NULL
    if levels and kind is dict:
        content = _members(value, levels - 1)
        return b"%b%b%b" % (_OBJECT, varint(len(content)), content)
    if levels and kind is list:
        written = [_value(item, levels - 1) for item in value]
        content = b"".join([b"%b%b%b" % (_ITEM, varint(len(item)), item) for item in written])
        return b"%b%b%b" % (_LIST, varint(len(content)), content)
    raise _UnfitError


def _members(members: Mapping[str, Any], levels: int) -> bytes:
    try:
        names = sorted(members)
        if any(map(str.startswith, names[1:], names)):
            # As protobuf has them, so that equal payloads have one digest: before a key those that begin with it.
            names.sort(key=lambda name: name.encode() + b"\xff")
    except (TypeError, UnicodeEncodeError):  # some are no strings, or no text
        raise _UnfitError from None
    parts = []
    for name in names:
        key, held = _text(name), _value(members[name], levels)
        entry = b"%b%b%b%b%b%b" % (_KEY, varint(len(key)), key, _HELD, varint(len(held)), held)
        parts.append(b"%b%b%b" % (_MEMBER, varint(len(entry)), entry))
    return b"".join(parts)


def _text(text: str) -> bytes:
    try:
        written = text.encode()
    except (UnicodeEncodeError, AttributeError):
        raise _UnfitError from None
    if b"\0" in written:
        raise _UnfitError
    return written
