"""Reads requests and checks them against the rules in the protos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import protovalidate
from google.protobuf.message import Message

from service.engine.violations import Violation

_validator = protovalidate.Validator()


@dataclass(frozen=True, slots=True)
class Malformed:
    """Stands for a request whose bytes are no message of its type. grpc itself would answer INTERNAL."""

    type_name: str


def decoder(handler: Any) -> Callable[[bytes], Message | Malformed]:
    """Return what reads the requests of a method: a message, or Malformed."""
    parse = handler.request_deserializer
    type_name = parse.__self__.DESCRIPTOR.full_name if hasattr(parse, "__self__") else "message of the expected type"

    def decode(raw: bytes) -> Message | Malformed:
        try:
            message: Message = parse(raw)
        except Exception:
            return Malformed(type_name)
        return message

    return decode


def violations(request: Message) -> Sequence[Violation]:
    """Return all violations of the field rules."""
    try:
        found = _validator.collect_violations(request)
    except (ValueError, protovalidate.CompilationError) as error:
        # Rarely the validator cannot read what protobuf could (LIBRARIES V4).
        return (Violation("", f"the request cannot be read: {error}"),)
    return tuple(Violation(_path(v.proto), v.proto.message) for v in found)


def _path(violation: Any) -> str:
    path = ""
    for element in violation.field.elements if violation.field else ():
        path += f".{element.field_name}" if path else element.field_name
        path += _subscript(element)
    return path


def _subscript(element: Any) -> str:
    subscript = element.subscript
    if subscript is None:
        return ""
    value = getattr(subscript, "value", subscript)
    return f'["{value}"]' if isinstance(value, str) else f"[{value}]"
