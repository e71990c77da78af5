"""Are times measured as CONTRACT 2.5 means them, and does a late one break its promise?"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.faults.checks.failover import moved_after
from tests.faults.checks.sound_record import CALLS, EXECUTION, SOUND, WRITES, at
from tests.faults.failover import Clocked, clocked
from tests.faults.harness.records import Landing
from tests.faults.kinds.failover import Series


def by_event(rows: list[Clocked]) -> dict[str, Clocked]:
    return {row.event: row for row in rows}


def test_the_process_that_takes_the_place_of_the_victim_is_another_owner() -> None:
    kill = SOUND.landings[0]
    by_victim = tuple(replace(write, replica=kill.victim) for write in WRITES)
    assert moved_after(replace(SOUND, writes=by_victim), kill) == moved_after(SOUND, kill) != []


def test_who_takes_back_what_it_had_put_down_is_none() -> None:
    kill = SOUND.landings[0]
    same = tuple(replace(write, incarnation=write.incarnation and "i0") for write in WRITES)
    assert moved_after(replace(SOUND, writes=same), kill) == []


def test_what_the_victim_had_put_down_to_wait_is_not_asked_about() -> None:
    kill = SOUND.landings[0]
    down = replace(WRITES[0], id=10_000, time=kill.time + timedelta(seconds=0.1), incarnation=None)
    writes = [*(write for write in WRITES if write.time <= kill.time), down]
    writes += [replace(write, id=write.id + 20_000) for write in WRITES if write.time > kill.time]
    record = replace(SOUND, writes=[replace(write, id=number) for number, write in enumerate(writes)])
    assert moved_after(record, kill) == []
    assert moved_after(record, replace(kill, kind="terminate")) != []


def test_figures_and_promises() -> None:
    series = Series("FO1", {"kill": 1, "crash": 1})
    series.seconds["reconnected"] = [0.1, 0.3]
    crash = Landing("crash", at(5), "postgres", (EXECUTION,), at(6))
    call = replace(CALLS[0], invoked=5.5, returned=11.0)
    before = replace(CALLS[0], invoked=0.1, returned=4.0)
    record = replace(SOUND, landings=(*SOUND.landings, crash), calls=(before, call), clock=at(0))
    rows = by_event(clocked(record, series, 1.0))
    moved = rows["kill -9: executions move again"]
    assert (moved.faults, moved.count) == (1, 1)
    assert moved.longest == pytest.approx(0.4)
    assert (moved.promised_p99, moved.promised_longest, moved.is_kept) == (3.0, 6.0, True)
    assert rows["kill -9: clients are connected to the new one"].count == 2
    assert rows["Postgres crash: first write"].longest == pytest.approx(1.0)
    answers = rows["Postgres crash: answers to calls"]
    assert (answers.count, answers.longest, answers.is_kept) == (1, 5.5, False)
    assert "SIGTERM: others take over" not in rows


def test_a_promise_that_was_not_measured_is_broken() -> None:
    row = by_event(clocked(SOUND, Series("FO1", {"terminate": 1}), 1.0))["SIGTERM: others take over"]
    assert (row.count, row.is_kept) == (0, False)


@pytest.mark.parametrize(("p99", "longest", "is_kept"), [(3, 6, True), (3.1, 6, False), (3, 6.1, False)])
def test_a_promise_has_two_limits(p99: float, longest: float, is_kept: bool) -> None:
    row = Clocked("kill -9", 1.0, 1, 1, 1.0, p99, longest, 3.0, 6.0)
    assert row.is_kept is is_kept
    assert ("BROKEN" in row.line) is not is_kept
