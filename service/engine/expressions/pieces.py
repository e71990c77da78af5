"""Strings, comments and braces of a source, told apart without parsing it, also where it does not parse."""

from __future__ import annotations

import re

# Raw strings have no escapes.
PIECE = re.compile(
    r"""
    (?<![A-Za-z0-9_])[bB]?[rR](?:\"{3}.*?\"{3}|'{3}.*?'{3}|"[^"\n]*"|'[^'\n]*')
  | \"{3}(?:\\.|[^\\])*?\"{3}
  | '{3}(?:\\.|[^\\])*?'{3}
  | "(?:\\.|[^"\\\n])*"
  | '(?:\\.|[^'\\\n])*'
  | //[^\n]*
  | [{}]
    """,
    re.VERBOSE | re.DOTALL,
)


def code(source: str) -> str:
    """Return a source with blanks in place of what stands in strings and comments."""
    return PIECE.sub(lambda piece: piece[0] if piece[0] in "{}" else " " * len(piece[0]), source)
