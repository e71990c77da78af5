"""Messages of gRPC as JSON: what protobuf's mapping says, and bounds for what others send."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import any_pb2, duration_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, UninterpretedOption
from google.protobuf.descriptor_pool import Default

from service.calls.messages import TooManyValuesError, UnreadableMessageError, decoded, encoded


async def shown(message: Any) -> Any:
    return await decoded(message.SerializeToString(), type(message), Default())


def packed(message: Any) -> any_pb2.Any:
    made = any_pb2.Any()
    made.Pack(message)
    return made


def nested(depth: int) -> DescriptorProto:
    outer = message = DescriptorProto(name="m")
    for _ in range(depth):
        message = message.nested_type.add(name="m")
    return outer


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (wrappers_pb2.Int64Value(value=2**63 - 1), "9223372036854775807"),
        (wrappers_pb2.BytesValue(value=b"\0\xff"), "AP8="),
        (wrappers_pb2.DoubleValue(value=float("nan")), "NaN"),
        (timestamp_pb2.Timestamp(seconds=1), "1970-01-01T00:00:01Z"),
        (duration_pb2.Duration(seconds=1, nanos=500_000_000), "1.500s"),
        (field_mask_pb2.FieldMask(paths=["an_id", "b"]), "anId,b"),
        (
            packed(duration_pb2.Duration(seconds=1)),
            {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"},
        ),
    ],
)
async def test_well_known_types_there_and_back(message: Any, expected: Any) -> None:
    assert await shown(message) == expected
    assert await encoded(expected, type(message), Default()) == message.SerializeToString()


async def test_struct_of_many_values_is_told() -> None:
    values: Any = {f"k{number}": [number, {"a": None}] for number in range(2_000)}
    message = struct_pb2.Struct()
    message.update(values)
    assert await shown(message) == values


@pytest.mark.parametrize(
    "message",
    [
        any_pb2.Any(type_url="type.googleapis.com/shop.v1.Unknown", value=b"x"),
        any_pb2.Any(type_url="type.googleapis.com/google.protobuf.Duration", value=b"\xff"),
        timestamp_pb2.Timestamp(seconds=2**62),
        nested(90),
    ],
)
async def test_what_json_cannot_tell_is_refused(message: Any) -> None:
    with pytest.raises(UnreadableMessageError):
        await shown(message)


async def test_any_within_any_is_refused_before_it_is_told() -> None:
    message = packed(duration_pb2.Duration(seconds=1))
    for _ in range(100):
        message = packed(message)
    with pytest.raises(UnreadableMessageError, match="nested too deep"):
        await shown(message)


@pytest.mark.parametrize("is_packed", [False, True])
async def test_too_many_values_are_refused_before_they_are_told(is_packed: bool) -> None:
    message: Any = FileDescriptorProto(public_dependency=[0] * 40_000)
    with pytest.raises(TooManyValuesError):
        await shown(packed(message) if is_packed else message)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"nam": "a"}, 'no field named "nam"'),
        ({"field": [{"number": "x"}]}, "field"),
        ([], "must be an object"),
        (None, "must be an object"),
        ({"extension": {}}, "extension"),
    ],
)
async def test_message_that_is_none_is_refused_by_its_field(message: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        await encoded(message, DescriptorProto, Default())


async def test_what_is_required_is_named() -> None:
    with pytest.raises(ValueError, match=r"name\[0\]\.is_extension"):
        await encoded({"name": [{"namePart": "a"}]}, UninterpretedOption, Default())
