"""What work used up, as handlers report it."""

from __future__ import annotations

from typing import Annotated

import msgspec

MOST = 2**63 - 1
"""What a message can carry."""

_Amount = Annotated[int, msgspec.Meta(ge=0, le=MOST)]


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens that models were given, those that they gave, and the cost in millionths of the org's currency."""

    input_tokens: _Amount = 0
    output_tokens: _Amount = 0
    cost_micros: _Amount = 0

    def plus(self, more: Usage | None) -> Usage:
        """Return both together, each sum no more than MOST."""
        if more is None:
            return self
        return Usage(
            min(self.input_tokens + more.input_tokens, MOST),
            min(self.output_tokens + more.output_tokens, MOST),
            min(self.cost_micros + more.cost_micros, MOST),
        )
