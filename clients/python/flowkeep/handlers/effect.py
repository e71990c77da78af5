"""What an attempt does outside of its execution, and thus what may become of it when nobody knows how it ended."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

EffectName = Literal["none", "idempotent", "external"]


class Effect(StrEnum):
    """What a handler promises of an attempt; `@handler` takes the member or its value.

    After a crash nobody knows how far an attempt had come whose end was not recorded; then the server goes by this.
    """

    NONE = "none"
    """Nothing outside: it computes or reads, and nobody else can tell how often it ran. The server may run it before it
    has stored what the step depends on, so that a row of such steps costs one write; and again after a crash, unseen,
    under the same number of attempt and without a trace in the history. It waits where `delivery: AT_MOST_ONCE` asks
    for it. A handler with any other effect begins when all that its step depends on is stored."""

    IDEMPOTENT = "idempotent"
    """Something outside that is the same after a second attempt, given the idempotency token of the context. The
    server records that an attempt was cut off and makes another one, as the step's policies say."""

    EXTERNAL = "external"
    """Something outside that a second attempt may do again. The server does as with `idempotent`, and shows it in the
    list of handlers: a step for which a second attempt is wrong says `delivery: AT_MOST_ONCE`."""


def effect_of(value: Any) -> Effect:
    """Return the effect that a value names. Raises ValueError with the end of a sentence."""
    if isinstance(value, str):
        for each in Effect:
            if each == value:
                return each
    *first, last = (f'"{each}"' for each in Effect)
    raise ValueError(f"must be {', '.join(first)} or {last}, not {_shown(value)}")


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str | bool) else "None" if value is None else type(value).__name__
