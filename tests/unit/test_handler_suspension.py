"""What handlers wait for by `Suspend`, and when it is no output."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from flowkeep.handlers import Suspend
from tests.unit.attempts import NOW, Text, failed, outcome


class Nowhere(tzinfo):
    def utcoffset(self, when: datetime | None) -> timedelta:
        raise RuntimeError

    dst = tzname = utcoffset  # type: ignore[assignment]


class Moment(datetime):
    pass


class EndsTimes(Nowhere):
    def utcoffset(self, when: datetime | None) -> timedelta:
        raise SystemExit


class EndsMoment(datetime):
    @property
    def year(self) -> int:
        raise SystemExit


class FarOff(Nowhere):
    def utcoffset(self, when: datetime | None) -> timedelta:
        return timedelta(days=400)


@pytest.mark.parametrize(
    "until",
    [
        NOW,
        Moment(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
    ],
)
async def test_a_time_to_wake_at_is_a_plain_one_in_utc(until: Any) -> None:
    found = await outcome(lambda: Suspend(until, {"a": 1}, Text("later")))
    assert found == Suspend(NOW, {"a": 1}, "later")
    assert isinstance(found, Suspend)
    assert (type(found.until), found.until.tzinfo, type(found.reason)) == (datetime, UTC, str)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Suspend(datetime(2026, 1, 1), 1), "Suspend.until must have a time zone"),
        (lambda: Suspend(date(2026, 1, 1), 1), "Suspend.until must be a datetime with a time zone, such as"),  # type: ignore[arg-type]
        (lambda: Suspend("2026-01-01T00:00:00Z", 1), "Suspend.until must be a datetime"),  # type: ignore[arg-type]
        (lambda: Suspend(datetime.max.replace(tzinfo=ZoneInfo("America/New_York"))), "years 1 to 9999"),
        (lambda: Suspend(datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))), "years 1 to 9999"),
        (lambda: Suspend(datetime(2026, 1, 1, tzinfo=Nowhere())), "years 1 to 9999"),
        (lambda: Suspend(datetime(2026, 1, 1, tzinfo=FarOff())), "years 1 to 9999"),
        (lambda: Suspend(datetime(2026, 1, 1, tzinfo=EndsTimes())), "years 1 to 9999"),
        (lambda: Suspend(EndsMoment(2026, 1, 1, tzinfo=UTC)), "years 1 to 9999"),
        (lambda: Suspend(NOW, 1, 17), "Suspend.reason must be text, not int"),  # type: ignore[arg-type]
        (lambda: Suspend(NOW, math.nan), "output: must be a finite number"),
        (lambda: Suspend(NOW, object()), "the result has no JSON form"),
    ],
)
async def test_what_cannot_be_waited_for_is_invalid_output(made: Callable[[], Suspend], message: str) -> None:
    found = (await failed(made)).failure
    assert (found.code, found.retryable) == ("INVALID_OUTPUT", False)
    assert message in found.message
