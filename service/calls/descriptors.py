"""What services take and give, as others describe it: descriptors that nobody has checked, made into methods.

They never meet those of this process: each set has a pool of its own. What protobuf itself defines is taken from here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf import (
    any_pb2,
    api_pb2,
    descriptor_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    source_context_pb2,
    struct_pb2,
    timestamp_pb2,
    type_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from service.calls.bounds import MAX_FILE_BYTES, MAX_FILES, DescriptorsError, check

Result = TypeVar("Result")

# From here on in a thread.
_LARGE = 4 << 10

_OWN = {
    module.DESCRIPTOR.name: module.DESCRIPTOR.serialized_pb
    for module in (
        any_pb2,
        descriptor_pb2,
        duration_pb2,
        empty_pb2,
        field_mask_pb2,
        source_context_pb2,
        struct_pb2,
        timestamp_pb2,
        wrappers_pb2,
        type_pb2,  # after those that it and the next import
        api_pb2,
    )
}


class UnknownMethodError(Exception):
    """A service has no such method; the text tells what there is."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method that can be called: what it takes and gives, and the pool that knows both."""

    request: type[Message]
    response: type[Message]
    pool: DescriptorPool
    is_streaming: bool


class Schema:
    """The services of a set of files."""

    def __init__(self, pool: DescriptorPool, size: int) -> None:
        self.size = size
        """Bytes of the files."""
        self._pool = pool
        self._methods: dict[tuple[str, str], Method] = {}

    async def method(self, service: str, name: str) -> Method:
        """Return a method. Raises UnknownMethodError and DescriptorsError."""
        if (known := self._methods.get((service, name))) is None:
            known = self._methods[service, name] = await _apart(self.size, lambda: self._method(service, name))
        return known

    def _method(self, service: str, name: str) -> Method:
        try:
            described = self._pool.FindServiceByName(service)
        except KeyError:
            raise UnknownMethodError(f"there is no service {service!r}") from None
        found = described.methods_by_name.get(name)
        if found is None:
            names = ", ".join(sorted(each.name for each in described.methods)[:20])
            raise UnknownMethodError(f"the service {service!r} has no method {name!r}, but {names}"[:600])
        if found.client_streaming:
            raise UnknownMethodError(
                f"{service}/{name} takes a stream of messages; only methods that take one can be called"
            )
        try:
            request, response = GetMessageClass(found.input_type), GetMessageClass(found.output_type)
        except Exception as error:  # of types that lead to each other too deep, among others
            raise DescriptorsError(f"the messages of {service}/{name} cannot be made: {type(error).__name__}") from None
        return Method(request, response, self._pool, bool(found.server_streaming))


def missing(files: Mapping[str, FileDescriptorProto]) -> Sequence[str]:
    """Return the files that others import, are not among them, and are not protobuf's own."""
    wanted = {name: None for file in files.values() for name in file.dependency}
    return [name for name in wanted if name not in files and name not in _OWN]


async def of_set(data: bytes) -> Schema:
    """Return the schema of a serialized FileDescriptorSet. Raises DescriptorsError."""
    return await _apart(len(data), lambda: _built(_files_of_set(data), len(data)))


async def of_files(files: Mapping[str, FileDescriptorProto], size: int) -> Schema:
    """Return the schema of files, by name. Raises DescriptorsError."""
    return await _apart(size, lambda: _built(files, size))


def file(data: bytes) -> FileDescriptorProto:
    """Return a serialized file. Raises DescriptorsError."""
    if len(data) > MAX_FILE_BYTES:
        raise DescriptorsError(f"there is a file of {len(data)} bytes; at most {MAX_FILE_BYTES} are taken")
    try:
        return FileDescriptorProto.FromString(data)
    except DecodeError:
        raise DescriptorsError("a file is no FileDescriptorProto") from None


def _files_of_set(data: bytes) -> Mapping[str, FileDescriptorProto]:
    try:
        files = FileDescriptorSet.FromString(data).file
    except DecodeError:
        raise DescriptorsError("it is no FileDescriptorSet") from None
    if len(files) > MAX_FILES:
        raise DescriptorsError(f"there are {len(files)} files; at most {MAX_FILES} are taken")
    return {each.name: each for each in files}


def _built(files: Mapping[str, FileDescriptorProto], size: int) -> Schema:
    check(files.values())
    pool = DescriptorPool()
    for own in _OWN.values():
        pool.AddSerializedFile(own)
    for each in _in_order(files):
        each.ClearField("source_code_info")
        try:
            pool.AddSerializedFile(each.SerializeToString())
        except Exception as error:  # TypeError of what contradicts itself; what else there may be is not told
            raise DescriptorsError(f"the file {each.name[:200]!r} cannot be used: {str(error)[:300]}") from None
    return Schema(pool, size)


def _in_order(files: Mapping[str, FileDescriptorProto]) -> Iterable[FileDescriptorProto]:
    """Give each file after those that it imports. Raises DescriptorsError when one is missing or imports itself."""
    if absent := missing(files):
        raise DescriptorsError(f"the file {absent[0][:200]!r} is imported and missing")
    done = set(_OWN)
    waiting = [each for name, each in files.items() if name not in _OWN]
    while waiting:
        ready = [each for each in waiting if done.issuperset(each.dependency)]
        if not ready:
            raise DescriptorsError(f"the file {waiting[0].name[:200]!r} imports itself by way of others")
        yield from ready
        done.update(each.name for each in ready)
        waiting = [each for each in waiting if each.name not in done]


async def _apart(size: int, make: Callable[[], Result]) -> Result:
    return make() if size < _LARGE else await asyncio.to_thread(make)
