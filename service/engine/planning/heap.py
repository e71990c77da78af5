"""A heap that never changes: what is put in or taken out gives another one, which shares nearly all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, final

if TYPE_CHECKING:
    from _typeshed import SupportsRichComparison

Entry = TypeVar("Entry", bound="SupportsRichComparison")

# A leftist heap: rank, least entry, and two heaps of others, the one of the lesser rank on the right.
_Node = tuple[int, Any, Any, Any]


@final
class Heap(Generic[Entry]):
    """Entries that can be compared, the least of which is at hand; each change takes time by the logarithm of them.

    Two heaps are equal when they hold the same entries, however they came there.
    """

    __slots__ = ("_root", "first")

    first: Entry | None
    """The least entry, None when there is none."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._root: _Node | None = None
        for entry in entries:
            self._root = _merged(self._root, (1, entry, None, None))
        self.first = None if self._root is None else self._root[1]

    @property
    def least(self) -> Entry:
        """The least entry. Raises IndexError when there is none."""
        if self._root is None:
            raise IndexError("the heap is empty")
        least: Entry = self._root[1]
        return least

    def push(self, entry: Entry) -> Heap[Entry]:
        """Return the heap with an entry more."""
        return _heap(_merged(self._root, (1, entry, None, None)))

    def pop(self) -> Heap[Entry]:
        """Return the heap without its least entry. Raises IndexError when there is none."""
        if self._root is None:
            raise IndexError("the heap is empty")
        return _heap(_merged(self._root[2], self._root[3]))

    def __bool__(self) -> bool:
        return self._root is not None

    def __iter__(self) -> Iterator[Entry]:
        """Give the entries, the least first and the others in no order."""
        left = [self._root]
        while left:
            if (node := left.pop()) is not None:
                yield node[1]
                left += (node[3], node[2])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Heap) and sorted(self) == sorted(other)

    __hash__ = None  # type: ignore[assignment]  # entries need no hash

    def __repr__(self) -> str:
        return f"Heap({sorted(self)!r})"


def _heap(root: _Node | None) -> Heap[Any]:
    heap = Heap.__new__(Heap)
    heap._root = root
    heap.first = None if root is None else root[1]
    return heap


def _merged(one: _Node | None, other: _Node | None) -> _Node | None:
    if one is None:
        return other
    if other is None:
        return one
    if other[1] < one[1]:
        one, other = other, one
    left, right = one[2], _merged(one[3], other)
    if left is None or (right is not None and left[0] < right[0]):
        left, right = right, left
    return (right[0] if right else 0) + 1, one[1], left, right
