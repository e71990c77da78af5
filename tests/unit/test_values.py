"""The bytes of JSON values are those of protobuf's messages, and what these refuse has none."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct, Value
from hypothesis import given
from hypothesis import strategies as st

from flowkeep.errors import PayloadError
from flowkeep.payload import MAX_WHOLE_NUMBER, from_struct, from_value, to_struct, to_value
from service.api.values import struct_bytes, value_bytes

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
numbers = st.integers(-MAX_WHOLE_NUMBER, MAX_WHOLE_NUMBER) | st.floats(allow_nan=False, allow_infinity=False).filter(
    lambda number: abs(number) <= MAX_WHOLE_NUMBER or abs(number) >= 2.0**64
)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=30,
)


@given(values)
def test_a_value_is_written_as_its_message_would_be(value: Any):
    written = value_bytes(value)
    assert written == to_value(value).SerializeToString(deterministic=True)
    assert from_value(Value.FromString(written)) == value


@given(st.dictionaries(texts, values, max_size=5))
def test_an_object_is_written_in_the_order_of_its_keys(members: dict[str, Any]):
    written = struct_bytes(members)
    assert from_struct(Struct.FromString(written)) == members
    assert written == to_struct(members).SerializeToString(deterministic=True)
    assert struct_bytes(dict(reversed(members.items()))) == written


def test_before_a_key_come_those_that_begin_with_it():
    members = dict.fromkeys(["a", "ab", "", "abc", "b", "ä", "a\U0010ffff", "\ue000", "\U00010000", "a\x01"])
    assert struct_bytes(members) == to_struct(members).SerializeToString(deterministic=True)
    assert value_bytes([members]) == to_value([members]).SerializeToString(deterministic=True)


@pytest.mark.parametrize("text", ["", "x" * 127, "x" * 128, "x" * 1023, "x" * 1024, "x" * 70_000], ids=len)
def test_lengths_of_any_size(text: str):
    assert Value.FromString(value_bytes({text: [text]})) == to_value({text: [text]})


@pytest.mark.parametrize("value", [MappingProxyType({"a": 1}), (1, 2), {"a": MappingProxyType({})}])
def test_what_messages_take_for_json_is_written_too(value: Any):
    assert Value.FromString(value_bytes(value)) == to_value(value)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        *(float("nan"), float("inf"), 2**53 + 1, -(2.0**60)),
        *("\0", "\ud800", {"\0": 1}, {1: 2}, {1: 2, "a": 3}, {1}, nested(40)),
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    ("write", "message"), [(value_bytes, to_value), (lambda v: struct_bytes({"a": v}), lambda v: to_struct({"a": v}))]
)
def test_what_no_message_holds_is_refused_with_the_same_words(
    value: Any, write: Callable[[Any], Any], message: Callable[[Any], Any]
):
    with pytest.raises(PayloadError) as refused:
        write(value)
    with pytest.raises(PayloadError) as expected:
        message(value)
    assert str(refused.value) == str(expected.value)


def test_zero_has_no_sign():
    assert value_bytes(-0.0) == value_bytes(0)
