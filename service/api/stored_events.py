"""Events that are stored, as callers may see them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from google.protobuf.message import DecodeError

from flowkeep.v1 import event_pb2 as pb
from persistence.model import Event as StoredEvent


def mended(event: StoredEvent) -> StoredEvent:
    """Return an event of the store; for one whose body is no message, one that tells only its number."""
    with suppress(DecodeError):
        if pb.ExecutionEvent.FromString(event.body).seq == event.seq:
            return event
    bare = pb.ExecutionEvent(seq=event.seq, transition_seq=event.transition_seq)
    return replace(event, body=bare.SerializeToString(deterministic=True))


def without_definition(event: StoredEvent) -> StoredEvent:
    """Return an event without what repeats the definition, for callers that may not read that."""
    if event.kind not in ("step_started", "step_waiting", "step_edited", "reopened"):
        return event
    message = pb.ExecutionEvent.FromString(event.body)
    if event.kind != "reopened":
        getattr(message, event.kind).ClearField("input")
    elif message.reopened.edit.HasField("input"):
        message.reopened.edit.ClearField("input")
    return replace(event, body=message.SerializeToString(deterministic=True), payload=None)
