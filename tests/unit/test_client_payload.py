"""Payloads: plain Python in, plain Python out, and a path for everything that JSON cannot hold."""

import math
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import pydantic
import pytest
from google.protobuf.struct_pb2 import Struct, Value

from flowkeep import PayloadError, from_struct, from_value, to_struct, to_value

DOCUMENT = {
    "text": "Grüße",
    "whole": 3,
    "negative": -7,
    "real": 2.5,
    "yes": True,
    "nothing": None,
    "empty_object": {},
    "empty_list": [],
    "nested": [{"a": [1, "two", None]}, []],
}


def test_round_trip_gives_equal_values_and_types():
    back = from_struct(Struct.FromString(to_struct(DOCUMENT).SerializeToString()))

    assert back == DOCUMENT
    assert type(back["whole"]) is int
    assert type(back["yes"]) is bool
    assert type(back["real"]) is float


@pytest.mark.parametrize("number", [2.0**64, -(2.0**64), 6.02e23, -1e300])
def test_floats_beyond_any_integer_of_64_bits_are_floats(number):
    back = from_value(to_value([number]))
    assert back == [number]
    assert type(back[0]) is float


@pytest.mark.parametrize("number", [0, 1, -1, 2**53, -(2**53)])
def test_whole_numbers_come_out_as_int(number):
    assert from_value(to_value(number)) == number
    assert type(from_value(to_value(number))) is int
    assert type(from_value(to_value(float(number)))) is int


def test_a_larger_number_from_elsewhere_stays_a_float():
    assert type(from_value(Value(number_value=2.0**60))) is float


def test_an_unset_value_is_none():
    assert from_value(Value()) is None


@pytest.mark.parametrize(
    ("value", "path", "part"),
    [
        ({"a": [0, math.nan]}, "a[1]", "finite"),
        ({"a": {"b": -math.inf}}, "a.b", "finite"),
        ({"id": 2**53 + 1}, "id", "send it as a string"),
        ({"id": -(10**5000)}, "id", "send it as a string"),
        ({"x": 1.8e19}, "x", "send it as a string"),
        ({"a": {1: "x"}}, "a", "put 1 in quotes"),
        ({"when": date(2026, 1, 1)}, "when", "send it as a string"),
        ({"price": Decimal("1.5")}, "price", "type Decimal"),
        ({"a b": [b"raw"]}, '["a b"][0]', "type bytes"),
        ({"a": "nul\0"}, "a", "NUL"),
        ({"a": "\ud800"}, "a", "surrogates"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_path(value, path, part):
    with pytest.raises(ValueError, match=part) as caught:
        to_struct(value)

    assert isinstance(caught.value, PayloadError)
    assert caught.value.path == path
    assert str(caught.value).startswith(f"{path}: ")


def test_paths_begin_where_the_caller_says():
    with pytest.raises(PayloadError, match=r"^input\.a\[0\]: "):
        to_struct({"a": [math.inf]}, "input")


def test_keys_come_in_the_order_of_the_alphabet():
    keys = [f"k{number:02}" for number in range(50)]

    assert list(from_struct(to_struct(dict.fromkeys(reversed(keys), 1)))) == keys


def test_an_object_is_required_at_the_top():
    with pytest.raises(PayloadError, match="must be an object"):
        to_struct(["no"])  # type: ignore[arg-type]  # what is tested


def test_a_value_that_contains_itself_is_refused():
    loop: dict[str, object] = {}
    loop["again"] = loop

    with pytest.raises(PayloadError, match="contain itself"):
        to_struct(loop)


def test_what_is_accepted_can_be_read_by_protobuf():
    deep: dict[str, object] = {"d": 1}
    for _ in range(31):
        deep = {"d": deep}

    Struct.FromString(to_struct(deep).SerializeToString())
    with pytest.raises(PayloadError, match="nested"):
        to_struct({"d": deep})


@dataclass
class Address:
    city: str
    lines: list[Any]


@dataclass(frozen=True, slots=True)
class Customer:
    name: str
    address: Address | None = None


class Order(pydantic.BaseModel):
    placed: date
    price: Decimal


def test_dataclasses_and_models_are_objects_wherever_they_stand():
    struct = to_struct(Customer("Ada", Address("London", ["1", "2"])))
    nested = to_struct({"orders": [Order(placed=date(2026, 1, 31), price=Decimal("1.50"))], "by": Customer("Bob")})

    assert from_struct(struct) == {"name": "Ada", "address": {"city": "London", "lines": ["1", "2"]}}
    assert from_struct(nested) == {
        "orders": [{"placed": "2026-01-31", "price": "1.50"}],
        "by": {"name": "Bob", "address": None},
    }


def test_what_a_dataclass_holds_is_named_by_its_path():
    with pytest.raises(
        PayloadError, match=r"input\.address\.lines\[0\]: must be a JSON value, not a value of type date"
    ):
        to_struct(Customer("Ada", Address("London", [date(2026, 1, 1)])), "input")


@pytest.mark.parametrize("value", [Customer, [1], "text", 3, None])
def test_what_is_no_object_is_no_input(value):
    with pytest.raises(PayloadError, match="input: must be an object, not "):
        to_struct(value, "input")


def test_a_dataclass_that_holds_itself_is_refused():
    address = Address("London", [])
    address.lines.append(address)

    with pytest.raises(PayloadError, match="or contain itself"):
        to_struct(address)
