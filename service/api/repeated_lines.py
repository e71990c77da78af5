"""Lines of the log that a flood of calls would repeat without end."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextvars import Context
from typing import NamedTuple

import structlog

log = structlog.get_logger(__name__)

MOST = 20
"""Lines of a kind that are written in a second: more tell people nothing, and cost more than the calls do."""

KINDS = 1_000
"""Kinds that are told apart in a second; all others are one."""

_WINDOW = 1.0


class Kind(NamedTuple):
    """What lines have in common: their event, and what else is alike."""

    event: str
    about: str


_OTHERS = Kind("others", "")


class RepeatedLines:
    """Lets through the first lines of each kind in a second, and tells then how many more there were."""

    def __init__(self) -> None:
        self._seen = Counter[Kind]()
        self._loop: asyncio.AbstractEventLoop | None = None

    def passes(self, event: str, *about: str) -> bool:
        """Whether a line is written; else it is counted. To be called on a running loop."""
        loop = asyncio.get_running_loop()
        if not self._seen or self._loop is not loop:
            self._loop = loop
            # In a context of its own: what follows belongs to no call.
            loop.call_later(_WINDOW, self._tell, context=Context())
        kind = Kind(event, " ".join(about))
        if kind not in self._seen and len(self._seen) >= KINDS:
            kind = _OTHERS
        self._seen[kind] += 1
        return self._seen[kind] <= MOST

    def _tell(self) -> None:
        seen, self._seen = self._seen, Counter()
        for kind, count in seen.items():
            if count > MOST:
                log.warning("lines left out", of=kind.event, about=kind.about, count=count - MOST)
