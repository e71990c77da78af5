"""Page tokens: opaque, signed, and bound to caller, filter and order."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
import time
from datetime import UTC, datetime
from uuid import UUID

import grpc
import msgspec
from google.protobuf.message import Message

from flowkeep.v1.error_pb2 import ErrorReason
from persistence.model import PageKey, Scope
from service.api.errors import Refusal, RefusedError, invalid

LIFETIME = 86_400
"""Seconds for which a token is valid."""

AHEAD = 300
"""Seconds by which the clock of another server may be ahead (CONTRACT 2.5)."""

_SIGNATURE = 16
_VERSION = 1
_NOT_CONDITIONS = ("page_size", "page_token", "view", "count_total")


class _Content(msgspec.Struct, array_like=True):
    version: int
    made: int
    condition: bytes
    value: float | datetime | None
    id: UUID


class PageTokens:
    """Makes and reads page tokens, signed with `key`."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def make(self, request: Message, scope: Scope, position: PageKey) -> str:
        """Return the token of the page that begins behind `position`."""
        content = _Content(_VERSION, int(time.time()), _condition(request, scope), position.value, position.id)
        body = msgspec.msgpack.encode(content)
        return base64.urlsafe_b64encode(self._sign(body) + body).rstrip(b"=").decode()

    def read(
        self, token: str, request: Message, scope: Scope, kind: type[float] | type[datetime] | None = None
    ) -> PageKey | None:
        """Return the position that a token holds, None for an empty token. `kind` is that of the values listed by.

        Raises ValidationError for a token that is not ours or belongs to another filter, order or caller, and
        RefusedError PAGE_TOKEN_EXPIRED.
        """
        if not token:
            return None
        content = self._open(token)
        now = time.time()
        # Whoever holds the secret may have signed anything: what we would not write is not read.
        if (
            content is None
            or content.condition != _condition(request, scope)
            or content.made > now + AHEAD
            or not _is_position(content.value, kind)
        ):
            raise invalid("page_token", "must be the next_page_token of a page with the same filter and order")
        if now - content.made > LIFETIME:
            message = "the page token has expired; begin again without one"
            raise RefusedError(
                Refusal(grpc.StatusCode.OUT_OF_RANGE, ErrorReason.ERROR_REASON_PAGE_TOKEN_EXPIRED, message)
            )
        return PageKey(content.value, content.id)

    def _open(self, token: str) -> _Content | None:
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (binascii.Error, ValueError):
            return None
        if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != token:
            return None  # what base64 passes over, such as a dot, nobody has signed
        signature, body = raw[:_SIGNATURE], raw[_SIGNATURE:]
        if not hmac.compare_digest(signature, self._sign(body)):
            return None
        try:
            content = msgspec.msgpack.decode(body, type=_Content)
        except msgspec.MsgspecError:
            return None
        return content if content.version == _VERSION else None

    def _sign(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")[:_SIGNATURE]


def _is_position(value: float | datetime | None, kind: type[float] | type[datetime] | None) -> bool:
    """Return whether a value is one that can be listed by, or none."""
    match value:
        case None:
            return True
        case float():
            return kind is float and math.isfinite(value)
        case _:
            return kind is datetime and value.tzinfo is not None and _is_in_calendar(value)


def _is_in_calendar(value: datetime) -> bool:
    try:
        value.astimezone(UTC)
    except OverflowError:
        return False
    return True


def _condition(request: Message, scope: Scope) -> bytes:
    """Return a hash of all that decides which rows are listed, and in which order."""
    bare = type(request)()
    bare.CopyFrom(request)
    for name in _NOT_CONDITIONS:
        if name in request.DESCRIPTOR.fields_by_name:
            bare.ClearField(name)
    owner = "*" if scope.owner is None else f"={scope.owner}"
    what = request.DESCRIPTOR.full_name
    text = b"\0".join((what.encode(), scope.org.encode(), owner.encode(), bare.SerializeToString(deterministic=True)))
    return hashlib.sha256(text).digest()[:_SIGNATURE]
