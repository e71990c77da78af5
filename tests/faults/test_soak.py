"""Does a soak fail for what grows, and is what was divided judged as it would be as a whole?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.checks.checker import judge
from tests.faults.checks.growth import FLAT, MEMORY, courses
from tests.faults.checks.sound_record import EXECUTION, REQUEST, SOUND
from tests.faults.checks.violations import Violation
from tests.faults.harness.division import Division, number_of
from tests.faults.harness.records import Record, Sample
from tests.faults.soak import Tally, troubles

PARTS = 4


def samples(name: str, value_at: Callable[[float], float]) -> list[Sample]:
    return [Sample(time, {MEMORY: 100.0, name: value_at(time)}) for time in range(5, 605, 5)]


def told(name: str, value_at: Callable[[float], float]) -> list[str]:
    return troubles(Tally(acked=100), courses(samples(name, value_at)), 100)


@pytest.mark.parametrize("name", FLAT)
def test_what_grows_fails(name: str) -> None:
    assert told(name, lambda time: 30 + time / 3) != []
    assert told(name, lambda time: 30) == []


def test_memory_that_grows_fails_and_a_warm_up_does_not() -> None:
    assert told(MEMORY, lambda time: 100 + time / 20) != []
    assert told(MEMORY, lambda time: 100 + min(time, 60)) == []


def test_a_burst_after_a_fault_is_no_growth() -> None:
    assert told("tasks", lambda time: 500 if time % 60 < 20 else 30) == []


def test_the_slope_is_that_of_ten_minutes() -> None:
    (memory,) = courses([Sample(time, {MEMORY: 100 + time / 60}) for time in range(5, 605, 5)])
    assert memory.slope == pytest.approx(10.0)


def test_other_reasons_to_fail() -> None:
    found = courses(samples("tasks", lambda time: 30))
    assert troubles(Tally(acked=80), found, 100) != []
    assert troubles(Tally(acked=100), [], 100) != []
    assert troubles(Tally(acked=100, violations=[Violation("I1", "e", "is lost")]), found, 100) != []
    assert troubles(Tally(acked=100, void_reason="no fault hit"), found, 100) != []


def divided(record: Record) -> list[Record]:
    sets = [set[str]() for _ in range(PARTS)]
    sets[number_of(REQUEST, PARTS)].add(EXECUTION)
    division = Division(sets, {EXECUTION: REQUEST})
    parts = [division.part_of(record, number) for number in range(PARTS)]
    return [
        replace(part, rows={key: row for key, row in part.rows.items() if key in ids})
        for part, ids in zip(parts, sets, strict=True)
    ]


def test_parts_are_judged_as_the_whole() -> None:
    assert [violation for part in divided(SOUND) for violation in judge(part).violations] == []
    assert sum(len(part.calls) for part in divided(SOUND)) == len(SOUND.calls)
    lost = replace(SOUND, rows={}, writes=(), streams=())
    whole = {violation.rule for violation in judge(lost).violations}
    assert "I1" in whole
    assert {violation.rule for part in divided(lost) for violation in judge(part).violations} == whole
