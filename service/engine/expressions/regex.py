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
# Instructions, in what they take to compile: a class beyond ASCII is many ranges of bytes.
_UNICODE_CLASS, _WIDE = 5_000, 15
# Longer patterns are not looked at: each character may be what costs most.
_MAX_PATTERN = 2_000


def program_size(pattern: str) -> int:
    """Return about how many instructions the pattern compiles to, never far too few. Counts `{n}` and nesting."""
    if len(pattern) > _MAX_PATTERN:
        return _UNICODE_CLASS * len(pattern)
    groups: list[int] = []
    size, last = 1, 0
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
    if part[:2] in ("\\p", "\\P"):
        return _UNICODE_CLASS
    if part[0] == "[" and len(part) > 1:
        wide = part[1] == "^" or not part.isascii() or any(escape in part for escape in ("\\S", "\\W", "\\D"))
        return (_WIDE if wide else 0) + len(part) + _UNICODE_CLASS * part.lower().count("\\p")
    return _WIDE if part in (".", "\\S", "\\W", "\\D", "\\C") else 2
