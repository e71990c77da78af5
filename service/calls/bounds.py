"""What descriptors of others may hold, so that to build them takes little time and memory.

The pool builds a file in one go and lets nobody else run meanwhile. Without these bounds 200 KB of definitions take it
20 seconds and a gigabyte: each has the whole name of what it stands in.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

MAX_FILES = 256
MAX_FILE_BYTES = 256 << 10
MAX_BYTES = 512 << 10
"""Of all files together, and of what comes at once."""

MAX_IMPORTS = 2_048
"""Of all files together."""

MAX_FILE_DEFINITIONS, MAX_DEFINITIONS = 10_000, 20_000
"""Messages, fields, enums, values, methods and the like. Those of one file take the pool up to 40 ms."""

MAX_NAME = 512
"""Characters of a whole name."""


class DescriptorsError(ValueError):
    """Descriptors cannot be used; the text tells why."""


def check(files: Iterable[FileDescriptorProto]) -> None:
    """Raise DescriptorsError when files hold more than may be built, or what no compiler writes."""
    walk = _Walk()
    for file in files:
        walk.file(file)


class _Walk:
    """Goes through all definitions, in time that the bounds keep short."""

    def __init__(self) -> None:
        self._definitions = self._of_file = self._imports = 0

    def file(self, file: FileDescriptorProto) -> None:
        """Look at a file."""
        self._of_file = 0
        self._imports += len(file.dependency) + len(file.public_dependency) + len(file.weak_dependency)
        if self._imports > MAX_IMPORTS:
            raise DescriptorsError(f"there are more than {MAX_IMPORTS:,} imports")
        _check_options(file)
        package = len(file.package)
        self._fields(file.extension, package)
        self._enums(file.enum_type, package)
        self._count(file.service)
        for service in file.service:
            inside = _check_name(service, package)
            self._count(service.method)
            for method in service.method:
                _check_name(method, inside)
                _check_type(method.input_type)
                _check_type(method.output_type)
        waiting: list[tuple[Iterable[DescriptorProto], int]] = [(file.message_type, package)]
        self._count(file.message_type)
        while waiting:
            messages, prefix = waiting.pop()
            for message in messages:
                inside = _check_name(message, prefix)
                self._message(message, inside)
                if message.nested_type:
                    waiting.append((message.nested_type, inside))

    def _message(self, message: DescriptorProto, inside: int) -> None:
        self._count(message.nested_type)
        self._count(message.oneof_decl)
        self._count(message.reserved_range)
        self._count(message.reserved_name)
        self._count(message.extension_range)
        for each in (*message.extension_range, *message.oneof_decl):
            _check_options(each)
        self._fields(message.field, inside)
        self._fields(message.extension, inside)
        self._enums(message.enum_type, inside)

    def _fields(self, fields: Any, prefix: int) -> None:
        self._count(fields)
        for field in fields:
            _check_name(field, prefix)
            _check_type(field.type_name)
            _check_type(field.extendee)

    def _enums(self, enums: Any, prefix: int) -> None:
        self._count(enums)
        for enum in enums:
            inside = _check_name(enum, prefix)
            self._count(enum.value)
            self._count(enum.reserved_range)
            self._count(enum.reserved_name)
            for value in enum.value:
                _check_name(value, inside)

    def _count(self, definitions: Any) -> None:
        self._of_file += len(definitions)
        self._definitions += len(definitions)
        if self._of_file > MAX_FILE_DEFINITIONS or self._definitions > MAX_DEFINITIONS:
            raise DescriptorsError(
                f"there are more than {MAX_FILE_DEFINITIONS:,} definitions in a file, or {MAX_DEFINITIONS:,} in all"
            )


def _check_name(definition: Any, prefix: int) -> int:
    """Return the length of the whole name of what is defined."""
    _check_options(definition)
    length = prefix + 1 + len(definition.name)
    if length > MAX_NAME:
        raise DescriptorsError(f"there is a name of more than {MAX_NAME} characters")
    return length


def _check_type(name: str) -> None:
    # One that is not whole is looked for in each scope around it.
    if name and not name.startswith("."):
        raise DescriptorsError(f"the type {name[:200]!r} is not named with its package and a dot before it")


def _check_options(definition: Any) -> None:
    if definition.HasField("options") and definition.options.uninterpreted_option:
        raise DescriptorsError("there is an option that its compiler has not interpreted")
