"""A document that was read: its value, where everything stands, and what is wrong with how it is written."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

from flowkeep.errors import PayloadError

Path: TypeAlias = tuple[str | int, ...]

MAX_DEPTH = 100
TEMPLATES = 'templates are written "${ … }", in quotes'

_PART = re.compile(r'\.?([^.\[\]"]+)|\[(\d+)\]|\[("(?:[^"\\]|\\.)*")\]')


class Place(NamedTuple):
    """A line and a column of a text, both counted from 1."""

    line: int
    column: int


class TextError(PayloadError):
    """What was given on the command line, in a file or on standard input cannot be taken; the text says it all."""

    def __init__(self, description: str) -> None:
        super().__init__("", description)


class UnreadableError(Exception):
    """A text is no document. `is_certain` when no other way of reading it may be tried."""

    def __init__(self, description: str, place: Place, *, is_certain: bool = False) -> None:
        super().__init__(f"line {place.line}, column {place.column}: {description}")
        self.description = description
        self.place = place
        self.is_certain = is_certain


@dataclass(frozen=True, slots=True)
class Fault:
    """Something in a document that could be read past. `is_left_out`: what it says is not in the value."""

    path: Path
    place: Place
    description: str
    is_left_out: bool = True

    def __str__(self) -> str:
        return f"line {self.place.line}, column {self.place.column}: {self.description}"


@dataclass(frozen=True)
class Document:
    """A JSON value, with the place of each of its parts: of its key in an object, of itself in a list.

    Places are looked for when one is asked for. `written` has what stands there where that is not what JSON would
    write, such as `yes` for true.
    """

    value: Any
    find_places: Callable[[], Mapping[Path, Place]]
    faults: Sequence[Fault] = ()
    written: Mapping[Path, str] = field(default_factory=dict)

    @cached_property
    def places(self) -> Mapping[Path, Place]:
        """Return where everything stands."""
        return self.find_places()

    def place(self, path: Path) -> Place:
        """Return where a path leads; of what is not there, where the nearest thing above it stands."""
        for length in range(len(path), -1, -1):
            if (found := self.places.get(path[:length])) is not None:
                return found
        return Place(1, 1)


class Lines:
    """Where the lines of a text begin."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer(r"\r\n|\n|\r", text))]

    def place(self, offset: int) -> Place:
        """Return the place of an offset."""
        line = bisect_right(self._starts, offset)
        return Place(line, offset - self._starts[line - 1] + 1)


def path_of(text: str) -> Path:
    """Return a path of its text, such as `steps[2].params.url` or `labels["a b"]`, as far as that is one."""
    return tuple(_parts(text))


def _parts(text: str) -> Iterator[str | int]:
    at = 0
    while match := _PART.match(text, at):
        name, index, quoted = match.groups()
        at = match.end()
        try:
            yield name if name else int(index) if index else str(json.loads(quoted))
        except ValueError:
            return
