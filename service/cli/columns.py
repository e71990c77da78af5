"""Tables, lists of facts and prose that fit the terminal: columns are left out, words and ids stay whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from service.cli.rendering import clean, one_line

_GAP = "  "
# Other columns are left out rather than the one that wraps made narrower than the first, and it rather than narrower
# than the second.
_EASY_WRAPPED, _LEAST_WRAPPED = 30, 20
_LEFT_OUT = "…"
# Where an expression that no line holds goes on in the next.
_BEFORE_A_METHOD = re.compile(r"(?<=\))(?=\.[a-z])")


class FittingTable:
    """Rows of cells under titles, no wider than the terminal.

    Where there is not enough room, first the columns that are empty are left out, then those of `leave_out` from the
    first on; the others always stay. The cells of `wraps` are broken between words.
    """

    def __init__(self, *titles: str, leave_out: Sequence[str] = (), wraps: str = "") -> None:
        self._titles = titles
        self._leave_out = leave_out
        self._wraps = wraps
        self._rows: list[tuple[Text, ...]] = []

    def add_row(self, *cells: str | Text) -> None:
        """Add a row with a cell for each title. Line breaks become spaces."""
        self._rows.append(tuple(_cell(cell) for cell in cells))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = self._fitting(options.max_width)
        shown = [index for index, title in enumerate(self._titles) if title in widths]
        fitting = [widths[self._titles[index]] for index in shown]
        yield _line([Text(self._titles[index], "dim") for index in shown], fitting)
        yield _as_it_is(
            Text(("-" if options.ascii_only else "─") * (sum(fitting) + len(_GAP * (len(shown) - 1))), "dim")
        )
        for row in self._rows:
            yield from self._lines(row, shown, fitting)

    def _fitting(self, room: int) -> dict[str, int]:
        """Return the titles of the columns that are shown, with their widths."""
        columns = zip(*self._rows, strict=True) if self._rows else [()] * len(self._titles)
        natural = {}
        empty = []
        for title, cells in zip(self._titles, columns, strict=True):
            widest = max((cell.cell_len for cell in cells), default=0)
            natural[title] = max(widest, cell_len(title))
            empty += [] if widest or title not in self._leave_out else [title]
        for title in empty if _width(natural) > room else ():
            del natural[title]
        for title in self._leave_out:
            least = _LEAST_WRAPPED if title == self._wraps else _EASY_WRAPPED
            if _width(natural) <= room or self._narrowed(natural, room, least):
                break
            natural.pop(title, None)
        return self._narrowed(natural, room, _LEAST_WRAPPED) or natural

    def _narrowed(self, widths: dict[str, int], room: int, least: int) -> dict[str, int] | None:
        """Return the widths with the column that wraps as wide as the others leave it, None when that is too narrow."""
        if self._wraps not in widths:
            return None
        left = room - _width({**widths, self._wraps: 0})
        if left < min(widths[self._wraps], least):
            return None
        return {**widths, self._wraps: min(widths[self._wraps], left)}

    def _lines(self, row: Sequence[Text], shown: Sequence[int], widths: Sequence[int]) -> Iterable[Text]:
        parts = [
            _wrapped(row[index], width) if self._titles[index] == self._wraps else [row[index]]
            for index, width in zip(shown, widths, strict=True)
        ]
        for line in zip_longest(*parts, fillvalue=Text()):
            yield _line(line, widths)


class Facts:
    """Names with values, those that are empty left out. Values are broken between words; a longer word stays whole."""

    def __init__(self, *facts: tuple[str, str | Text]) -> None:
        self._facts = [(name, _cell(value)) for name, value in facts if value]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names = max((cell_len(name) for name, _ in self._facts), default=0)
        for name, value in self._facts:
            room = max(1, options.max_width - names - len(_GAP))
            for index, line in enumerate(_broken(value, room)):
                yield _line([Text("" if index else name, "dim"), line], [names, 0])


class Prose:
    """A text that is broken between words where the terminal ends, so that it does not break them itself."""

    def __init__(self, text: Text) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self._text.split("\n"):
            yield from (_as_it_is(part) for part in _broken(line, options.max_width))


def _cell(cell: str | Text) -> Text:
    """Return a cell on one line, cleaned: what stands in it may be from elsewhere."""
    if isinstance(cell, str):
        return Text(one_line(clean(cell)))
    return Text(one_line(clean(cell.plain)), cell.style, spans=cell.spans)


def _width(widths: dict[str, int]) -> int:
    return sum(widths.values()) + len(_GAP) * (len(widths) - 1)


def _wrapped(text: Text, width: int) -> list[Text]:
    """Return a text in lines of whole words; one that no line holds is broken before a method, or left out."""
    if text.cell_len <= width:
        return [text]
    parts = [part for word in text.plain.split() for part in _parts(word, width)]
    words = [part if cell_len(part) <= width else _LEFT_OUT for part in parts]
    return _broken(Text(" ".join(words), text.style), width)


def _parts(word: str, width: int) -> list[str]:
    return [word] if cell_len(word) <= width else _BEFORE_A_METHOD.split(word)


def _broken(text: Text, width: int) -> list[Text]:
    if text.cell_len <= width:
        return [text]
    lines, start, position = [], 0, 0
    for word in text.plain.split(" "):
        stop = position + len(word)
        if position > start and cell_len(text.plain[start:stop]) > width:
            lines.append(text[start : position - 1])
            start = position
        position = stop + 1
    return [*lines, text[start:]]


def _line(cells: Sequence[Text], widths: Sequence[int]) -> Text:
    line = Text()
    for index, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        line.append(_GAP if index else "").append_text(cell)
        line.append(" " * (width - cell.cell_len))
    line.rstrip()
    return _as_it_is(line)


def _as_it_is(line: Text) -> Text:
    line.no_wrap, line.overflow = True, "ignore"
    return line
