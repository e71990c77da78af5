"""How large a regular expression becomes when RE2 compiles it."""

from __future__ import annotations

import re

_PART = re.compile(
    r"""
    \\[pP](?:\{[^}]*\}|.)                      # a class of Unicode: hundreds of ranges
  | \\[QE]
  | (?P<escape>\\.)
  | \[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]    # a class of characters
  | \{(?P<least>\d+)(?:,(?P<most>\d*))?\}
  | (?P<open>\()
  | (?P<close>\))
  | .
    """,
    re.VERBOSE | re.DOTALL,
)
# Instructions, counted in compiled programs: a character that may take several bytes needs about ten.
_UNICODE_CLASS, _WIDE = 600, 12


def program_size(pattern: str) -> int:
    """Return about how many instructions the pattern compiles to, never far too few. Counts `{n}` and nesting."""
    groups, size, last = [], 1, 0
    for part in _PART.finditer(pattern):
        if part["open"]:
            groups.append(size)
            size, last = 1, 0
        elif part["close"] and groups:
            last, size = size + 2, groups.pop() + size + 2
        elif part["least"]:
            size += last * max(int(part["least"][:5]), int((part["most"] or "0")[:5]), 1)
        else:
            last = _weight(part[0])
            size += last
    return sum(groups, size)


def _weight(part: str) -> int:
    if part[0] == "[":
        return _WIDE * (1 + part.count("\\")) + 3 * len(part) + _UNICODE_CLASS * part.lower().count("\\p")
    if part[:2] in ("\\p", "\\P"):
        return _UNICODE_CLASS
    return _WIDE if part in (".", "\\S", "\\W", "\\D", "\\C") else 2
