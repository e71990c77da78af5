"""Messages as the bytes of their fields, so that a large one is never made at once."""

from __future__ import annotations

import asyncio

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from service.wire import varint

_VARINT, _LENGTH = 0, 2
_WITH_LENGTH = (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)

_AT_A_TIME = 64 << 10
"""Bytes that are made before others have their turn."""


def tag(message: type[Message], field: str) -> bytes:
    """Return what stands before the length of a field that is a message or text, and before one that is a number."""
    found = message.DESCRIPTOR.fields_by_name[field]
    return varint(found.number << 3 | (_LENGTH if found.type in _WITH_LENGTH else _VARINT))


class Encoded:
    """The serialized fields of one message, in any order."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._rested = 0
        self.size = 0
        """How many bytes it has."""

    def add(self, fields: Message | bytes | Encoded) -> None:
        """Add the fields that a message of the same kind has."""
        if isinstance(fields, Encoded):
            self._parts += fields._parts
            self.size += fields.size
        else:
            part = fields if isinstance(fields, bytes) else fields.SerializeToString()
            self._parts.append(part)
            self.size += len(part)

    def add_field(self, tag: bytes, content: Message | bytes | Encoded) -> None:
        """Add one field."""
        if isinstance(content, Message):
            content = content.SerializeToString()
        self.add(tag + varint(content.size if isinstance(content, Encoded) else len(content)))
        self.add(content)

    async def rest(self) -> None:
        """Give others their turn, if much was added since they had one."""
        if self.size - self._rested > _AT_A_TIME:
            self._rested = self.size
            await asyncio.sleep(0)

    def serialized(self) -> bytes:
        """Return the message."""
        return b"".join(self._parts)
