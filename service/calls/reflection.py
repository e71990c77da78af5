"""Asks a server what its services take and give: server reflection, v1 and where that is missing v1alpha."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2

from service.calls import descriptors
from service.calls.bounds import MAX_BYTES, MAX_FILES, MAX_IMPORTS, DescriptorsError
from service.calls.descriptors import Schema, UnknownMethodError

FETCH_SECONDS = 10.0
"""In which all files of a service must have come."""

# Both versions have the same messages.
_PATHS = (
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
Metadata = Sequence[tuple[str, str | bytes]]


class NoReflectionError(Exception):
    """A server does not tell what its services take."""


async def fetch(channel: grpc.aio.Channel, service: str, metadata: Metadata) -> Schema:
    """Return the schema of a service with all that it needs.

    Raises NoReflectionError, UnknownMethodError when the server does not know the service, DescriptorsError, and
    AioRpcError.
    """
    for path in _PATHS:
        try:
            return await _fetched(channel, path, service, metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
    raise NoReflectionError


async def _fetched(channel: grpc.aio.Channel, path: str, service: str, metadata: Metadata) -> Schema:
    until = asyncio.get_running_loop().time() + FETCH_SECONDS

    async def answered(question: reflection_pb2.ServerReflectionRequest) -> Sequence[bytes]:
        # A stream for each question, which goes out with its beginning: what is written to one that the other side
        # has just ended fails as INTERNAL, and not as what it has said.
        stub: Any = channel.unary_stream(path)
        left = max(0.001, until - asyncio.get_running_loop().time())
        call = stub(question.SerializeToString(), timeout=left, metadata=metadata)
        try:
            return _files_of(await call.read(), question)
        finally:
            call.cancel()

    files = _Files()
    files.add(await answered(reflection_pb2.ServerReflectionRequest(file_containing_symbol=service)))
    while wanted := descriptors.missing(files.by_name):
        files.add(await answered(reflection_pb2.ServerReflectionRequest(file_by_filename=wanted[0])))
        if wanted[0] not in files.by_name:
            raise DescriptorsError(f"the file {wanted[0][:200]!r} is imported, and another one came for it")
    return await descriptors.of_files(files.by_name, files.size)


def _files_of(data: Any, question: reflection_pb2.ServerReflectionRequest) -> Sequence[bytes]:
    """Return the files that a server gives for a question."""
    if data is grpc.aio.EOF:
        raise DescriptorsError("the server ended the reflection without an answer")
    if len(data) > MAX_BYTES:
        raise DescriptorsError(f"the server's reflection answers with more than {MAX_BYTES} bytes")
    try:
        answer: Any = reflection_pb2.ServerReflectionResponse.FromString(data)
    except DecodeError:
        raise DescriptorsError("the server's reflection is none") from None
    if answer.HasField("error_response"):
        code, asked_for = answer.error_response.error_code, question.file_containing_symbol
        if asked_for and code == grpc.StatusCode.NOT_FOUND.value[0]:
            raise UnknownMethodError(f"the server knows no service {asked_for!r}")
        raise DescriptorsError(f"the server's reflection answers with the error {code}")
    found: Sequence[bytes] = answer.file_descriptor_response.file_descriptor_proto  # no copy: it may hold very many
    return found


class _Files:
    """The files that have come, within the bounds."""

    def __init__(self) -> None:
        self.by_name: dict[str, FileDescriptorProto] = {}
        self.size = 0
        self._imports = 0

    def add(self, came: Sequence[bytes]) -> None:
        """Take files. Raises DescriptorsError when there are too many."""
        if len(came) > MAX_FILES:
            raise DescriptorsError(f"there are {len(came)} files; at most {MAX_FILES} are taken")
        for data in came:
            file = descriptors.file(data)
            if file.name not in self.by_name:
                self.size += len(data)
                self._imports += len(file.dependency)
                self.by_name[file.name] = file
            if len(self.by_name) > MAX_FILES or self.size > MAX_BYTES or self._imports > MAX_IMPORTS:
                bounds = f"{MAX_FILES} files, {MAX_BYTES} bytes or {MAX_IMPORTS} imports"
                raise DescriptorsError(f"it has more than {bounds}")
