"""`call_grpc` and servers that describe their services so that it does harm, or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2

from service.calls.bounds import MAX_FILE_DEFINITIONS, MAX_FILES, MAX_IMPORTS, MAX_NAME
from service.engine.handlers.model import Handler
from tests.integration.callee import (
    GET,
    ORDERS,
    Callee,
    descriptor_set,
    orders_file,
    reflecting,
    serving,
    tag_file,
)
from tests.integration.web import call, failure


def bad(**fields: Any) -> FileDescriptorProto:
    file = orders_file()
    file.MergeFrom(FileDescriptorProto(**fields))
    return file


def many_definitions(name: str = "shop/v1/orders.proto", count: int = MAX_FILE_DEFINITIONS) -> FileDescriptorProto:
    file = orders_file() if name == "shop/v1/orders.proto" else FileDescriptorProto(name=name, package=f"of_{name[0]}")
    for number in range(count):
        file.message_type.add(name=f"M{number}")
    return file


def deep_types() -> FileDescriptorProto:
    file = orders_file()
    file.message_type[0].field.add(name="f", number=9, type=11, type_name=".shop.v1.M0", label=1)
    for number in range(3000):
        message = file.message_type.add(name=f"M{number}")
        message.field.add(name="f", number=1, type=11, type_name=f".shop.v1.M{(number + 1) % 3000}", label=1)
    return file


NOT_WHOLE = {"name": "a", "number": 1, "type": 11, "label": 1, "type_name": "Order"}


def many_options() -> FileDescriptorProto:
    file = orders_file()
    file.message_type[0].field[0].options.uninterpreted_option.add()
    return file


OF_PROTOBUF = FileDescriptorProto(name="x.proto", package="google.protobuf", message_type=[DescriptorProto(name="Any")])


def padded() -> FileDescriptorProto:
    return bad(message_type=[{"name": "X", "reserved_name": ["a" * 524_288]}])


HOSTILE = {
    "tag.proto' is imported and missing": (orders_file(),),
    "imports itself": (tag_file(), bad(dependency=["shop/v1/orders.proto"])),
    "requires type name": (
        bad(message_type=[{"name": "X", "field": [{"name": "a", "number": 1, "type": 11}]}]),
        tag_file(),
    ),
    "10,000 definitions in a file": (tag_file(), many_definitions()),
    "or 20,000 in all": (tag_file(), orders_file(), *(many_definitions(f"{name}.proto", 7_000) for name in "abc")),
    "RecursionError": (tag_file(), deep_types()),
    "x.proto' cannot be used": (tag_file(), orders_file(), OF_PROTOBUF),
    "imports": (tag_file(), bad(dependency=["shop/v1/tag.proto"] * MAX_IMPORTS)),
    f"more than {MAX_NAME} characters": (tag_file(), bad(message_type=[{"name": "a" * MAX_NAME}])),
    "the type 'Order' is not": (tag_file(), bad(message_type=[{"name": "X", "field": [NOT_WHOLE]}])),
    "not interpreted": (tag_file(), many_options()),
    "a file of": (tag_file(), bad(message_type=[{"name": "X", "reserved_name": ["a" * 262_144]}])),
    "answers with more than": (tag_file(), padded()),
    f"most {MAX_FILES} are taken": (
        tag_file(),
        orders_file(),
        *(FileDescriptorProto(name=f"{n}.proto") for n in range(MAX_FILES)),
    ),
}


@pytest.mark.parametrize(("said", "files"), HOSTILE.items())
async def test_hostile_descriptors_are_refused(
    grpc_caller: Handler, said: str, files: tuple[FileDescriptorProto, ...]
) -> None:
    async def told(requests: Any, context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            answer = reflection_pb2.ServerReflectionResponse()
            if request.file_containing_symbol:
                answer.file_descriptor_response.file_descriptor_proto.extend(f.SerializeToString() for f in files)
            else:  # the file that is missing
                answer.error_response.error_code = 5
            yield answer

    async with serving(reflecting(told)) as (target, _):
        params: dict[str, Any] = {"target": target, "tls": False, "method": GET}
        error = await failure(grpc_caller, **params)
        assert (error.code, error.retryable) == ("INVALID_RESPONSE", False)
        assert said in error.message or "missing" in said
        if sum(each.ByteSize() for each in files) < 200_000:
            error = await failure(grpc_caller, **params, descriptor_set=descriptor_set(*files))
            assert (error.code, error.retryable) == ("INVALID_PARAMS", False)
            assert "descriptor_set: " in error.message
            assert said in error.message


async def test_files_that_are_missing_are_asked_for_one_by_one(grpc_caller: Handler) -> None:
    files = {"shop/v1/tag.proto": tag_file(), "": orders_file()}
    asked: list[str] = []

    async def told(requests: Any, context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            asked.append(request.file_containing_symbol or request.file_by_filename)
            answer = reflection_pb2.ServerReflectionResponse()
            file = files[request.file_by_filename].SerializeToString()
            answer.file_descriptor_response.file_descriptor_proto.append(file)
            yield answer

    async with serving(Callee().handler(), reflecting(told)) as (target, _):
        assert await call(grpc_caller, target=target, tls=False, method=GET)
    assert asked == [ORDERS, "shop/v1/tag.proto"]


async def test_reflection_that_is_refused_is_told_by_its_status(grpc_caller: Handler) -> None:
    async def told(requests: Any, context: Any) -> AsyncIterator[Any]:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you")
        yield None

    async with serving(reflecting(told)) as (target, _):
        for _ in range(20):  # the refusal may come before the question has gone out, or later
            error = await failure(grpc_caller, target=target, tls=False, method=GET)
            assert (error.code, error.retryable) == ("GRPC_UNAUTHENTICATED", False)
            assert "who are you" in error.message


async def test_reflection_that_names_ever_more_files_is_ended(grpc_caller: Handler) -> None:
    async def told(requests: Any, context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            number = int(request.file_by_filename.removesuffix(".proto") or 0)
            file = FileDescriptorProto(name=f"{number}.proto", dependency=[f"{number + 1}.proto"])
            answer = reflection_pb2.ServerReflectionResponse()
            answer.file_descriptor_response.file_descriptor_proto.append(file.SerializeToString())
            yield answer

    async with serving(reflecting(told)) as (target, _):
        error = await failure(grpc_caller, target=target, tls=False, method=GET)
    assert (error.code, error.retryable) == ("INVALID_RESPONSE", False)
    assert f"more than {MAX_FILES} files" in error.message
