"""Patches make the one value of the other, by the letter of RFC 6902, and cost no more than they may."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.json_patch import patching, weighing
from service.engine.slices import SLICE, Work, in_one_go

LEAVES = st.none() | st.booleans() | st.integers(0, 2) | st.floats(0, 2, width=16) | st.text("ab/~é", max_size=3)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text("a/~1", max_size=2), inner, max_size=4)
)


def applied(patch: list[dict[str, Any]], value: Any) -> Any:
    """What RFC 6902 makes of a value."""
    for operation in patch:
        names = [each.replace("~1", "/").replace("~0", "~") for each in operation["path"].split("/")[1:]]
        if not names:
            assert operation["op"] == "replace"
            value = operation["value"]
            continue
        value = holder = copy.deepcopy(value)
        for name in names[:-1]:
            holder = holder[int(name) if isinstance(holder, list) else name]
        last = int(names[-1]) if isinstance(holder, list) else names[-1]
        if operation["op"] == "add" and isinstance(holder, list):
            assert 0 <= last <= len(holder)
            holder.insert(last, operation["value"])
        elif operation["op"] == "remove":
            del holder[last]
        else:
            assert operation["op"] == "add" or isinstance(holder, list) or last in holder
            holder[last] = operation["value"]
    return value


def told(value: Any) -> str:
    """A value as text in which 1 is 1.0, and true is not."""
    if isinstance(value, list):
        return f"[{','.join(map(told, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{name!r}:{told(value[name])}' for name in sorted(value))}}}"
    return repr(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else repr(value)


@given(VALUES, VALUES)
def test_a_patch_makes_the_one_of_the_other(old: Any, new: Any):
    patch = in_one_go(patching(old, new))
    assert told(applied(patch, old)) == told(new)
    assert (patch == []) == (told(old) == told(new))


@pytest.mark.parametrize(
    ("old", "new", "patch"),
    [
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": 1, "b": [1]}, {"a": True, "b": [1]}, [{"op": "replace", "path": "/a", "value": True}]),
        ({"k" * 40: 1, "a/~": 2}, {"k" * 40: 1}, [{"op": "remove", "path": "/a~1~0"}]),
        ([1, 2, 3, 4, "x" * 99], [1, 3, 4, "x" * 99], [{"op": "remove", "path": "/1"}]),
        ([1, 4, "x" * 99], [1, 2, 3, 4, "x" * 99], [{"op": "add", "path": f"/{n}", "value": n + 1} for n in (1, 2)]),
        (1, {"a": 2}, [{"op": "replace", "path": "", "value": {"a": 2}}]),
    ],
)
def test_a_patch_says_what_differs_and_no_more(old: Any, new: Any, patch: Any):
    assert in_one_go(patching(old, new)) == patch


LONG = "k" * 100_000
NUMBERS = list(range(10_000))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (NUMBERS, NUMBERS[::-1]),
        (NUMBERS, []),
        ([[0] * 100 for _ in NUMBERS[:100]], [[0] * 99 for _ in NUMBERS[:99]]),
        ({LONG: [[0] for _ in NUMBERS]}, {LONG: [[1] for _ in NUMBERS]}),
        ({LONG: dict.fromkeys(map(str, NUMBERS))}, {LONG: {}}),
        ({"a": LONG}, {"a": LONG + "b"}),
    ],
    ids=["reversed", "removed", "nested", "below a long name", "removed below a long name", "text"],
)
def test_whatever_differs_takes_bounded_pieces_and_no_more_room_than_the_whole(old: Any, new: Any):
    pieces, patch = [0], list[Any]()

    def counted() -> Work[None]:
        patch.extend((yield from patching(old, new)))

    pieces += counted()
    assert max(pieces) <= 4 * SLICE
    assert sum(pieces) < 1_000_000
    assert in_one_go(weighing(patch)) <= 2 * in_one_go(weighing(new)) + 1_000
    assert told(applied(patch, old)) == told(new)
