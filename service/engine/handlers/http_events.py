"""Server-sent events, as the standard of HTML has them, read piece by piece."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

MEDIA_TYPE = "text/event-stream"

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class Events:
    """Makes events of bytes. `count` is how many there were, `last` the last {event, data, id}, None without any.

    `held` is how many bytes there are of the event that has not ended.
    """

    def __init__(self) -> None:
        self.count = 0
        self.last: dict[str, Any] | None = None
        self.held = 0
        # The pieces of a line whose end has not come: joined once, however many they are.
        self._line: list[bytes] = []
        self._is_after_cr = False
        self._is_first = True
        self._event = self._id = ""
        self._data: list[str] = []

    def take(self, chunk: bytes) -> Iterator[str]:
        """Yield the data of each event that ends in a piece. What has no end at the end of all is no event."""
        if self._is_after_cr:
            chunk = chunk.removeprefix(b"\n")
        if not chunk:
            self._is_after_cr = False
            return
        self._is_after_cr = chunk.endswith(b"\r")
        *lines, rest = _LINE_END.split(chunk)
        for line in lines:
            whole = b"".join([*self._line, line])
            self._line.clear()
            self.held += len(line)
            if self._is_first:
                whole, self._is_first = whole.removeprefix(_BOM), False
            if whole:
                self._read(whole)
            elif self._data:
                yield self._ended()
            else:
                self._event = ""
                self.held = 0
        if rest:
            self._line.append(rest)
            self.held += len(rest)

    def _read(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
        name, _, value = text.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._data.append(value)
            case "event":
                self._event = value
            case "id":
                self._id = value

    def _ended(self) -> str:
        data = "\n".join(self._data)
        self.count += 1
        self.last = {"event": self._event or "message", "data": data, "id": self._id}
        self._data.clear()
        self._event = ""
        self.held = 0
        return data
