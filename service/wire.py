"""Reads and writes the wire format of protobuf, as far as it is needed without generated classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Value = int | bytes
Fields = dict[int, list[Value]]

_VARINT, _EIGHT_BYTES, _BLOCK = 0, 1, 2


def fields(message: bytes) -> Fields:
    """Return the values of each field number in their order. Raises ValueError when cut off."""
    found: Fields = {}
    at = 0
    while at < len(message):
        key, at = _number(message, at)
        value, at = _value(message, at, key & 7)
        found.setdefault(key >> 3, []).append(value)
    return found


def blocks(message: Fields, number: int) -> list[bytes]:
    """Return the messages, strings or bytes of a field."""
    return [value for value in message.get(number, ()) if isinstance(value, bytes)]


def block(message: Fields, number: int) -> bytes:
    """Return the last message, string or bytes of a field, empty when there is none."""
    return (blocks(message, number) or [b""])[-1]


def text(message: Fields, number: int) -> str:
    """Return a string field, empty when there is none."""
    return block(message, number).decode()


def message(values: Mapping[int, Sequence[Value]]) -> bytes:
    """Return a message of these values: ints as varints, bytes as messages, strings or bytes."""
    parts: list[bytes] = []
    for number, of_field in values.items():
        for value in of_field:
            if isinstance(value, int):
                parts += varint(number << 3 | _VARINT), varint(value)
            else:
                parts += varint(number << 3 | _BLOCK), varint(len(value)), value
    return b"".join(parts)


def varint(number: int) -> bytes:
    """Return a number as protobuf writes it."""
    return _SHORT[number] if 0 <= number < len(_SHORT) else _varint(number)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _value(message: bytes, at: int, kind: int) -> tuple[Value, int]:
    if kind == _VARINT:
        return _number(message, at)
    if kind == _EIGHT_BYTES:
        return message[at : at + 8], at + 8
    if kind != _BLOCK:
        raise ValueError(f"unexpected wire type {kind}")
    length, at = _number(message, at)
    if at + length > len(message):
        raise ValueError("a field is cut off")
    return message[at : at + length], at + length


def _number(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(message):
            raise ValueError("a number is cut off")
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, at


_SHORT = tuple(map(_varint, range(1 << 10)))
"""Most numbers are lengths, of a few bytes."""
