"""A heap gives the least of what it holds, and never changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.planning.heap import Heap


@given(st.lists(st.integers() | st.none()))
def test_it_holds_what_was_put_in_and_not_taken_out(changes: list[int | None]) -> None:
    """A number is put in, None takes the least out."""
    heap, model = Heap[int](), list[int]()
    for change in changes:
        before, kept = heap, sorted(model)
        if change is not None:
            heap = heap.push(change)
            model.append(change)
        elif model:
            assert heap.least == min(model)
            heap = heap.pop()
            model.remove(min(model))
        assert sorted(before) == kept
        assert sorted(heap) == sorted(model)
        assert bool(heap) == bool(model)
        assert heap == Heap(model)
    assert heap != heap.push(0)


def test_an_empty_one_has_no_least() -> None:
    with pytest.raises(IndexError):
        _ = Heap[int]().least
    with pytest.raises(IndexError):
        Heap[int]().pop()


@pytest.mark.parametrize("numbers", [range(10_000), range(10_000, 0, -1)])
def test_no_order_of_entries_makes_it_deep(numbers: range) -> None:
    heap = Heap(numbers)
    for _ in range(5_000):
        heap = heap.pop()
    assert heap.least == sorted(numbers)[5_000]
