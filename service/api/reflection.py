"""Server reflection that shows comments and field rules, as grpcurl, buf curl and their like ask for it.

The running descriptors, from which gRPC's own servicer answers, have neither; here the files are those that protoc
wrote (`.ci/generate`). Both versions of the protocol are served: their messages differ in the package's name only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import grpc
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

VERSIONS = ("grpc.reflection.v1.ServerReflection", reflection.SERVICE_NAME)
"""The protocol's names, which clients try in this order."""


def add_reflection(services: Iterable[str], server: grpc.aio.Server) -> None:
    """Let clients ask a server for these services, and for reflection itself."""
    servicer = _Reflection((*services, *VERSIONS), shown_files())
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method}) for name in VERSIONS]
    )


@cache
def shown_files() -> Mapping[str, FileDescriptorProto]:
    """Return the files that describe the server by name, each after those that it imports."""
    ours = FileDescriptorSet.FromString(files(__package__).joinpath("protos.binpb").read_bytes()).file
    older = _copy(reflection_pb2)
    newer = text_format.Parse(str(older).replace("v1alpha", "v1"), FileDescriptorProto())
    # Clients look up the details of errors, too.
    others = (_copy(error_details_pb2), _copy(health_pb2), older, newer)
    return {file.name: file for file in (*ours, *others)}


def _copy(module: Any) -> FileDescriptorProto:
    file = FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    return file


class _Reflection(reflection.aio.ReflectionServicer):  # type: ignore[misc]  # it ships no types
    """gRPC's own servicer over other files. A pool of descriptors drops comments, so they are put in last."""

    def __init__(self, services: Iterable[str], shown: Mapping[str, FileDescriptorProto]) -> None:
        pool = DescriptorPool()
        for file in shown.values():
            pool.Add(file)
        super().__init__(services, pool)
        self._bytes = {name: file.SerializeToString() for name, file in shown.items()}

    async def ServerReflectionInfo(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        async for answer in super().ServerReflectionInfo(requests, context):
            if answer.HasField("file_descriptor_response"):
                described = answer.file_descriptor_response.file_descriptor_proto
                described[:] = [self._bytes[FileDescriptorProto.FromString(each).name] for each in described]
            yield answer
