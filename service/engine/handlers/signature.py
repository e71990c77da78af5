"""Reads the parameters of a declared function; the code is the client's, whose workers read them too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowkeep.typed import signature
from flowkeep.typed.signature import Signature
from service.engine import payload

__all__ = ["Signature", "read"]


def read(function: Callable[..., Any]) -> Signature:
    """Return the signature of a function, or raise TypeError that names the parameter at fault."""
    return signature.read(function, payload.check)
