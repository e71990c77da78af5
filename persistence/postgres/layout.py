"""How the events that are written at once lie in a row of `transitions`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from persistence.model import Event
from persistence.postgres.records import NotReadableError

LETTERS = {
    "created": "c", "started": "s", "step_started": "S", "step_progressed": "P", "step_waiting": "W",
    "step_retrying": "R", "step_completed": "C", "step_failed": "F", "step_skipped": "K", "step_cancelled": "X",
    "variables_assigned": "V", "paused": "p", "resumed": "r", "signal_received": "g", "cancelling": "x",
    "finished": "f", "reopened": "o",
}  # fmt: skip
"""How the kinds of events are written, most of which would be longer than all else in a layout; others stand in full,
with a space behind. The view `events` has the same list.
"""

_KINDS = {letter: kind for kind, letter in LETTERS.items()}
_EVENT = re.compile(r"(?:([A-Za-z])|([^ ,;]*) )([0-9]{1,10})")


class Place(NamedTuple):
    """An event and where its bytes are, but for what was cut out of it."""

    seq: int
    transition_seq: int
    kind: str
    begin: int
    end: int


def layout(events: Sequence[Event], sizes: Iterable[int]) -> str:
    """Return the layout of events of which so many bytes each are in the body of the row."""
    parts = [
        f"{LETTERS.get(event.kind) or f'{event.kind} '}{size}{',' if event.seq < event.transition_seq else ';'}"
        for event, size in zip(events, sizes, strict=True)
    ]
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
            if match is None or (match[1] and match[1] not in _KINDS):
                raise NotReadableError("no layout")
            seq += 1
            end = begin + int(match[3])
            found.append(Place(seq, transition_seq, _KINDS[match[1]] if match[1] else match[2], begin, end))
            begin = end
    return found
