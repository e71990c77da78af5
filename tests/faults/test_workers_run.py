"""Does a run of workers fail for what is lost, unfinished or recorded twice?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.faults.checks.checker import Result
from tests.faults.checks.sound_record import EVENTS, EXECUTION, ROW, SOUND
from tests.faults.harness.records import Record
from tests.faults.harness.shifts import Shift
from tests.faults.workers_run import judge, told

KILLS = {"server_0": 1, "python_0": 3}
SHIFT = Shift(SOUND, ("python",), 1, 10.0, KILLS, {"python": (0.001, 0.002)}, (0.01,))

WRONG: dict[str, Record] = {
    "lost": replace(SOUND, rows={}),
    "failed": replace(SOUND, rows={EXECUTION: replace(ROW, state="FAILED")}),
    "unfinished": replace(SOUND, rows={EXECUTION: replace(ROW, state="RUNNING", events=EVENTS[:-1])}),
    "twice": replace(SOUND, rows={EXECUTION: replace(ROW, events=(*EVENTS[:4], *EVENTS[3:]))}),
    "never": replace(SOUND, rows={EXECUTION: replace(ROW, events=(*EVENTS[:3], *EVENTS[4:]))}),
}


def test_a_sound_run_passes() -> None:
    assert (judge(SHIFT).result, judge(SHIFT).violations) == (Result.PASS, [])
    assert any("cut off" in line for line in told(SHIFT))


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_run_fails(name: str) -> None:
    assert judge(replace(SHIFT, record=WRONG[name])).result is Result.FAIL


def test_an_execution_that_nobody_acknowledged_is_missed() -> None:
    assert judge(replace(SHIFT, asked=2)).rules == {"EX7": 1}


@pytest.mark.parametrize("kills", [{"server_0": 2, "python_0": 0}, {"server_0": 0, "python_0": 2}])
def test_a_run_without_kills_shows_nothing(kills: dict[str, int]) -> None:
    assert judge(replace(SHIFT, kills=kills)).result is Result.VOID
