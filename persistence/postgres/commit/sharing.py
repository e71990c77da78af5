"""Large payloads of an execution are kept once, however often they come, and rows refer to them by digest."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from persistence.model import LARGE_PAYLOAD, Event
from persistence.postgres.records import encoded
from persistence.postgres.shared_payloads import PayloadKey

_REMEMBERED = 10_000


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


class SharedPayload(NamedTuple):
    """A large payload: a document of a step, or a part of the message of an event."""

    org: str
    execution_id: UUID
    digest: str
    document: msgspec.Raw | None
    message: bytes | None


class Payloads(dict[PayloadKey, SharedPayload]):
    """The large payloads that one write refers to."""

    def __init__(self, org: str, execution_id: UUID) -> None:
        super().__init__()
        self._org, self._execution_id = org, execution_id

    def kept(self, value: Any, name: str, references: dict[str, Any]) -> msgspec.Raw | None:
        """Return a value as its row holds it; None for one that is kept apart, with the reference to it."""
        text = encoded(value)
        if len(text) < LARGE_PAYLOAD:
            return msgspec.Raw(text)
        references[name] = self._add(text, msgspec.Raw(text), None)
        return None

    def body(self, event: Event) -> tuple[bytes, dict[str, Any] | None]:
        """Return what a row holds of the body of an event, and the reference to what was cut out of it."""
        if event.payload is None:
            return event.body, None
        begin, end = event.payload
        message = event.body[begin:end]
        reference = {"digest": self._add(message, None, message), "at": begin, "size": len(message)}
        return _own(event), reference

    def _add(self, content: bytes, text: msgspec.Raw | None, message: bytes | None) -> str:
        digest = hashlib.sha256(content).hexdigest()
        key = self._execution_id, digest
        if key not in self:
            self[key] = SharedPayload(self._org, self._execution_id, digest, text, message)
        return digest


def body_of(events: Sequence[Event]) -> bytes:
    """Return the body of a row of events."""
    return b"".join(map(_own, events))


def _own(event: Event) -> bytes:
    if event.payload is None:
        return event.body
    begin, end = event.payload
    return event.body[:begin] + event.body[end:]
