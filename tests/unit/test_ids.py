"""What tells executions and steps from each other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid5

import pytest

from service.engine.ids import created_within, idempotency_token, uuid7


def test_each_iteration_of_a_step_has_a_token_of_its_own():
    """ST5. That of the first is the one that a step had before there were iterations."""
    one, other = UUID(int=1), UUID(int=2)
    asked = [(one, "a", 1), (one, "a", 2), (one, "a", 12), (one, "b", 1), (other, "a", 1)]
    assert len({idempotency_token(*each) for each in asked}) == len(asked)
    assert idempotency_token(one, "a", 2) == idempotency_token(one, "a", 2)
    for path in ("a", "for_each[12].ä", "x" * 500):
        assert idempotency_token(one, path, 1) == str(uuid5(one, path))


def test_what_is_created_within_a_time_has_an_id_within_those_of_the_time():
    """The process makes no id below one that it made shortly before, whatever the clock says meanwhile."""
    begin = datetime.now(UTC) + timedelta(days=1)
    moments = [begin, begin + timedelta(microseconds=1), begin + timedelta(seconds=7), begin + timedelta(seconds=1)]
    ids = [uuid7(moment) for moment in moments]
    lowest, highest = created_within(begin, max(moments) + timedelta(microseconds=1))
    assert lowest is not None and highest is not None
    assert all(lowest <= each <= highest for each in ids)
    behind, _ = created_within(begin + timedelta(hours=1), None)
    assert behind is not None and all(each < behind for each in ids)
    assert created_within(None, None) == (None, None)
    epoch, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    lowest, highest = created_within(epoch, last)
    assert lowest == UUID(int=0) and highest is not None and ids[0] < highest


@pytest.mark.parametrize("seconds", [30, 59.9995, 300, 34_560_000])
def test_what_is_created_after_the_clock_was_put_back_is_within_its_time_too(seconds: float):
    before = datetime.now(UTC)
    uuid7(before)
    moment = before - timedelta(seconds=seconds)
    lowest, highest = created_within(moment, moment + timedelta(microseconds=1))
    assert lowest is not None and highest is not None
    assert all(lowest <= uuid7(moment) <= highest for _ in range(3))


def test_ids_by_the_own_clock_move_none_of_a_moment_that_was_told():
    """The own clock of a replica may be ahead of the store's."""
    uuid7(datetime.now(UTC) - timedelta(days=1))
    moment = datetime.now(UTC) - timedelta(seconds=30)
    uuid7()
    assert uuid7(moment) < min(of for of in created_within(moment + timedelta(milliseconds=1), None) if of)


def test_an_id_of_a_whole_millisecond_is_not_before_it():
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(10_000):
        moment = begin + timedelta(hours=number, milliseconds=number)
        lowest, _ = created_within(moment, None)
        assert lowest is not None and lowest <= uuid7(moment)
