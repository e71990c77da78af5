"""What waits for what, in circles or not."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from service.engine.slices import Work

_WAYS_A_PIECE = 2_000


Node = TypeVar("Node", bound=Hashable)


class Walk(Generic[Node]):
    """One walk along what waits for what, which takes each way once.

    `circles` are circles, no node in two of them; each begins and ends with the one of its nodes that was given first,
    and each node of a circle waits for the next. Empty exactly when there is none: then `sequence` has all nodes, each
    behind those that it waits for.
    """

    def __init__(self, waits: Mapping[Node, Sequence[Node]]) -> None:
        self.circles: list[list[Node]] = []
        self.sequence: list[Node] = []
        self._waits = waits
        self._places = {name: place for place, name in enumerate(waits)}
        self._seen: set[Node] = set()
        self._steps = 0

    def go(self) -> Work[None]:
        """Do the walk."""
        for name in self._waits:
            if name not in self._seen:
                yield from self._go(name)

    def _go(self, start: Node) -> Work[None]:
        way = _Way[Node]()
        way.enter(start, self._waits[start])
        self._seen.add(start)
        while way.names:
            self._steps += 1
            if self._steps % _WAYS_A_PIECE == 0:
                yield _WAYS_A_PIECE // 4
            try:
                name = way.next()
            except StopIteration:
                self.sequence.append(way.leave())
                continue
            if name in way.places:
                self.circles.append(self._circle(way.cut(name)))
            elif name in self._waits and name not in self._seen:
                self._seen.add(name)
                way.enter(name, self._waits[name])

    def _circle(self, names: list[Node]) -> list[Node]:
        first = names.index(min(names, key=self._places.__getitem__))
        return [*names[first:], *names[:first], names[first]]


class _Way(Generic[Node]):
    """The nodes from where the walk began to where it is, each of which waits for the next."""

    def __init__(self) -> None:
        self.names: list[Node] = []
        self.places: dict[Node, int] = {}
        self._ahead: list[Iterator[Node]] = []

    def enter(self, name: Node, waits: Sequence[Node]) -> None:
        self.places[name] = len(self.names)
        self.names.append(name)
        self._ahead.append(iter(waits))

    def next(self) -> Node:
        """Return what the last node waits for next. Raises StopIteration when there is no more."""
        return next(self._ahead[-1])

    def leave(self) -> Node:
        """Take the last node off the way."""
        self._ahead.pop()
        name = self.names.pop()
        del self.places[name]
        return name

    def cut(self, name: Node) -> list[Node]:
        """Take a node and all behind it off the way: they make a circle."""
        place = self.places[name]
        circle = self.names[place:]
        del self.names[place:], self._ahead[place:]
        for each in circle:
            del self.places[each]
        return circle


class Precedence:
    """Which steps have ended before which others start."""

    def __init__(self) -> None:
        self._bit: dict[str, int] = {}
        self._before: dict[str, int] = {}

    def arrange(self, waits: Mapping[str, Sequence[str]], sequence: Sequence[str]) -> Work[None]:
        """Find it out. There are no circles: `sequence` has each step behind those that it waits for."""
        self._bit = {name: 1 << index for index, name in enumerate(waits)}
        for name in sequence:
            mask = 0
            for waited in waits[name]:
                mask |= self._before[waited] | self._bit[waited]
            self._before[name] = mask
            yield 1 + len(waits[name]) // 4

    def precedes(self, first: str, second: str) -> bool:
        """Return whether `first` has ended whenever `second` starts."""
        return bool(self._bit[first] & self._before[second])
