"""Reads a definition in its written form, past everything that is wrong with it.

So that the service can judge the rest in the same pass: what is wrong is noted, and the message has in its place what
was probably meant, or a value of which the service knows, too, that it was given and is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

from flowkeep.durations import to_duration
from flowkeep.errors import PayloadError, Violation
from flowkeep.meant import enum_number, meant_field, shown, unknown
from flowkeep.payload import member, to_struct, to_value
from flowkeep.v1.workflow_pb2 import Step, WorkflowDefinition

_INT_BITS = {FieldDescriptor.TYPE_INT32: 31, FieldDescriptor.TYPE_INT64: 63}
# No value has it: the service then knows that the field was given and is wrong.
_NO_ENUM = 2**31 - 1
_MAX_DEPTH = 32


@dataclass(frozen=True)
class Reading:
    """A definition as far as it could be read.

    `violations` is what is wrong with the document, at paths of the document. `covered` are the paths of the message of
    which the service can say nothing more: what it finds there, or below, is a consequence. `moved` has for paths of
    the message where that stands in the document, if elsewhere.
    """

    message: WorkflowDefinition
    violations: Sequence[Violation]
    covered: frozenset[str]
    moved: Mapping[str, str]

    def with_found(self, found: Iterable[Violation]) -> list[Violation]:
        """Return all that is wrong, each once: what was seen here, and what the service found beyond."""
        beyond = (Violation(self.written(field), text) for field, text in found if not self._is_covered(field))
        return list(dict.fromkeys((*self.violations, *beyond)))

    def written(self, path: str) -> str:
        """Return where in the document a path of the message leads."""
        return _written(path, self.moved)

    def _is_covered(self, path: str) -> bool:
        return any(is_at_or_below(path, each) for each in self.covered)


def read(document: object) -> Reading:
    """Return a written definition as far as it can be read. Never raises."""
    reader = _Reader()
    message = WorkflowDefinition()
    reader.fill(message, document, "")
    violations = [Violation(_written(path, reader.moved), text) for path, text in reader.violations]
    return Reading(message, violations, frozenset(reader.covered), reader.moved)


def is_at_or_below(path: str, other: str) -> bool:
    """Return whether a path is another one or leads into what stands there."""
    return path == other or not other or path.startswith((f"{other}.", f"{other}["))


def _written(path: str, moved: Mapping[str, str]) -> str:
    for place in sorted(moved, key=len, reverse=True):
        if is_at_or_below(path, place):
            return _written(moved[place] + path[len(place) :], moved)
    return path


def fields_of(message: Message) -> Mapping[str, FieldDescriptor]:
    """Return the fields of a message by their names."""
    # The stubs also name the class of protobuf's C implementation, which has the same attributes.
    return cast(Descriptor, message.DESCRIPTOR).fields_by_name


def is_map(field: FieldDescriptor) -> bool:
    """Return whether a field is a map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


