"""Workflow definitions as people write them in YAML or JSON, and as messages.

The written form has the fields of `WorkflowDefinition` by their names, enums by their short names (`GRAPH`), spans of
time as text (`90s`, `1h30m`, `PT5M`) or seconds, and payloads as they are. The messages themselves say what fields
there are, so that a new field needs no change here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

from flowkeep.durations import duration_text
from flowkeep.errors import DefinitionError
from flowkeep.meant import short_name
from flowkeep.payload import from_struct, from_value
from flowkeep.reading import is_map, read
from flowkeep.v1.workflow_pb2 import WorkflowDefinition

__all__ = ["definition", "document", "short_name"]


def definition(document: Mapping[str, Any]) -> WorkflowDefinition:
    """Return a written definition as a message.

    Enums may also be given by their full names and in any case; null means that a field is not set. Raises
    DefinitionError with every unknown field and wrong type at once. Rules about values are left to the service.
    """
    reading = read(document)
    if reading.violations:
        raise DefinitionError(reading.violations)
    return reading.message


def document(definition: WorkflowDefinition) -> dict[str, Any]:
    """Return a definition in the written form, fields by their numbers. `definition` reads it as the same."""
    return _written(definition)


# Writing.

_WRITERS: dict[Descriptor, Callable[[Any], Any]] = {
    Duration.DESCRIPTOR: duration_text,
    Struct.DESCRIPTOR: from_struct,
    Value.DESCRIPTOR: from_value,
}


def _written(message: Message) -> dict[str, Any]:
    return {field.name: _written_field(field, value) for field, value in message.ListFields()}


def _written_field(field: FieldDescriptor, value: Any) -> Any:
    if is_map(field):
        return dict(sorted(value.items()))  # the order of a map's entries is not kept by protobuf
    if field.is_repeated:
        return [_written_one(field, item) for item in value]
    return _written_one(field, value)


def _written_one(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type:
        return short_name(field.enum_type, value)
    if field.message_type:
        writer = _WRITERS.get(field.message_type)
        return writer(value) if writer else _written(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
