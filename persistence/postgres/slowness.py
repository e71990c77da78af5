"""Executions that are left alone for a while because they could not be read in time, so that others are claimed."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from uuid import UUID

_log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 5.0, 600.0
"""Seconds for which an execution that could not be read is left alone; each time twice as long."""

_KEPT = 1_000


class Slow:
    """What this process could not read in time; what it has read since is forgotten."""

    def __init__(self) -> None:
        # The last pause of each, and when that ends.
        self._pauses: OrderedDict[UUID, tuple[float, float]] = OrderedDict()

    def left_alone(self, now: float) -> list[UUID]:
        """Return what is not to be claimed `now`."""
        return [each for each, (_, end) in self._pauses.items() if now < end]

    def blame(self, together: Sequence[UUID], now: float) -> None:
        """Leave one alone of those that could not be read together: the slowest that is known.

        Else the first of two: a claim of one brings a suspect beside it. Of more, any may be the reason, or their
        number.
        """
        known = [each for each in together if each in self._pauses]
        if known:
            execution_id = max(known, key=lambda each: self._pauses[each][0])
            pause = min(2 * self._pauses.pop(execution_id)[0], LONGEST_PAUSE)
        elif 0 < len(together) <= 2:
            execution_id, pause = together[0], FIRST_PAUSE
        else:
            return
        self._pauses[execution_id] = pause, now + pause
        if len(self._pauses) > _KEPT:
            self._pauses.popitem(last=False)
        _log.warning("execution %s could not be read in time: not claimed for %.0f s", execution_id, pause)

    def forget(self, execution_id: UUID) -> None:
        """Take note that an execution was read."""
        self._pauses.pop(execution_id, None)
