"""How the events that are written at once lie in a row of `transitions`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from persistence.model import Event
from persistence.postgres.records import NotReadableError

_EVENT = re.compile(r"([^ ,;]*) ([0-9]{1,10})")


class Place(NamedTuple):
    """An event and where its bytes are, but for what was cut out of it."""

    seq: int
    transition_seq: int
    kind: str
    begin: int
    end: int


def layout(events: Sequence[Event], sizes: Iterable[int]) -> str:
    """Return the layout of events of which so many bytes each are in the body of the row."""
    parts = (
        f"{event.kind} {size}{',' if event.seq < event.transition_seq else ';'}"
        for event, size in zip(events, sizes, strict=True)
    )
    return "".join(parts)[:-1]


def places(last_seq: int, written: str) -> list[Place]:
    """Return the events of a row in order. Raises NotReadableError when it is no layout."""
    transitions = [part.split(",") for part in written.split(";")]
    seq = last_seq - sum(map(len, transitions))
    found, begin = [], 0
    for transition in transitions:
        transition_seq = seq + len(transition)
        for part in transition:
            match = _EVENT.fullmatch(part)
            if match is None:
                raise NotReadableError("no layout")
            seq += 1
            end = begin + int(match[2])
            found.append(Place(seq, transition_seq, match[1], begin, end))
            begin = end
    return found
