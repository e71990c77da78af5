"""As much of HTTP/2 as tells where one may put a frame between what a server sends."""

from __future__ import annotations

import struct

_HEAD = 9
_HEADERS, _PUSH_PROMISE, _GOAWAY, _CONTINUATION = 0x1, 0x5, 0x7, 0x9
_END_HEADERS = 0x4
_HIGHEST_STREAM = (1 << 31) - 1

GOAWAY = struct.pack("!I", 8)[1:] + struct.pack("!BBIII", _GOAWAY, 0, 0, _HIGHEST_STREAM, 0)
"""Begin nothing more on this connection; what has begun goes on. So a server announces that it will close it."""


class Frames:
    """Follows what a server sends from the beginning of a connection."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._left = 0
        self._is_in_headers = False
        self._has_begun = False

    @property
    def is_between(self) -> bool:
        """Whether a frame may come now: settings were sent, the last frame is over, and so are its headers."""
        return self._has_begun and not self._head and not self._left and not self._is_in_headers

    def split(self, data: bytes) -> tuple[bytes, bytes]:
        """Take in what comes next, up to the first place where a frame may come; returns that and the rest."""
        position = 0
        while position < len(data):
            if self._left:
                step = min(self._left, len(data) - position)
                self._left -= step
            else:
                step = min(_HEAD - len(self._head), len(data) - position)
                self._head += data[position : position + step]
                self._begin()
            position += step
            if self.is_between:
                break
        return data[:position], data[position:]

    def pass_by(self, data: bytes) -> None:
        """Take in all of it."""
        while data:
            _, data = self.split(data)

    def _begin(self) -> None:
        """Note what the head of a frame says, if it is whole."""
        if len(self._head) < _HEAD:
            return
        self._left = int.from_bytes(self._head[:3], "big")
        kind, flags = self._head[3], self._head[4]
        if kind in (_HEADERS, _PUSH_PROMISE, _CONTINUATION):
            self._is_in_headers = not flags & _END_HEADERS
        self._has_begun = True
        self._head.clear()
