"""Large payloads are read and checked in pieces, and come out as they do in one go."""

from __future__ import annotations

from typing import Any

import pytest

from flowkeep.payload import from_struct, to_struct
from service.api.payloads import read_struct
from service.engine.payload import normalise, normalising
from service.engine.slices import Work, in_one_go
from service.engine.violations import ValidationError

LARGE: dict[str, dict[str, Any]] = {
    "rows": {"rows": [{"name": f"n{n}", "v": n, "tags": ["a", "b"], "none": None} for n in range(600)]},
    "numbers": {"numbers": list(range(10_000))},
    "lists": {"lists": [[None, True] * 10 for _ in range(450)]},
    "members": {f"k{n}": {"n": n / 2} for n in range(3_000)},
}
SMALL: dict[str, Any] = {"b": 1, "a": ["x", {"y": None}], "text": "x" * 200_000}


def costs(work: Work[Any]) -> list[int]:
    """Return what each piece of some work costs."""
    return list(work)


@pytest.mark.parametrize("given", [*LARGE.values(), SMALL, {}], ids=[*LARGE, "small", "nothing"])
def test_what_comes_out_is_the_same(given: dict[str, Any]) -> None:
    struct = to_struct(given)
    read = in_one_go(read_struct(struct))
    assert read == from_struct(struct) == given
    assert list(read) == sorted(given)
    assert in_one_go(normalising(read, "input")) == normalise(given, "input")


@pytest.mark.parametrize("given", LARGE.values(), ids=LARGE)
def test_no_piece_of_a_large_one_is_long(given: dict[str, Any]) -> None:
    read, checked = costs(read_struct(to_struct(given))), costs(normalising(given, "input"))
    assert len(read) > 5 and max(read) < 1_000
    assert checked


def test_what_is_wrong_is_told_all_the_same() -> None:
    wrong = {**LARGE["rows"], "bad": [0.5] * 9 + [float("nan")]}
    with pytest.raises(ValidationError) as found:
        in_one_go(normalising(wrong, "input"))
    assert [violation.field for violation in found.value.violations] == ["input.bad[9]"]
