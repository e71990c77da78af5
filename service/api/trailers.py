"""How large texts are in the trailers of a call, in which errors travel; clients refuse larger ones (LIBRARIES G7)."""

from __future__ import annotations

LARGEST = 6 << 10
"""Bytes of message and details as they are sent; what gRPC and proxies add to the trailers needs room, too."""

LARGEST_MESSAGE = 1 << 10
"""Bytes of a message as it is sent, percent-encoded. It travels a second time in the details."""

_CUT = "…"


def encoded_length(text: str) -> int:
    """Return the bytes of a message as gRPC sends it: all but printable ASCII is percent-encoded."""
    return sum(1 if 32 <= byte <= 126 and byte != 37 else 3 for byte in text.encode(errors="replace"))


def details_room(message: str) -> int:
    """Return the bytes that the details of an error may have beside its message; they travel in base64."""
    return (LARGEST - encoded_length(message)) * 3 // 4


def as_message(text: str, room: int = 0) -> str:
    """Return a text as a message that protobuf takes, cut so that as it is sent there is `room` left."""
    return _cut(text, LARGEST_MESSAGE - room, 3)


def as_detail(text: str, most: int) -> str:
    """Return a text for the details: one that protobuf takes, of at most `most` bytes."""
    return _cut(text, most, 1)


def _cut(text: str, most: int, beyond_ascii: int) -> str:
    """Return a text whose bytes come to at most `most`, where one beyond printable ASCII counts so many times."""
    if len(text) <= most and text.isascii() and text.isprintable() and "%" not in text:
        return text
    text = text[: most + 1].encode(errors="replace").decode()
    room, kept = most - len(_CUT.encode()) * beyond_ascii, 0
    for index, character in enumerate(text):
        is_plain = 32 <= ord(character) <= 126 and character != "%"
        most -= 1 if is_plain else len(character.encode()) * beyond_ascii
        room -= 1 if is_plain else len(character.encode()) * beyond_ascii
        if room >= 0:
            kept = index + 1
        if most < 0:
            return text[:kept] + _CUT
    return text
