"""Signals: what executions were sent by name, and have kept because no step of theirs has taken it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec

Time = Annotated[datetime, msgspec.Meta(tz=True)]

MOST_PAYLOAD_BYTES = 64 << 10
"""Bytes of JSON that a signal may carry."""

MOST_WAITING = 100
"""Signals that an execution keeps for steps that have yet to take them."""

MOST_WAITING_BYTES = 256 << 10
"""Bytes of their payloads."""


class Signal(msgspec.Struct, frozen=True):
    """What somebody sent an execution by a name, which steps wait for. `size` is that of its payload as JSON."""

    id: UUID
    name: str
    payload: Mapping[str, Any]
    sender: str
    time: Time
    size: int = 0

    def body(self) -> dict[str, Any]:
        """Return the body of the message that brings it."""
        return {"name": self.name, "payload": dict(self.payload), "size": self.size}

    @classmethod
    def brought(cls, message_id: UUID, time: datetime, sender: str, body: Mapping[str, Any]) -> Signal:
        """Return the signal that a message brings, whoever has written its body."""
        payload, size = body.get("payload"), body.get("size")
        name = str(body.get("name", ""))
        given = payload if isinstance(payload, Mapping) else {}
        return cls(message_id, name, given, sender, time, size if type(size) is int else 0)


def has_room(sizes: Sequence[int]) -> bool:
    """Return whether an execution can keep signals of these sizes."""
    return len(sizes) <= MOST_WAITING and sum(sizes) <= MOST_WAITING_BYTES
