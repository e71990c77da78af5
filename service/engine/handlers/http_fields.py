"""Values as they are sent in a header, a query or a form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

SCALAR = {"type": ["string", "number", "boolean"]}
FIELDS = {"type": "object", "additionalProperties": {"anyOf": [SCALAR, {"type": "array", "items": SCALAR}]}}

HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# The call's identity and the framing of the message are not the workflow's to choose.
OWN_HEADERS = frozenset(
    {"idempotency-key", "x-flowkeep-attempt", "content-length", "transfer-encoding", "connection", "upgrade"}
)
SECRET_HEADERS = frozenset({"set-cookie", "set-cookie2", "authorization", "www-authenticate", "proxy-authenticate"})
"""Of answers."""
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")


def text_of(value: Any) -> str:
    """Return a scalar as it is sent in a header, a query or a form."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def listed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields with texts as values, lists for names that are to be repeated."""
    return {name: [*map(text_of, v)] if isinstance(v, list) else text_of(v) for name, v in fields.items()}


def fault_of_value(value: str) -> str:
    """Return why a header cannot have a value, empty if it can."""
    if not _HEADER_VALUE.fullmatch(value):
        return "has a value that headers cannot carry: a line end, another control character or one beyond ASCII"
    return "has a value that begins or ends with a space" if value != value.strip() else ""
