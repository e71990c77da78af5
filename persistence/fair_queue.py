"""What waits, by org: each org has its turn, however much another one has brought."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """A queue per org; the items of an org keep their order."""

    def __init__(self) -> None:
        # In the order of their turns; none is empty.
        self._queues: OrderedDict[str, deque[Item]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Item]:
        return (item for queue in self._queues.values() for item in queue)

    def append(self, org: str, item: Item) -> None:
        """Put an item behind those of its org."""
        queue = self._queues.get(org)
        if queue is None:
            queue = self._queues[org] = deque()
        queue.append(item)
        self._size += 1

    def put_back(self, org: str, item: Item) -> None:
        """Put an item before all others."""
        queue = self._queues.get(org)
        if queue is None:
            queue = self._queues[org] = deque()
        queue.appendleft(item)
        self._queues.move_to_end(org, last=False)
        self._size += 1

    def next(self, passes: Callable[[Item], bool] | None = None) -> Item:
        """Take the item whose turn it is, of those that are not passed; they keep their turns, and what is behind them.

        Raises StopIteration when there is none.
        """
        for org, queue in self._queues.items():
            if passes is not None and passes(queue[0]):
                continue
            item = queue.popleft()
            if not queue:
                del self._queues[org]
            elif len(self._queues) > 1:
                self._queues.move_to_end(org)
            self._size -= 1
            return item
        raise StopIteration

    def take_out(self, is_chosen: Callable[[Item], bool]) -> list[Item]:
        """Take out the chosen items, wherever they stand, and return them."""
        taken = [item for item in self if is_chosen(item)]
        if taken:
            chosen = set(map(id, taken))
            kept = {org: deque(i for i in queue if id(i) not in chosen) for org, queue in self._queues.items()}
            self._queues = OrderedDict((org, queue) for org, queue in kept.items() if queue)
            self._size -= len(taken)
        return taken
