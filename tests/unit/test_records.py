"""What Postgres gives back is what was put in."""

from __future__ import annotations

import pytest

from persistence.postgres.records import decoded, encoded

LARGEST = 2**53 - 1


@pytest.mark.parametrize("number", [LARGEST, -LARGEST, 10**15, -(10**15), 0, -1])
@pytest.mark.parametrize("beside", ["", "1" * 17])
def test_a_whole_number_stays_one_whatever_stands_beside_it(number: int, beside: str) -> None:
    value = decoded(encoded({"number": number, "text": beside}).decode())
    assert isinstance(value, dict)
    assert (value["number"], type(value["number"])) == (number, int)


def test_what_is_too_large_for_one_was_none() -> None:
    assert [type(each) for each in decoded(f"[1{'0' * 300}, -1{'0' * 300}]") or ()] == [float, float]
