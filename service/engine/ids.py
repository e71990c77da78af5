"""Ids that rise with time, and tokens of steps."""

from __future__ import annotations

import hashlib
import os
import threading
from datetime import UTC, datetime, timedelta
from uuid import UUID

_PUT_BACK = timedelta(minutes=1)
_LAST = datetime.max.replace(tzinfo=UTC) - _PUT_BACK


class _Clock:
    """Stamps in units of 1/4096 ms, what fits into the 12 bits behind the milliseconds; no two are equal."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def stamp(self, moment: datetime) -> int:
        with self._lock:
            self._last = max(self._last + 1, int(moment.timestamp() * 1_000_000) * 4096 // 1_000)
            return self._last


_clock = _Clock()


def uuid7(moment: datetime | None = None) -> UUID:
    """Return a UUIDv7 of this moment or now (RFC 9562, method 3); rises in a process.

    It has milliseconds, a 12-bit fraction, and 62 random bits.
    """
    stamp = _clock.stamp(moment or datetime.now(UTC))
    milliseconds, fraction = divmod(stamp, 4096)
    rand = int.from_bytes(os.urandom(8), "big") >> 2
    return UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | rand)


def created_within(begin: datetime | None, end: datetime | None) -> tuple[UUID | None, UUID | None]:
    """Return between which ids those of executions lie that were created from `begin` on and before `end`.

    An id is never of a time before its execution, and of one behind it only where the clock was put back since the
    process made the one before.
    """
    lowest = None if begin is None else _first(begin)
    return lowest, None if end is None else _first(end + _PUT_BACK if end < _LAST else end)


def _first(moment: datetime) -> UUID:
    return UUID(int=max(0, int(moment.timestamp() * 1_000)) << 80)


def idempotency_token(execution_id: UUID, path: str, iteration: int) -> str:
    """Return what is one for an iteration of a step, and equal over attempts and replicas: a UUIDv5 as text."""
    name = path if iteration == 1 else f"{path}#{iteration}"
    # As uuid5() does, without the object of which only the text is wanted.
    digest = bytearray(hashlib.sha1(execution_id.bytes + name.encode(), usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
