"""Ids that rise with time."""

from __future__ import annotations

import os
import threading
import time
from uuid import UUID


class _Clock:
    """Stamps in units of 1/4096 ms, what fits into the 12 bits behind the milliseconds; no two are equal."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def stamp(self) -> int:
        with self._lock:
            self._last = max(self._last + 1, time.time_ns() * 4096 // 1_000_000)
            return self._last


_clock = _Clock()


def uuid7() -> UUID:
    """Return a UUIDv7 (RFC 9562, method 3): milliseconds, a 12-bit fraction, 62 random bits; rises in a process."""
    stamp = _clock.stamp()
    milliseconds, fraction = divmod(stamp, 4096)
    rand = int.from_bytes(os.urandom(8), "big") >> 2
    return UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | rand)
