"""Workflow definitions as people write them in YAML or JSON, and as messages.

The written form has the fields of `WorkflowDefinition` by their names, enums by their short names (`GRAPH`), spans of
time as text (`90s`, `1h30m`, `PT5M`) or seconds, and payloads as they are. The messages themselves say what fields
there are, so that a new field needs no change here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

from flowkeep.durations import duration_text, to_duration
from flowkeep.errors import DefinitionError, PayloadError, Violation
from flowkeep.payload import from_struct, from_value, member, to_struct, to_value
from flowkeep.v1.workflow_pb2 import WorkflowDefinition

_INT_BITS = {FieldDescriptor.TYPE_INT32: 31, FieldDescriptor.TYPE_INT64: 63}


def definition(document: Mapping[str, Any]) -> WorkflowDefinition:
    """Return a written definition as a message.

    Enums may also be given by their full names and in lower case; null means that a field is not set. Raises
    DefinitionError with every unknown field and wrong type at once. Rules about values are left to the service.
    """
    violations: list[Violation] = []
    message = WorkflowDefinition()
    _fill(message, document, "", violations)
    if violations:
        raise DefinitionError(violations)
    return message


def document(definition: WorkflowDefinition) -> dict[str, Any]:
    """Return a definition in the written form, fields by their numbers. `definition` reads it as the same."""
    return _written(definition)


def short_name(enum: EnumDescriptor, number: int) -> str:
    """Return the name of an enum's value without the enum's own: `GRAPH` for ORDERING_GRAPH. Unknown: the number."""
    value = enum.values_by_number.get(number)
    return value.name.removeprefix(_prefix(enum)) if value else str(number)


def _prefix(enum: EnumDescriptor) -> str:
    return enum.values[0].name.removesuffix("UNSPECIFIED")


# Reading. A wrong value is reported and skipped, so that one look shows all that is wrong.


def _fill(message: Message, document: object, path: str, violations: list[Violation]) -> None:
    if not isinstance(document, Mapping):
        violations.append(Violation(path, f"must be an object with fields, not {_shown(document)}"))
        return
    fields = _fields(message)
    for name, value in document.items():
        if not isinstance(name, str):
            violations.append(Violation(path, f"names of fields must be strings: put {name!r} in quotes"))
        elif name not in fields:
            violations.append(Violation(member(path, name), _unknown(name, list(fields))))
        elif value is not None or fields[name].message_type is Value.DESCRIPTOR:
            _set(message, fields[name], value, member(path, name), violations)


def _set(message: Message, field: FieldDescriptor, value: Any, path: str, violations: list[Violation]) -> None:
    try:
        if _is_map(field):
            getattr(message, field.name).update(_string_map(value, path, violations))
        elif field.is_repeated:
            _extend(getattr(message, field.name), field, value, path, violations)
        elif field.message_type and field.message_type not in _READERS:
            getattr(message, field.name).SetInParent()
            _fill(getattr(message, field.name), value, path, violations)
        elif field.message_type:
            getattr(message, field.name).CopyFrom(_READERS[field.message_type](value, path))
        else:
            setattr(message, field.name, _scalar(field, value))
    except PayloadError as error:
        violations.append(Violation(error.path, error.description))
    except ValueError as error:
        violations.append(Violation(path, str(error)))


def _extend(target: Any, field: FieldDescriptor, items: Any, path: str, violations: list[Violation]) -> None:
    if not isinstance(items, list | tuple):
        raise ValueError(f"must be a list, not {_shown(items)}")
    for index, item in enumerate(items):
        place = f"{path}[{index}]"
        if field.message_type:
            _fill(target.add(), item, place, violations)
            continue
        try:
            target.append(_scalar(field, item))
        except ValueError as error:
            violations.append(Violation(place, str(error)))


def _string_map(mapping: Any, path: str, violations: list[Violation]) -> dict[str, str]:
    if not isinstance(mapping, Mapping):
        raise ValueError(f"must be an object, not {_shown(mapping)}")
    found = {}
    for key, value in mapping.items():
        try:
            found[_text(key)] = _text(value)
        except ValueError as error:
            violations.append(Violation(member(path, str(key)), str(error)))
    return found


def _scalar(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type:
        return _enum_number(field.enum_type, value)
    if field.type == FieldDescriptor.TYPE_STRING:
        return _text(value)
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return _real(value)
    return _whole(value, _INT_BITS[field.type])


def _text(value: Any) -> str:
    if isinstance(value, bool | int | float):
        raise ValueError(f"must be a string: put {_shown(value)} in quotes")
    if not isinstance(value, str):
        raise ValueError(f"must be a string, not {_shown(value)}")
    return value


def _real(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -math.inf < value < math.inf:
        raise ValueError(f"must be a number, not {_shown(value)}")
    return float(value) + 0.0  # -0.0 is 0, and the service keeps it so


def _whole(value: Any, bits: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be a whole number, not {_shown(value)}")
    if not -(2**bits) <= value < 2**bits:
        raise ValueError(f"must be between -2^{bits} and 2^{bits}-1")
    return value


def _enum_number(enum: EnumDescriptor, value: Any) -> int:
    names = {short_name(enum, each.number): each for each in enum.values}
    wanted = value.upper().removeprefix(_prefix(enum)) if isinstance(value, str) else ""
    if wanted in names:
        return names[wanted].number
    offered = [name for name in names if name != "UNSPECIFIED"]
    near = get_close_matches(wanted, offered, 1)
    hint = f". Did you mean {near[0]}?" if near else ""
    raise ValueError(f"must be one of {', '.join(offered)}, not {_shown(value)}{hint}")


def _duration(value: Any, path: str) -> Duration:
    del path  # ValueError tells no path; the caller knows it
    return to_duration(value)


_READERS: dict[Descriptor, Callable[[Any, str], Message]] = {
    Duration.DESCRIPTOR: _duration,
    Struct.DESCRIPTOR: to_struct,
    Value.DESCRIPTOR: to_value,
}


def _unknown(name: str, names: list[str]) -> str:
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).strip("_")
    near = get_close_matches(snake.replace("-", "_"), names, 1, cutoff=0.6)
    return f"is unknown. Did you mean {near[0]}?" if near else f"is unknown. There are {', '.join(names)}"


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "a list"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# Writing.

_WRITERS: dict[Descriptor, Callable[[Any], Any]] = {
    Duration.DESCRIPTOR: duration_text,
    Struct.DESCRIPTOR: from_struct,
    Value.DESCRIPTOR: from_value,
}


def _written(message: Message) -> dict[str, Any]:
    return {field.name: _written_field(field, value) for field, value in message.ListFields()}


def _written_field(field: FieldDescriptor, value: Any) -> Any:
    if _is_map(field):
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


def _fields(message: Message) -> Mapping[str, FieldDescriptor]:
    # The stubs also name the class of protobuf's C implementation, which has the same attributes.
    return cast(Descriptor, message.DESCRIPTOR).fields_by_name


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry
