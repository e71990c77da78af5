"""What is known of declared functions before they are read; the code is the client's, whose workers read them too."""

from __future__ import annotations

from flowkeep.typed.annotations import is_async, layers, place, takes_context

__all__ = ["is_async", "layers", "place", "takes_context"]