class _Reader:
    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self.covered: set[str] = set()
        self.moved: dict[str, str] = {}

    def fill(self, message: Message, document: object, path: str) -> None:
        """Fill a message with the fields of an object."""
        if not isinstance(document, Mapping):
            self._wrong(path, f"must be an object with fields, not {shown(document)}")
            return
        fields = fields_of(message)
        for name, value in document.items():
            if not isinstance(name, str):
                self.violations.append(Violation(path, f"names of fields must be strings: put {name!r} in quotes"))
            elif name not in fields:
                self._read_meant(message, document, name, value, path)
            elif value is not None or fields[name].message_type is Value.DESCRIPTOR:
                self._set_field(message, fields[name], value, path)

    def _read_meant(self, message: Message, document: Mapping[Any, Any], name: str, value: Any, path: str) -> None:
        """Note an unknown field, and read it as the one that was probably meant if that can be."""
        fields = fields_of(message)
        self._wrong(member(path, name), unknown(message.DESCRIPTOR.name, name, list(fields), document))
        meant = meant_field(message.DESCRIPTOR.name, name, list(fields), document)
        if not meant or document.get(meant) is not None:
            return
        trial, scratch = _Reader(), type(message)()
        place = member(path, meant)
        trial._set(scratch, fields[meant], value, place)
        if place in trial.covered:
            self.covered.add(place)  # not "is required", either
            return
        message.MergeFrom(scratch)
        self.violations += trial.violations
        self.covered |= trial.covered
        self.moved |= {place: member(path, name), **trial.moved}

    def _set_field(self, message: Message, field: FieldDescriptor, value: Any, path: str) -> None:
        choice = field.containing_oneof
        other = message.WhichOneof(choice.name) if choice is not None else None
        if other not in (None, field.name):
            self._wrong(member(path, field.name), f"cannot be given with {other}; remove one of them")
        else:
            self._set(message, field, value, member(path, field.name))

    def _set(self, message: Message, field: FieldDescriptor, value: Any, path: str) -> None:
        if is_map(field):
            getattr(message, field.name).update(self._string_map(value, path))
        elif field.is_repeated:
            self._extend(getattr(message, field.name), field, value, path)
        elif field.message_type in _PAYLOADS:
            self._set_payload(getattr(message, field.name), field.message_type, value, path)
        elif field.message_type is Duration.DESCRIPTOR:
            getattr(message, field.name).CopyFrom(self._duration(value, path))
        elif field.message_type:
            if isinstance(value, Mapping):
                getattr(message, field.name).SetInParent()
            self.fill(getattr(message, field.name), value, path)
        elif (scalar := self._scalar(field, value, path)) is not None:
            setattr(message, field.name, scalar)

    def _extend(self, target: Any, field: FieldDescriptor, items: Any, path: str) -> None:
        if isinstance(items, Mapping) and field.message_type is Step.DESCRIPTOR:
            self._extend_by_id(target, items, path)
            return
        if not isinstance(items, list | tuple):
            self._wrong(path, f"must be a list, not {shown(items)}")
            # One alone is a list of one, for what else is to be checked.
            items = [items] if isinstance(items, str) and not field.message_type else []
        for index, item in enumerate(items):
            place = f"{path}[{index}]"
            if field.message_type:
                self.fill(target.add(), item, place)
            elif (scalar := self._scalar(field, item, place)) is not None:
                target.append(scalar)

    def _extend_by_id(self, target: Any, steps: Mapping[Any, Any], path: str) -> None:
        first = next(iter(steps), "fetch")
        self.violations.append(Violation(path, f"must be a list, in which each step says its id: `- id: {first}`"))
        for index, (name, step) in enumerate(steps.items()):
            place = f"{path}[{index}]"
            self.moved[place] = member(path, str(name))
            self.fill(target.add(), step, place)
            if not target[index].id:
                target[index].id = str(name)

    def _string_map(self, mapping: Any, path: str) -> dict[str, str]:
        if not isinstance(mapping, Mapping):
            self._wrong(path, f"must be an object, not {shown(mapping)}")
            return {}
        found = {}
        for key, value in mapping.items():
            place = member(path, str(key))
            if not isinstance(key, str):
                self._wrong(place, f"keys must be strings: put {shown(key)} in quotes")
            text = self._text(value, place)
            if text is not None:
                found[str(key)] = text
        return found

    def _scalar(self, field: FieldDescriptor, value: Any, path: str) -> Any:
        if field.type == FieldDescriptor.TYPE_STRING:
            return self._text(value, path)
        try:
            if field.enum_type:
                return enum_number(field.enum_type, value)
            return _real(value) if field.type == FieldDescriptor.TYPE_DOUBLE else _whole(value, _INT_BITS[field.type])
        except ValueError as error:
            self._wrong(path, str(error))
            return _NO_ENUM if field.enum_type else None

    def _text(self, value: Any, path: str) -> str | None:
        if isinstance(value, str):
            return value
        if isinstance(value, bool | int | float):
            self._wrong(path, f"must be a string: put {shown(value)} in quotes")
            return str(value).lower() if isinstance(value, bool) else str(value)
        self._wrong(path, f"must be a string, not {shown(value)}")
        return None

    def _duration(self, value: Any, path: str) -> Duration:
        try:
            return to_duration(value)
        except ValueError as error:
            self._wrong(path, str(error))
            return Duration(seconds=-1)

    def _set_payload(self, target: Any, kind: Descriptor, value: Any, path: str) -> None:
        convert = _PAYLOADS[kind]
        try:
            target.CopyFrom(convert(value, path))
        except PayloadError as error:
            if kind is Struct.DESCRIPTOR and not isinstance(value, Mapping):
                self._wrong(path, error.description)
                return
            target.CopyFrom(convert(self._fitting(value, path, 0), path))

    def _fitting(self, value: Any, path: str, depth: int) -> Any:
        """Return a value with null where payloads cannot carry what there is, each noted."""
        if depth >= _MAX_DEPTH and isinstance(value, Mapping | list | tuple):
            return self._wrong(path, f"must not be nested more than {_MAX_DEPTH} deep, or contain itself")
        if isinstance(value, Mapping):
            return {
                self._key(key, path): self._fitting(v, member(path, str(key)), depth + 1) for key, v in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._fitting(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
        try:
            to_value(value, path)
        except PayloadError as error:
            return self._wrong(path, error.description)
        return value

    def _key(self, key: Any, path: str) -> str:
        try:
            to_struct({key: None})
        except PayloadError as error:
            text = str(key).encode(errors="replace").decode().replace("\0", "?")
            self._wrong(member(path, text), error.description)
            return text
        return str(key)

    def _wrong(self, path: str, description: str) -> None:
        """Note that what stands at a path was not read as it is."""
        self.violations.append(Violation(path, description))
        self.covered.add(path)


_PAYLOADS: dict[Descriptor, Callable[[Any, str], Message]] = {Struct.DESCRIPTOR: to_struct, Value.DESCRIPTOR: to_value}


def _real(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -math.inf < value < math.inf:
        raise ValueError(f"must be a number, not {shown(value)}")
    return float(value) + 0.0  # -0.0 is 0, and the service keeps it so


def _whole(value: Any, bits: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be a whole number, not {shown(value)}")
    if not -(2**bits) <= value < 2**bits:
        raise ValueError(f"must be between -2^{bits} and 2^{bits}-1")
    return value
