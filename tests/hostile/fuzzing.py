"""Mutations of inputs, by a seed: the same ones in every run."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

ODD = (
    b"\0",
    b"\xff",
    b"\x80",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\xff" * 9 + b"\x01",
    b"\x0b",
    b"\x0c",
    b"${",
    b"}",
    b"{",
    b"[",
    b'"',
    b"\\u0000",
    b"\\ud800",
    b"1e400",
    b"-0",
    b"NaN",
    b"9007199254740993",
    b"%00",
    b"%",
    b"..",
    b"\r\n",
    b"=",
    b".",
    b"'",
    b" ",
    b"A" * 300,
    b"((((((((",
)
"""What breaks readers of one format or another."""


def mutations(corpus: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Yield so many inputs, each one of the corpus with one to four changes."""
    draw = random.Random(seed)
    for _ in range(count):
        changed = bytearray(draw.choice(corpus))
        for _ in range(draw.randint(1, 4)):
            _change(changed, corpus, draw)
        yield bytes(changed)


def _change(changed: bytearray, corpus: Sequence[bytes], draw: random.Random) -> None:
    place = draw.randint(0, len(changed))
    end = min(len(changed), place + draw.choice((1, 1, 2, 4, 16, 64)))
    match draw.randrange(7):
        case 0 if place < len(changed):
            changed[place] ^= 1 << draw.randrange(8)
        case 1 if place < len(changed):
            changed[place] = draw.randrange(256)
        case 2:
            del changed[place:end]
        case 3:
            changed[place:place] = changed[place:end] * draw.choice((1, 2, 50))
        case 4:
            other = draw.choice(corpus)
            start = draw.randint(0, len(other))
            changed[place:end] = other[start : start + draw.choice((1, 8, 64))]
        case _:
            changed[place:place] = draw.choice(ODD)
