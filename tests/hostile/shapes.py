"""FAULTS H2 and H3: payloads that are deep, wide or odd, as bytes of a Struct, and what must become of them."""

from __future__ import annotations

import math
import struct

from google.protobuf.struct_pb2 import Value

from tests.hostile.cases import Case
from tests.integration.calls import LISTS, MAPS, field_bytes, varint

KEPT, REFUSED = "kept", "refused"
"""It comes back as it was sent, bit by bit; or the call is refused and nothing is kept."""
DEEPEST = 24
MOST = 10_240
"""Values of a payload in all."""

DEPTHS = (1, 2, 23, 24, 25, 30, 32, 33, 34, 50, 51, 100, 101, 1_000, 10_000, 100_000)
WIDTHS = (0, 1, 24, 100, 1_000, 5_000, 10_240, 100_000)


def member(key: str, value: bytes) -> bytes:
    """A member of a Struct, of the bytes of its Value."""
    return field_bytes(1, field_bytes(1, key.encode()) + field_bytes(2, value))


def items(values: list[bytes]) -> bytes:
    """A Value that is a list of these."""
    return field_bytes(6, b"".join(field_bytes(1, value) for value in values))


def alike(count: int, value: bytes) -> bytes:
    """A Value that is a list of so many like this."""
    return field_bytes(6, field_bytes(1, value) * count)


def keys(count: int) -> bytes:
    """A Struct of so many keys, each with null."""
    return b"".join(b"\x0a\x0c\x0a\x06%06d\x12\2\x08\0" % each for each in range(count))


def number(value: float) -> bytes:
    """A Value that is a number, whatever its bits."""
    return b"\x11" + struct.pack("<d", value)


def text(value: bytes) -> bytes:
    """A Value that is a string, whatever its bytes."""
    return field_bytes(3, value)


NULL = Value(null_value=0).SerializeToString()  # type: ignore[arg-type]  # the stubs want the enum


def within(depth: int, tags: tuple[int, ...], core: bytes) -> bytes:
    """The core in so many messages inside each other, each with these tags."""
    parts, size = [core], len(core)
    for tag in reversed(tags * depth):
        parts.append(bytes([tag]) + varint(size))
        size += len(parts[-1])
    return b"".join(reversed(parts))


def maps(depth: int) -> bytes:
    """A Struct of so many objects inside each other."""
    return within(depth - 1, MAPS, b"")


def lists(depth: int) -> bytes:
    """A Struct of so many levels, all but the first of them lists."""
    return member("k", within(depth - 2, LISTS, items([]))) if depth > 1 else b""


SHAPES = [
    *(Case(f"{depth} objects", maps(depth), KEPT if depth <= DEEPEST else REFUSED) for depth in DEPTHS),
    *(Case(f"{depth} lists", lists(depth), KEPT if depth <= DEEPEST else REFUSED) for depth in DEPTHS),
    *(Case(f"{n} items", member("k", alike(n, NULL)), KEPT if n < MOST else REFUSED) for n in (*WIDTHS, MOST - 2)),
    *(Case(f"{n} keys", keys(n), KEPT if n < MOST else REFUSED) for n in WIDTHS),
    Case("100,000 lists beside each other", member("k", alike(100_000, items([]))), REFUSED),
    Case("a key of 250,000 characters", member("k" * 250_000, NULL), KEPT),
    Case("a key of 300,000 characters", member("k" * 300_000, NULL), REFUSED),
]

TWICE = [
    Case("a key twice", member("k", number(1)) + member("k", number(2)), {"k": 2}),
    Case("a key 10,000 times", member("k", number(1)) * 10_000 + member("k", number(2)), {"k": 2}),
    Case(
        "a value of two kinds",
        field_bytes(1, field_bytes(1, b"k") + field_bytes(2, number(1) + text(b"a"))),
        {"k": "a"},
    ),
    Case("a value of no kind", member("k", b""), {"k": None}),
    Case("a member without key", field_bytes(1, field_bytes(2, number(1))), {"": 1}),
    Case("a member without value", field_bytes(1, field_bytes(1, b"k")), {"k": None}),
]
"""Payloads that are written in another way than they are read."""

_SIGNALLING = struct.unpack("<d", b"\x01\0\0\0\0\0\xf0\x7f")[0]

NUMBERS = [
    *(
        Case(name, number(value), KEPT)
        for name, value in {
            "0": 0.0,
            "5e-324": 5e-324,
            "-2.2250738585072014e-308": -2.2250738585072014e-308,
            "0.1": 0.1,
            "1.7976931348623157e308": 1.7976931348623157e308,
            "2^53-1": 2.0**53 - 1,
            "-(2^53-1)": 1 - 2.0**53,
            "2^64": 2.0**64,
            "1e300": 1e300,
        }.items()
    ),
    Case("-0", number(-0.0), {"k": 0, "l": [0, [0]]}),  # what jsonb keeps
    *(
        Case(name, number(value), REFUSED)
        for name, value in {
            "NaN": math.nan,
            "-NaN": -math.nan,
            "a signalling NaN": _SIGNALLING,
            "Infinity": math.inf,
            "-Infinity": -math.inf,
            "1e400": float("1e400"),
            "2^53": 2.0**53,
            "-2^53": -(2.0**53),
            "2^53+2": 2.0**53 + 2,
            "2^63": 2.0**63,
            "-2^63": -(2.0**63),
        }.items()
    ),
]

TEXTS = [
    *(
        Case(name, value.encode(), KEPT)
        for name, value in {
            "BOM": "\ufeffa\ufeff",
            "bidi": "\u202egnp.exe\u202c \u2066a\u2069",
            "NFC": "\u00e9",
            "NFD": "e\u0301",
            "4 bytes": "\U0001f600\U00020000",
            "the last character": "\U0010ffff",
            "no characters": "\ufffe\uffff\ufdd0",
            "controls": "\x01\x1f\x7f\x85\u2028\u2029",
            "zero width": "a\u200d\u200bb",
            "an escaped NUL": "\\u0000",
            "an escaped surrogate": "\\ud800",
            "a template": "${ input.k } $${ }",
            "SQL": "'; DROP TABLE executions; --",
            "formats": "%s%n{0.__class__}",
            "lines": "a\r\nb",
        }.items()
    ),
    *(
        Case(name, value, REFUSED)
        for name, value in {
            "NUL": b"a\0b",
            "half a surrogate pair": b"\xed\xa0\x80",
            "a surrogate pair": b"\xed\xa0\xbd\xed\xb8\x80",
            "an overlong NUL": b"\xc0\x80",
            "beyond the last character": b"\xf4\x90\x80\x80",
            "Latin-1": b"\xe9",
            "a cut character": b"a\xe2\x82",
        }.items()
    ),
]
