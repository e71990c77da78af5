"""Looks at messages of MCP servers before the library does, whose models may take seconds for one of them."""

from __future__ import annotations

import re
from typing import Any

import msgspec

MESSAGE_BYTES = 512 << 10
MESSAGE_VALUES = 16_000
"""Values of JSON in an answer."""
SMALL_VALUES = 500
"""Values of a message that is no answer to a call, as each of them may become an error of its own."""

TOO_LARGE = -32071
"""The number of the error that stands for an answer which is not read."""
TOO_LARGE_TEXT = f"the message has over {MESSAGE_BYTES:,} bytes or {MESSAGE_VALUES:,} values"

_CUT = 512
_ID = re.compile(rb'"id"\s*:\s*([0-9]{1,15})\b')


def screened(data: bytes) -> bytes | None:
    """Return a message as it came, or the error that stands for it; None when nobody waits for it."""
    try:
        message = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    if not isinstance(message, dict):
        return None
    if "method" in message:
        return None if exceeds(message, SMALL_VALUES) else data
    if not exceeds(message, MESSAGE_VALUES):
        return data
    return refusal(message.get("id"))


def refusal(request_id: Any, number: int = TOO_LARGE, text: str = TOO_LARGE_TEXT) -> bytes | None:
    """Return the error that answers a request in place of its server, None where it is no request of ours."""
    if not isinstance(request_id, int):
        return None
    error = {"code": number, "message": text}
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "error": error})


def refusal_of_cut(head: bytes, tail: bytes) -> bytes | None:
    """Return the error in place of a message of which beginning and end are known: there its id stands."""
    found = _ID.search(head[:_CUT]) or _ID.search(tail[-_CUT:])
    return refusal(int(found[1])) if found else None


def exceeds(value: Any, most: int) -> bool:
    """Return whether JSON is made of more values than so many."""
    pending, left = [value], most
    while pending:
        each = pending.pop()
        left -= 1
        if isinstance(each, dict):
            pending.extend(each.values())
        elif isinstance(each, list):
            pending.extend(each)
        if len(pending) > left:
            return True
    return False
