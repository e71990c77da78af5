"""A gRPC service as others have it, which the server of the test knows only by what it tells of itself."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import hpack
import hyperframe.frame
from google.protobuf import timestamp_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

V1 = "grpc.reflection.v1.ServerReflection"
ORDERS = "shop.v1.Orders"
GET, WATCH = f"{ORDERS}/Get", f"{ORDERS}/Watch"
_TYPES = FieldDescriptorProto
_STRING, _INT64, _BYTES, _MESSAGE = _TYPES.TYPE_STRING, _TYPES.TYPE_INT64, _TYPES.TYPE_BYTES, _TYPES.TYPE_MESSAGE


def _add(message: Any, *fields: tuple[str, int, str, bool]) -> None:
    for number, (name, kind, type_name, is_repeated) in enumerate(fields, start=1):
        label = _TYPES.LABEL_REPEATED if is_repeated else _TYPES.LABEL_OPTIONAL
        message.field.add(name=name, number=number, type=kind, type_name=type_name or None, label=label)


def orders_file() -> FileDescriptorProto:
    """The file of the service, which imports another one and one of protobuf."""
    file = FileDescriptorProto(name="shop/v1/orders.proto", package="shop.v1", syntax="proto3")
    file.dependency.extend(["shop/v1/tag.proto", "google/protobuf/timestamp.proto"])
    order = file.message_type.add(name="Order")
    _add(
        order,
        ("order_id", _STRING, "", False),
        ("number", _INT64, "", False),
        ("seal", _BYTES, "", False),
        ("tags", _MESSAGE, ".shop.v1.Tag", True),
        ("made", _MESSAGE, ".google.protobuf.Timestamp", False),
    )
    service = file.service.add(name="Orders")
    for name, is_taken, is_given in (("Get", False, False), ("Watch", False, True), ("Send", True, False)):
        service.method.add(
            name=name,
            input_type=".shop.v1.Order",
            output_type=".shop.v1.Order",
            client_streaming=is_taken,
            server_streaming=is_given,
        )
    return file


def tag_file() -> FileDescriptorProto:
    """The file that the one of the service imports."""
    file = FileDescriptorProto(name="shop/v1/tag.proto", package="shop.v1", syntax="proto3")
    _add(file.message_type.add(name="Tag"), ("name", _STRING, "", False))
    return file


def descriptor_set(*files: FileDescriptorProto) -> str:
    """Files as a step gives them, by default those of the service."""
    given = FileDescriptorSet(file=files or (tag_file(), orders_file()))
    return b64encode(given.SerializeToString()).decode()


def pool_of(*files: FileDescriptorProto) -> DescriptorPool:
    pool = DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    for file in files:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


@dataclass
class Call:
    """What the other side saw of a call."""

    message: dict[str, Any]
    metadata: dict[str, Any]
    deadline: float | None
    peer: str


@dataclass
class Callee:
    """The other side. An order of an id in `answers` is answered by it; the others come back as they are."""

    target: str = ""
    calls: list[Call] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """Which versions of the reflection were asked for, with each stream."""
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    pool: DescriptorPool = field(default_factory=lambda: pool_of(tag_file(), orders_file()))

    @property
    def order(self) -> Any:
        return GetMessageClass(self.pool.FindMessageTypeByName("shop.v1.Order"))

    async def get(self, request: Any, context: Any) -> Any:
        """Answer `order_id`: fail-STATUS, hang, large-BYTES, many-COUNT, or anything else."""
        self._take(request, context)
        word, _, rest = request.order_id.partition("-")
        match word:
            case "fail":
                await context.abort(getattr(grpc.StatusCode, rest), "it is so, token-of-ann")
            case "hang":
                await self._hang()
            case "large":
                return self.order(order_id="x" * int(rest))
            case "many":
                return self.order(tags=[{} for _ in range(int(rest))])
        context.set_trailing_metadata((("x-cost", "7"), ("set-cookie", "s=1")))
        return request

    async def watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Give the order `number` times, each with its own number; then end, or hang if so it is called."""
        self._take(request, context)
        for number in range(request.number):
            yield self.order(order_id=request.order_id, number=number)
        if request.order_id == "hang":
            await self._hang()
        if request.order_id == "fail":
            await context.abort(grpc.StatusCode.ABORTED, "no more")

    def _take(self, request: Any, context: Any) -> None:
        metadata = {key: value for key, value in context.invocation_metadata()}
        self.calls.append(Call(MessageToDict(request), metadata, context.time_remaining(), context.peer()))

    async def _hang(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped.set()

    def handler(self) -> grpc.GenericRpcHandler:
        kinds = {"request_deserializer": self.order.FromString, "response_serializer": self.order.SerializeToString}
        return grpc.method_handlers_generic_handler(
            ORDERS,
            {
                "Get": grpc.unary_unary_rpc_method_handler(self.get, **kinds),
                "Watch": grpc.unary_stream_rpc_method_handler(self.watch, **kinds),
            },
        )

    def reflect(self, server: grpc.aio.Server, *versions: str) -> None:
        """Tell what the service takes, by these versions of the reflection."""
        servicer = ReflectionServicer([ORDERS], self.pool)
        for version in versions:

            async def told(requests: Any, context: Any, version: str = version) -> AsyncIterator[Any]:
                self.asked.append(version)
                async for answer in servicer.ServerReflectionInfo(requests, context):
                    yield answer

            server.add_generic_rpc_handlers((reflecting(told, version),))


def reflecting(behaviour: Callable[..., Any], version: str = V1) -> grpc.GenericRpcHandler:
    """A reflection that answers as the test says."""
    method = grpc.stream_stream_rpc_method_handler(
        behaviour,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(version, {"ServerReflectionInfo": method})


@asynccontextmanager
async def serving(
    *handlers: grpc.GenericRpcHandler,
    credentials: grpc.ServerCredentials | None = None,
    compression: grpc.Compression | None = None,
) -> AsyncIterator[tuple[str, grpc.aio.Server]]:
    """A gRPC server on a free port of this machine, and its address."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)], compression=compression)
    if handlers:
        server.add_generic_rpc_handlers(handlers)
    place = "127.0.0.1:0"
    port = server.add_secure_port(place, credentials) if credentials else server.add_insecure_port(place)
    await server.start()
    try:
        yield f"127.0.0.1:{port}", server
    finally:
        await server.stop(0)


@dataclass
class Relay:
    """An address that leads to a server, and the bytes that went there."""

    target: str = ""
    sent: bytearray = field(default_factory=bytearray)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def headers(self) -> dict[str, str]:
        """What the first call begins with."""
        at = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        while True:
            frame, length = hyperframe.frame.Frame.parse_frame_header(memoryview(self.sent)[at : at + 9])
            frame.parse_body(memoryview(self.sent)[at + 9 : at + 9 + length])
            at += 9 + length
            if isinstance(frame, hyperframe.frame.HeadersFrame):
                return {str(name): str(value) for name, value in hpack.Decoder().decode(frame.data)}

    def cut(self) -> None:
        """Cut all connections."""
        for each in self.writers:
            each.transport.abort()


@asynccontextmanager
async def relayed(target: str) -> AsyncIterator[Relay]:
    """A way to a server that the test can look at and cut."""
    host, _, port = target.rpartition(":")
    relay = Relay()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: bytearray) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                seen += data
                writer.write(data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        relay.writers.extend((writer, back))
        await asyncio.gather(pass_on(reader, back, relay.sent), pass_on(there, writer, bytearray()))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        relay.target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield relay
        relay.cut()


@asynccontextmanager
async def serving_orders(*versions: str, credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[Callee]:
    """The service, with these versions of the reflection: V1, or `reflection.SERVICE_NAME`, which is v1alpha."""
    callee = Callee()
    async with serving(callee.handler(), credentials=credentials) as (target, server):
        callee.target = target
        callee.reflect(server, *versions)
        yield callee


V1ALPHA = reflection.SERVICE_NAME


def rich(code: grpc.StatusCode, text: str, details: Iterable[Any]) -> Any:
    """A status with details, as metadata of the end of a call."""
    status = status_pb2.Status(code=code.value[0], message=text)
    for each in details:
        status.details.add().Pack(each)
    return (("grpc-status-details-bin", status.SerializeToString()),)


def to(callee: Callee, method: str = GET, **more: Any) -> dict[str, Any]:
    """Params of a call of the service."""
    return {"target": callee.target, "tls": False, "method": method, **more}
