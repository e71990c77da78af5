"""Reads requests and checks them against the rules in the protos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import protovalidate
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from flowkeep.v1.workflow_pb2 import WorkflowDefinition
from service.api.times import wrong_moment, wrong_span
from service.engine.payload import MAX_NODES
from service.engine.violations import Violation

MAX_ENTRIES = 1_000
"""Entries of a list or map; no rule allows more."""

_validator = protovalidate.Validator()


@dataclass(frozen=True, slots=True)
class Malformed:
    """Stands for a request whose bytes are no message of its type. grpc itself would answer INTERNAL."""

    type_name: str


def decoder(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return what reads the requests of a method as `parse` does, but gives Malformed instead of an error."""
    type_name = parse.__self__.DESCRIPTOR.full_name if hasattr(parse, "__self__") else "message of the expected type"

    def decode(raw: bytes) -> Any:
        try:
            return parse(raw)
        except Exception:
            return Malformed(type_name)

    return decode


def violations(request: Message) -> Sequence[Violation]:
    """Return all violations of the field rules, or where the request is so large that it is not even looked at."""
    times: list[tuple[str, Duration | Timestamp]] = []
    if excess := tuple(_excess(request, "", times)):
        return excess
    impossible = {name: wrong for name, value in times if (wrong := _wrong(value))}
    try:
        found = _validator.collect_violations(_without_payloads(request))
    except (ValueError, protovalidate.CompilationError) as error:
        # It cannot read a time that is none, and rarely something that protobuf could (LIBRARIES V4).
        if not impossible:
            return (Violation("", f"the request cannot be read: {error}"),)
        found = []
    ruled = (Violation(_path(v.proto), v.proto.message) for v in found)
    return (
        *(Violation(name, wrong) for name, wrong in impossible.items()),
        *(each for each in ruled if each.field not in impossible),
        *_unstorable(request),
    )


def _excess(message: Message, path: str, times: list[tuple[str, Duration | Timestamp]]) -> Iterator[Violation]:
    """Yield the fields with far more entries than any rule allows: to judge each would take seconds.

    Spans and times that are met on the way are put into `times`, with their fields; those of definitions are judged
    with all else that must hold of one.
    """
    if isinstance(message, WorkflowDefinition):
        times = []
    for field, value in message.ListFields():
        name = f"{path}.{field.name}" if path else field.name
        if isinstance(value, Struct):
            if _holds_more(value, MAX_NODES):
                yield Violation(name, f"must have at most {MAX_NODES:,} values in all")
        elif isinstance(value, Duration | Timestamp):
            times.append((name, value))
        elif isinstance(value, Message):
            yield from _excess(value, name, times)
        elif field.is_repeated and len(value) > MAX_ENTRIES:
            yield Violation(name, f"has {len(value):,} entries, far more than are allowed")
        elif field.is_repeated and field.message_type and not field.message_type.GetOptions().map_entry:
            for index, item in enumerate(value):
                yield from _excess(item, f"{name}[{index}]", times)


def _wrong(value: Duration | Timestamp) -> str:
    return wrong_moment(value) if isinstance(value, Timestamp) else wrong_span(value)


def _holds_more(struct: Struct, limit: int) -> bool:
    containers: list[Any] = [struct.fields]
    for container in containers:
        limit -= len(container)
        if limit < 0:
            return True
        for value in container.values() if isinstance(container, Mapping) else container:
            match value.WhichOneof("kind"):
                case "struct_value":
                    containers.append(value.struct_value.fields)
                case "list_value":
                    containers.append(value.list_value.values)
    return False


def _without_payloads(request: Message) -> Message:
    """Return the request without its payloads: no rule is about them, and the validator would take 4 µs a value."""
    payloads = [field.name for field, value in request.ListFields() if isinstance(value, Struct)]
    if not payloads:
        return request
    bare = type(request)()
    bare.CopyFrom(request)
    for name in payloads:
        bare.ClearField(name)
    return bare


def _unstorable(request: Message) -> Iterator[Violation]:
    """Yield the fields with a character that Postgres does not keep, but for payloads and definitions."""
    for field, value in request.ListFields():
        if isinstance(value, Message):  # a Struct is a Mapping too, and raises for values of no kind
            continue
        if isinstance(value, Mapping):
            texts: Iterable[Any] = (*value.keys(), *value.values())
        else:
            texts = value if field.is_repeated else (value,)
        if any(isinstance(text, str) and "\0" in text for text in texts):
            yield Violation(field.name, "must not contain the character NUL (U+0000)")


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
