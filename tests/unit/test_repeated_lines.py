"""Floods of lines in the log are cut, and counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from service.api.repeated_lines import KINDS, MOST, RepeatedLines


@pytest.fixture
async def ends(monkeypatch) -> list[Callable[[], None]]:
    """The ends of seconds that have begun."""
    found = list[Callable[[], None]]()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "call_later", lambda seconds, end, context: found.append(end))
    return found


async def test_beyond_the_first_lines_of_a_kind_the_others_are_counted(ends):
    lines = RepeatedLines()
    assert [lines.passes("call", "Execute") for _ in range(MOST + 5)] == [True] * MOST + [False] * 5
    assert lines.passes("call", "Cancel")
    (end,) = ends
    with capture_logs() as logged:
        end()
    assert [(each["of"], each["about"], each["count"]) for each in logged] == [("call", "Execute", 5)]
    assert lines.passes("call", "Execute")


async def test_what_a_flood_varies_is_not_remembered_without_end(ends):
    lines = RepeatedLines()
    passed = [
        lines.passes("token refused", f"10.0.{number // 256}.{number % 256}") for number in range(KINDS + MOST + 3)
    ]
    assert passed == [True] * (KINDS + MOST) + [False] * 3
