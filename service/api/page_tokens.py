"""Page tokens: opaque, signed, and bound to caller, filter and order."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
import time
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

import grpc
import msgspec
from google.protobuf.message import Message

from flowkeep.v1.error_pb2 import ErrorReason
from persistence.listing import PageKey
from persistence.model import Scope
from service.api.errors import Refusal, RefusedError, invalid
from service.engine.violations import ValidationError

LIFETIME = 86_400
"""Seconds for which a token is valid."""

AHEAD = 300
"""Seconds by which the clock of another server may be ahead (CONTRACT 2.5)."""

_SIGNATURE = 16
_VERSION = 1
_NOT_CONDITIONS = ("page_size", "page_token", "view", "count_total", "count_unread")


class _Content(msgspec.Struct, array_like=True):
    version: int
    made: int
    condition: bytes


class _Row(_Content, array_like=True):
    value: float | datetime | None
    id: UUID


class _Step(_Content, array_like=True):
    path: str


Content = TypeVar("Content", bound=_Content)


class PageTokens:
    """Makes and reads page tokens, signed with `key`."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def make(self, request: Message, scope: Scope, position: PageKey) -> str:
        """Return the token of the page that begins behind `position`."""
        return self._signed(_Row(_VERSION, int(time.time()), _condition(request, scope), position.value, position.id))

    def make_path(self, request: Message, scope: Scope, path: str) -> str:
        """Return the token of the page that begins behind the step with a path."""
        return self._signed(_Step(_VERSION, int(time.time()), _condition(request, scope), path))

    def read(
        self, token: str, request: Message, scope: Scope, kind: type[float] | type[datetime] | None = None
    ) -> PageKey | None:
        """Return the position that a token holds, None for an empty token. `kind` is that of the values listed by.

        Raises ValidationError for a token that is not ours or belongs to another filter, order or caller, and
        RefusedError PAGE_TOKEN_EXPIRED.
        """
        content = self._read(token, _Row, request, scope)
        if content is None:
            return None
        if not _is_position(content.value, kind):
            raise wrong_token()
        return PageKey(content.value, content.id)

    def read_path(self, token: str, request: Message, scope: Scope) -> str:
        """Return the path of a step that a token holds, empty for an empty token. Raises as `read` does."""
        content = self._read(token, _Step, request, scope)
        return content.path if content else ""

    def _read(self, token: str, kind: type[Content], request: Message, scope: Scope) -> Content | None:
        if not token:
            return None
        content = self._open(token, kind)
        now = time.time()
        # Whoever holds the secret may have signed anything: what we would not write is not read.
        if content is None or content.condition != _condition(request, scope) or content.made > now + AHEAD:
            raise wrong_token()
        if now - content.made > LIFETIME:
            message = "the page token has expired; begin again without one"
            raise RefusedError(
                Refusal(grpc.StatusCode.OUT_OF_RANGE, ErrorReason.ERROR_REASON_PAGE_TOKEN_EXPIRED, message)
            )
        return content

    def _open(self, token: str, kind: type[Content]) -> Content | None:
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
            content = msgspec.msgpack.decode(body, type=kind)
        except msgspec.MsgspecError:
            return None
        return content if content.version == _VERSION else None

    def _signed(self, content: _Content) -> str:
        body = msgspec.msgpack.encode(content)
        return base64.urlsafe_b64encode(self._sign(body) + body).rstrip(b"=").decode()

    def _sign(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")[:_SIGNATURE]


def wrong_token() -> ValidationError:
    """Return the error for a token that is not ours, or is that of another list."""
    return invalid("page_token", "must be the next_page_token of a page with the same filter and order")


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
    for field, value in bare.ListFields():
        if isinstance(value, Message) and not value.ListFields():
            bare.ClearField(field.name)  # an empty filter is none
    owner = "*" if scope.owner is None else f"={scope.owner}"
    what = request.DESCRIPTOR.full_name
    text = b"\0".join((what.encode(), scope.org.encode(), owner.encode(), bare.SerializeToString(deterministic=True)))
    return hashlib.sha256(text).digest()[:_SIGNATURE]
