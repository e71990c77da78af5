"""Messages of the service as JSON for programs."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from flowkeep.definition import document, short_name
from flowkeep.payload import from_struct, from_value
from flowkeep.v1.workflow_pb2 import WorkflowDefinition

_WRITERS: dict[object, Callable[[Any], Any]] = {
    Timestamp.DESCRIPTOR: Timestamp.ToJsonString,
    Duration.DESCRIPTOR: Duration.ToJsonString,
    Struct.DESCRIPTOR: from_struct,
    Value.DESCRIPTOR: from_value,
    WorkflowDefinition.DESCRIPTOR: document,
}


def json_form(message: Message) -> dict[str, Any]:
    """Return a message as JSON: fields by their names in the proto, enums by short names, bytes as base64.

    Numbers are numbers. Fields that cannot be absent are always there, so that programs need not know defaults;
    messages that are not set are left out. A definition has the form that `flowkeep apply` reads.
    """
    # The stubs also name the class of protobuf's C implementation, which has the same attributes.
    fields = cast(Descriptor, message.DESCRIPTOR).fields
    return {
        field.name: _field(field, getattr(message, field.name))
        for field in fields
        if not field.has_presence or message.HasField(field.name)
    }


def _field(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type and field.message_type.GetOptions().map_entry:
        return dict(sorted(value.items()))
    return [_one(field, item) for item in value] if field.is_repeated else _one(field, value)


def _one(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type:
        return short_name(field.enum_type, value)
    if field.message_type:
        writer = _WRITERS.get(field.message_type)
        return writer(value) if writer else json_form(value)
    return b64encode(value).decode() if field.type == FieldDescriptor.TYPE_BYTES else value
