"""Server reflection that shows comments and field rules, as grpcurl, buf curl and their like ask for it.

The running descriptors, from which gRPC's own servicer answers, have neither; here the files are those that protoc
wrote (`.ci/generate`). Both versions of the protocol are served: their messages differ in the package's name only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import grpc
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc import aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from flowkeep.v1.error_pb2 import ErrorReason
from service.api.errors import Refusal, RefusedError
from service.api.pipeline import peer, refuse
from service.api.probes import Probes
from service.api.requests import check_read, decoder

VERSIONS = ("grpc.reflection.v1.ServerReflection", reflection.SERVICE_NAME)
"""The protocol's names, which clients try in this order."""


IDLE = 15.0
"""Seconds that a stream may be silent, or leave an answer unread. Clients open another when they have a question."""


def add_reflection(services: Iterable[str], server: grpc.aio.Server, probes: Probes) -> None:
    """Let clients ask a server for these services, and for reflection itself, within the limits of the server."""
    servicer = _Reflection((*services, *VERSIONS), probes)
    method = grpc.stream_stream_rpc_method_handler(
        servicer.serve,
        request_deserializer=decoder(reflection_pb2.ServerReflectionRequest.FromString),
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


@cache
def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    for file in shown_files().values():
        pool.Add(file)
    return pool


@cache
def _written() -> Mapping[str, bytes]:
    return {name: file.SerializeToString() for name, file in shown_files().items()}


def _copy(module: Any) -> FileDescriptorProto:
    file = FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    return file


class _Reflection(reflection.aio.ReflectionServicer):  # type: ignore[misc]  # it ships no types
    """gRPC's own servicer over other files. A pool of descriptors drops comments, so they are put in last."""

    def __init__(self, services: Iterable[str], probes: Probes) -> None:
        super().__init__(services, _pool())
        self._bytes = _written()
        self._probes = probes

    async def serve(self, _: Any, context: Any) -> None:
        """Answer the questions of one stream, and end it when none comes."""
        started = time.perf_counter()
        try:
            with self._probes.reflection.opened(peer(context)):
                async for answer in self.ServerReflectionInfo(_requests(context), context):
                    async with asyncio.timeout(IDLE):
                        await context.write(self._with_comments(answer))
        except aio.InternalError:  # the connection broke under a write
            return
        except Exception as error:
            error = _idle() if isinstance(error, TimeoutError) else error
            await refuse(error, "/grpc.reflection/ServerReflectionInfo", started, context, self._probes.sending)

    def _with_comments(self, answer: Any) -> Any:
        if answer.HasField("file_descriptor_response"):
            described = answer.file_descriptor_response.file_descriptor_proto
            described[:] = [self._bytes[FileDescriptorProto.FromString(each).name] for each in described]
        return answer


async def _requests(context: Any) -> AsyncIterator[Any]:
    while True:
        async with asyncio.timeout(IDLE):
            request = await context.read()
        if request is aio.EOF:
            return
        check_read(request)
        yield request


def _idle() -> RefusedError:
    text = f"the stream was silent, or its answer unread, for {IDLE:g} s; open another one"
    reason = ErrorReason.ERROR_REASON_REQUEST_TOO_SLOW
    metadata = {"seconds": f"{IDLE:g}"}
    return RefusedError(Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, reason, text, metadata))
