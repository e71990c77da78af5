"""The store's time as this process knows it, so that no timer goes by the clock of a replica."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

LAST_MOMENT = datetime.max.replace(tzinfo=UTC)
"""The end of the calendar: a later time can be neither kept nor sent."""


def later(moment: datetime, seconds: float) -> datetime:
    """Return the moment so many seconds after another one, at most the last of the calendar."""
    try:
        return moment + timedelta(seconds=seconds)
    except OverflowError:
        return LAST_MOMENT


class StoreClock:
    """Tells the store's time without asking: what it last said, and what has passed here since.

    It is never ahead of the store, and behind by at most what the answer took to arrive, so that no timer fires early.
    Until the store has said something it is this machine's time.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.monotonic = monotonic
        self._moment = datetime.now(UTC)
        self._at = monotonic()
        self._lag = timedelta()
        self._is_told = False

    def now(self) -> datetime:
        """Return the store's time, or a moment before it."""
        return self._moment + timedelta(seconds=self.monotonic() - self._at)

    def latest(self) -> datetime:
        """Return the store's time, or a moment after it: a pause that is counted from here is never too short."""
        return self.now() + self._lag

    def learn(self, moment: datetime, sent: float) -> None:
        """Take in what the store said in answer to a question `sent` at this monotonic time.

        The time that is told stays as it is while it can be right: then it is nearer to the truth than the answer.
        """
        received = self.monotonic()
        latest = moment + timedelta(seconds=received - sent)
        if self._is_told and moment <= self.now() <= latest:
            self._lag = min(self._lag, latest - self.now())
        else:
            self._moment, self._at, self._lag, self._is_told = moment, received, latest - moment, True
