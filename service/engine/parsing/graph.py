"""The order of the steps: who waits for whom, in circles or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter


def cycles(waits: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return circles among the steps, no step in two of them; each begins and ends with its first step as defined.

    Each step of a circle waits for the next. Empty exactly when there is none.
    """
    found = []
    left = dict(waits)
    while (circle := _cycle(left)) is not None:
        found.append(circle)
        for name in set(circle):
            del left[name]
    return found


def _cycle(waits: Mapping[str, Sequence[str]]) -> list[str] | None:
    try:
        TopologicalSorter({name: [w for w in before if w in waits] for name, before in waits.items()}).prepare()
    except CycleError as error:
        circle = error.args[1][:0:-1]
        order = list(waits)
        first = circle.index(min(circle, key=order.index))
        return [*circle[first:], *circle[:first], circle[first]]
    return None


class Order:
    """Which steps have ended before which others start. There must be no circles."""

    def __init__(self, waits: Mapping[str, Sequence[str]]) -> None:
        self._bit = {name: 1 << index for index, name in enumerate(waits)}
        self._before: dict[str, int] = {}
        for name in TopologicalSorter(waits).static_order():
            mask = 0
            for waited in waits[name]:
                mask |= self._before[waited] | self._bit[waited]
            self._before[name] = mask

    def precedes(self, first: str, second: str) -> bool:
        """Return whether `first` has ended whenever `second` starts."""
        return bool(self._bit[first] & self._before[second])
