"""Ids that rise with time, and tokens of steps."""

from __future__ import annotations

import hashlib
import os
import threading
from datetime import UTC, datetime, timedelta
from uuid import UUID

_AHEAD = timedelta(minutes=1)
_LAST = datetime.max.replace(tzinfo=UTC) - _AHEAD
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class _Clock:
    """Stamps in units of 1/4096 ms, what fits into the 12 bits behind the milliseconds.

    They rise, and none is before its moment, nor by `_AHEAD` behind it: when the clock was put back by more, the stamps
    go back with it.
    """

    _MOST = (_AHEAD // timedelta(milliseconds=1) - 1) * 4096

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def stamp(self, moment: datetime) -> int:
        now = (moment - _EPOCH) // _MICROSECOND * 4096 // 1_000
        with self._lock:
            self._last = self._last + 1 if now <= self._last < now + self._MOST else now
            return self._last


# The process's own clock may be wrong by minutes, and must not move the stamps of moments that the store tells.
_own, _told = _Clock(), _Clock()


def uuid7(moment: datetime | None = None) -> UUID:
    """Return a UUIDv7 of this moment, or of now by the process's own clock (RFC 9562, method 3).

    It has milliseconds, a 12-bit fraction, and 62 random bits. Those of moments rise in a process, and so do the
    others, unless a clock is put back by a minute.
    """
    stamp = _own.stamp(datetime.now(UTC)) if moment is None else _told.stamp(moment)
    milliseconds, fraction = divmod(stamp, 4096)
    rand = int.from_bytes(os.urandom(8), "big") >> 2
    return UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | rand)


def created_within(begin: datetime | None, end: datetime | None) -> tuple[UUID | None, UUID | None]:
    """Return between which ids those of executions lie that were created from `begin` on and before `end`.

    An id is never of a time before its execution, and always of less than a minute behind it.
    """
    lowest = None if begin is None else _first(begin)
    return lowest, None if end is None else _first(end + _AHEAD if end < _LAST else end)


def _first(moment: datetime) -> UUID:
    return UUID(int=max(0, (moment - _EPOCH) // timedelta(milliseconds=1)) << 80)


def task_id(moment: datetime, execution_id: str, path: str, iteration: int) -> UUID:
    """Return the id of the task of people that a step makes: a UUIDv7 of this moment, the same whoever makes it."""
    name = f"{execution_id} {iteration} {path}".encode()
    drawn = int.from_bytes(hashlib.sha256(name).digest()[:10], "big")
    fraction, rand = drawn >> 68, drawn & (1 << 62) - 1
    milliseconds = (moment - _EPOCH) // timedelta(milliseconds=1)
    return UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | rand)


def idempotency_token(execution_id: UUID, path: str, iteration: int) -> str:
    """Return what is one for an iteration of a step, and equal over attempts and replicas: a UUIDv5 as text."""
    name = path if iteration == 1 else f"{path}#{iteration}"
    # As uuid5() does, without the object of which only the text is wanted.
    digest = bytearray(hashlib.sha1(execution_id.bytes + name.encode(), usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
