"""The store's time as this process knows it, so that no timer goes by the clock of a replica."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple

if sys.platform == "linux":
    # As a call of C alone: each step asks it several times.
    monotonic: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
else:
    monotonic = time.monotonic
"""Returns seconds that never go back, and go on while the machine is suspended where the system can tell.

The lease goes on meanwhile, and others take over: a process that is resumed must know at once that its fence is
behind. Timers of an event loop do not count that time, so nothing may depend on them alone. A machine that was
stopped without its kernel knowing has no clock that tells; then the epoch alone keeps what it writes away.
"""


class _Known(NamedTuple):
    """What the store said: its time at a monotonic time, and by how much it may be ahead of that."""

    moment: datetime
    at: float
    lag: timedelta
    is_told: bool


LAST_MOMENT = datetime.max.replace(tzinfo=UTC)
"""The end of the calendar: a later time can be neither kept nor sent."""


def later(moment: datetime, seconds: float) -> datetime:
    """Return the moment so many seconds after another one, at most the last of the calendar."""
    try:
        return moment + timedelta(seconds=seconds)
    except OverflowError:
        return LAST_MOMENT


class StoreClock:
    """Tells the store's time without asking: what it last said, and what has passed here since. Any thread may ask it.

    It is never ahead of the store, and behind by at most what the answer took to arrive, so that no timer fires early.
    Until the store has said something it is this machine's time.
    """

    def __init__(self, monotonic: Callable[[], float] = monotonic) -> None:
        self.monotonic = monotonic
        # Replaced as a whole, since another thread may learn what this one is told.
        self._known = _Known(datetime.now(UTC), monotonic(), timedelta(), False)

    def now(self) -> datetime:
        """Return the store's time, or a moment before it."""
        known = self._known
        return known.moment + timedelta(seconds=self.monotonic() - known.at)

    def latest(self) -> datetime:
        """Return the store's time, or a moment after it: a pause that is counted from here is never too short."""
        known = self._known
        return known.moment + timedelta(seconds=self.monotonic() - known.at) + known.lag

    def learn(self, moment: datetime, sent: float) -> None:
        """Take in what the store said in answer to a question `sent` at this monotonic time.

        The time that is told stays as it is while it can be right: then it is nearer to the truth than the answer.
        """
        received = self.monotonic()
        latest = moment + timedelta(seconds=received - sent)
        now = self.now()
        if self._known.is_told and moment <= now <= latest:
            self._known = self._known._replace(lag=min(self._known.lag, latest - self.now()))
        else:
            self._known = _Known(moment, received, latest - moment, True)
