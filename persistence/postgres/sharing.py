"""Large payloads of an execution are kept once, however often they come, and rows refer to them by digest."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from persistence.model import LARGE_PAYLOAD, Event
from persistence.postgres.connection import Session
from persistence.postgres.records import NotReadableError, document, encoded

COLUMNS = ("input", "output", "assigned")
"""Columns of a step whose payload may be kept apart."""

_REMEMBERED = 10_000
# Key by key (OFFSET 0 keeps it so), as details are read.
_READ = """
SELECT p.* FROM unnest($1::text[], $2::uuid[], $3::text[]) AS u(org_id, id, digest), LATERAL (
    SELECT p.execution_id, p.digest, p.document, p.message FROM shared_payloads p
    WHERE p.org_id = u.org_id AND p.execution_id = u.id AND p.digest = u.digest OFFSET 0) p"""

PayloadKey = tuple[UUID, str]
"""Execution and digest."""


class Sharing:
    """Which large payloads are known to be kept."""

    def __init__(self) -> None:
        self.known: OrderedDict[PayloadKey, None] = OrderedDict()

    def forget(self) -> None:
        """Take nothing for kept any more: another server may not have got what the last one had."""
        self.known.clear()

    def note(self, keys: Iterable[PayloadKey]) -> None:
        """Take these for kept: the transaction that wrote them has been committed."""
        self.known.update(dict.fromkeys(keys))
        while len(self.known) > _REMEMBERED:
            self.known.popitem(last=False)


class Payloads(dict[PayloadKey, Any]):
    """The large payloads that one write refers to."""

    def __init__(self, org: str, execution_id: UUID) -> None:
        super().__init__()
        self._org, self._execution_id = org, execution_id

    def kept(self, value: Any, name: str, references: dict[str, str]) -> msgspec.Raw | None:
        """Return a value as its row holds it; None for one that is kept apart, with the reference to it."""
        if value is None:
            return None
        text = encoded(value)
        if len(text) < LARGE_PAYLOAD:
            return msgspec.Raw(text)
        references[name] = self._add(text, msgspec.Raw(text), None)
        return None

    def body(self, event: Event) -> tuple[bytes, dict[str, Any] | None]:
        """Return the body of an event as its row holds it, and the reference to what was cut out of it."""
        if event.payload is None:
            return event.body, None
        begin, end = event.payload
        message = event.body[begin:end]
        reference = {"digest": self._add(message, None, message), "at": begin, "size": len(message)}
        return event.body[:begin] + event.body[end:], reference

    def _add(self, content: bytes, text: msgspec.Raw | None, message: bytes | None) -> str:
        digest = hashlib.sha256(content).hexdigest()
        key = self._execution_id, digest
        if key not in self:
            self[key] = self._org, self._execution_id, digest, text, message
        return digest


async def read(session: Session, wanted: Sequence[tuple[str, UUID, str]]) -> dict[PayloadKey, Any]:
    """Return the rows of shared payloads, by execution and digest; some may not be there."""
    if not wanted:
        return {}
    rows = await session.fetch(_READ, *map(list, zip(*dict.fromkeys(wanted), strict=True)))
    return {(row["execution_id"], row["digest"]): row for row in rows}


def references(text: str | None) -> dict[str, str]:
    """Return which columns of a step are kept apart, with their digests. Raises NotReadableError."""
    if text is None or text == "null":
        return {}
    found = {name: digest for name, digest in document(text).items() if name in COLUMNS}
    if any(type(digest) is not str for digest in found.values()):
        raise NotReadableError("no digest")
    return found


def is_body(event: Event, body: bytes | None, shared: str | None) -> bool:
    """Whether a row holds the body of this event."""
    if shared is None or event.payload is None:
        return body == event.body
    begin, end = event.payload
    return body == event.body[:begin] + event.body[end:]


def cut_out(text: str | None) -> tuple[str, int] | None:
    """Return the digest of what was cut out of the body of an event, and where it belongs; None if nothing can be."""
    try:
        found = document(text)
        digest, at = found["digest"], found["at"]
    except Exception:  # written by hand: the body is then no message, which is told where it is sent
        return None
    return (digest, at) if type(digest) is str and type(at) is int else None
