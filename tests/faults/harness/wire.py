"""As much of Postgres's wire protocol as tells what a connection is doing and when its statement has been executed."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

STARTUP = 196_608
READY = "Z"
_NEGOTIATIONS = frozenset({80_877_103, 80_877_104})  # SSL, GSS: answered by one bare byte
_LONGEST_TEXT = 1 << 20
_WRITES = re.compile(r"\b(INSERT|UPDATE|DELETE|COMMIT)\b", re.IGNORECASE)


class Frames:
    """Cuts a stream of bytes into messages; the first of a client have no tag."""

    def __init__(self, *, is_client: bool) -> None:
        self.pending = bytearray()
        self._is_client = is_client
        self._is_begun = not is_client
        self.bare = 0
        """How many single bytes, answers to a negotiation, come before the next message."""

    def feed(self, data: bytes) -> Iterator[tuple[str, bytes]]:
        """Give the tag and the whole bytes of each message that is complete now."""
        self.pending += data
        while (message := self._next()) is not None:
            yield message

    def _next(self) -> tuple[str, bytes] | None:
        if self.bare and self.pending:
            self.bare -= 1
            return "", self._take(1)
        head = 1 if self._is_begun else 0
        if len(self.pending) < head + 4:
            return None
        (length,) = struct.unpack_from("!i", self.pending, head)
        if len(self.pending) < head + length:
            return None
        message = self._take(head + length)
        if self._is_begun:
            return chr(message[0]), message
        (code,) = struct.unpack_from("!i", message, 4)
        self._is_begun = code not in _NEGOTIATIONS
        return "negotiation" if code in _NEGOTIATIONS else "startup", message

    def _take(self, length: int) -> bytes:
        taken = bytes(self.pending[:length])
        del self.pending[:length]
        return taken


class Conversation:
    """What both sides of one connection have said so far."""

    def __init__(self) -> None:
        self.application = ""
        self._client = Frames(is_client=True)
        self._server = Frames(is_client=False)
        self._statements: dict[bytes, bool] = {}
        self.is_writing = False
        """Whether what the client asked for last changes rows."""

    def heard_client(self, data: bytes) -> None:
        """Take note of what the client sends."""
        for tag, message in self._client.feed(data):
            body = message[5:]
            if tag == "startup":
                self.application = _parameters(message).get("application_name", "")
            elif tag == "negotiation":
                self._server.bare += 1
            elif tag == "P":
                name, _, rest = body.partition(b"\0")
                self._statements[name] = _is_write(rest.partition(b"\0")[0])
            elif tag == "B":
                _, _, rest = body.partition(b"\0")
                self.is_writing = self._statements.get(rest.partition(b"\0")[0], False)
            elif tag == "Q":
                self.is_writing = _is_write(body.rstrip(b"\0"))

    def heard_server(self, data: bytes) -> list[tuple[str, bytes]]:
        """Return the whole messages of the server so far, each with its tag."""
        return list(self._server.feed(data))


def is_executed(tag: str) -> bool:
    """Whether this message of the server says that a statement has been executed."""
    return tag == "C"


def is_settled(tag: str, message: bytes) -> bool:
    """Whether the server says with it that no transaction is open any more: what was executed is committed."""
    return tag == READY and message[5:6] == b"I"


def _is_write(text: bytes) -> bool:
    return _WRITES.search(text[:_LONGEST_TEXT].decode(errors="replace")) is not None


def _parameters(startup: bytes) -> dict[str, str]:
    words = [word.decode(errors="replace") for word in startup[8:].split(b"\0")]
    return dict(zip(words[0::2], words[1::2], strict=False))
