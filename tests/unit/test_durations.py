"""Spans of time mean one thing wherever they are written: the client and the service read them alike."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flowkeep.durations import Span, duration_text, to_duration
from service.engine.durations import nanoseconds

SECOND = 10**9


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2s", 2 * SECOND),
        ("90s", 90 * SECOND),
        ("0s", 0),
        ("0.5s", SECOND // 2),
        ("0.000000001s", 1),
        ("250ms", SECOND // 4),
        ("1m500ms", 60 * SECOND + SECOND // 2),
        ("1h30m", 5_400 * SECOND),
        ("1.5h", 5_400 * SECOND),
        ("7d", 604_800 * SECOND),
        ("1w", 604_800 * SECOND),
        ("1w2d3h4m5s6ms", 788_645 * SECOND + 6_000_000),
        ("PT5M", 300 * SECOND),
        ("PT0.25S", SECOND // 4),
        ("P1DT12H", 129_600 * SECOND),
        ("P1W", 604_800 * SECOND),
    ],
)
def test_a_span_means_the_same_to_both(text: str, expected: int) -> None:
    duration = to_duration(text)
    assert duration.seconds * SECOND + duration.nanos == nanoseconds(text) == expected
    assert to_duration(duration_text(duration)) == duration


NONE = ["", "s", "5", "1.5", "5 m", "1h 30m", "-5s", "+5s", "5S", "1y", "1m1h", "1h1h", "1:30", ".5s", "5.s", "1e3s"]
NO_ISO = ["P", "PT", "P1DT", "P1Y", "P1M", "PT1D", "pt5m"]
NO_DIGITS = ["\u0661s", "soon", "9" * 13 + "s", "0.0123456789s", "9" * 5_000 + "s"]


@pytest.mark.parametrize("text", [*NONE, *NO_ISO, *NO_DIGITS])
def test_what_is_no_span_is_none_to_both(text: str) -> None:
    for read in (to_duration, nanoseconds):
        with pytest.raises(ValueError, match=r"must be a span of time|lacks a unit|is no duration"):
            read(text)


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (90, "1m30s"),
        (0.1, "0.1s"),
        (0, "0s"),
        ("7d", "7d"),
        ("1w2d", "9d"),
        ("250ms", "0.25s"),
        ("P1DT12H", "1d12h"),
        (timedelta(hours=36), "1d12h"),
    ],
)
def test_the_client_takes_numbers_too_and_writes_the_shortest_text(span: Span, text: str) -> None:
    assert duration_text(to_duration(span)) == text


@pytest.mark.parametrize("span", [-1, True, 10**400])
def test_what_is_no_number_of_seconds_is_refused(span: Span) -> None:
    with pytest.raises(ValueError, match="must be"):
        to_duration(span)
