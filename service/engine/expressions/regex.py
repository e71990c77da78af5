"""How large a regular expression becomes when RE2, or the engine of JSON Schema patterns, compiles it."""

from __future__ import annotations

import re
from typing import NamedTuple

_PART = re.compile(
    r"""
    \\[pP](?:\{[^}]*\}|.)                      # a class of Unicode: hundreds of ranges
  | \\[QE]
  | (?P<escape>\\.)
  | \[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]    # a class of characters
  | \{(?P<least>\d+)(?:,(?P<most>\d*))?\}
  | (?P<again>[*+?])
  | (?P<open>\()
  | (?P<close>\))
  | .
    """,
    re.VERBOSE | re.DOTALL,
)
# In free spacing, blanks and comments may stand between a part and its repetition.
_FREE_SPACING = re.compile(r"\(\?[a-zA-Z]*x")
_ASSERTIONS = frozenset({"^", "$", "\\b", "\\B", "\\A", "\\z"})
# Instructions, in what they take to compile: a class beyond ASCII is many ranges of bytes.
_UNICODE_CLASS, _WIDE = 5_000, 15
# Longer patterns are not looked at: each character may be what costs most.
_MAX_PATTERN = 2_000
_MAX_TIMES = 100_000
_DIGITS = 6


class Program(NamedTuple):
    """A compiled pattern: its instructions, the positions that a match can have come to, and how many of them at once.

    `is_fixed`: whatever it matches has the same length, so that what follows begins at one place.
    """

    size: int
    positions: int = 0
    together: int = 0
    is_fixed: bool = True

    def then(self, other: Program) -> Program:
        """Return one behind the other."""
        together = max(self.together, other.together) if self.is_fixed else self.together + other.positions
        return Program(
            self.size + other.size, self.positions + other.positions, together, self.is_fixed and other.is_fixed
        )

    def either(self, other: Program) -> Program:
        """Return one or the other."""
        return Program(
            self.size + other.size, self.positions + other.positions, self.together + other.together, is_fixed=False
        )

    def repeated(self, count: int, *, is_fixed: bool) -> Program:
        """Return one so often, or up to so often."""
        positions = self.positions * count
        together = self.together if self.is_fixed else positions
        return Program(self.size * count, positions, together, is_fixed and self.is_fixed)


def program_size(pattern: str) -> int:
    """Return about how many instructions the pattern compiles to, never far too few. Counts `{n}` and nesting."""
    return program(pattern).size


def program(pattern: str, longest: int = _MAX_PATTERN) -> Program:
    """Return how large a pattern becomes, never far too small; one of more than `longest` characters as at worst."""
    if len(pattern) > longest or _FREE_SPACING.search(pattern):
        worst = _UNICODE_CLASS * len(pattern)
        return Program(worst, worst, worst, is_fixed=False)
    groups = [_Group()]
    for part in _PART.finditer(pattern):
        if part["open"]:
            groups.append(_Group())
        elif part["close"] and len(groups) > 1:
            whole = groups.pop().whole
            groups[-1].add(whole._replace(size=whole.size + 3))
        elif part["least"]:
            groups[-1].repeat(_times(part["least"], part["most"]), is_fixed=part["most"] is None)
        elif part["again"]:
            groups[-1].repeat_at_will(part[0])
        elif part[0] == "|":
            groups[-1].branch()
        else:
            groups[-1].add(_weight(part[0]))
    while len(groups) > 1:
        groups[-2].add(groups.pop().whole)
    found = groups[0].whole
    # What may begin anywhere has come to all of its positions at once.
    return found if pattern.startswith("^") and "|" not in pattern else found._replace(together=found.positions)


class _Group:
    """What stands between two brackets, as far as it was read."""

    def __init__(self) -> None:
        self._branches: list[Program] = []
        self._before = Program(1)
        self._last = Program(0)

    @property
    def whole(self) -> Program:
        whole = self._before.then(self._last)
        for branch in self._branches:
            whole = branch.either(whole)
        return whole

    def add(self, part: Program) -> None:
        self._before, self._last = self._before.then(self._last), part

    def branch(self) -> None:
        self._branches.append(self._before.then(self._last))
        self._before, self._last = Program(2), Program(0)

    def repeat(self, count: int, *, is_fixed: bool) -> None:
        """Repeat the last part, which may be a repetition itself."""
        self._last = self._last.repeated(count, is_fixed=is_fixed)

    def repeat_at_will(self, sign: str) -> None:
        once = self._last._replace(size=self._last.size + 2)
        is_loop = sign != "?" and once.positions > 1
        self._last = once._replace(together=once.positions if is_loop else once.together, is_fixed=False)


def _times(least: str, most: str | None) -> int:
    return max(1, *(min(_MAX_TIMES, int(digits[:_DIGITS] or 0)) for digits in (least, most or "")))


def _weight(part: str) -> Program:
    if part[:2] in ("\\p", "\\P"):
        return Program(_UNICODE_CLASS, 2, 2)
    if part[0] == "[" and len(part) > 1:
        wide = part[1] == "^" or not part.isascii() or any(escape in part for escape in ("\\s", "\\S", "\\W", "\\D"))
        states = 2 if wide or "\\p" in part.lower() else 1
        size = (_WIDE if wide else 0) + len(part) + _UNICODE_CLASS * part.lower().count("\\p")
        return Program(size, states, states)
    if part in (".", "\\s", "\\S", "\\W", "\\D", "\\C"):
        return Program(_WIDE, 2, 2)
    states = 0 if part in _ASSERTIONS else 1 if part.isascii() else 2
    return Program(2, states, states)
