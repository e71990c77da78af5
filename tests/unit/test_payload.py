"""The one check of JSON-like values: limits at max-1, max and max+1, and what passes comes back unchanged."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine import payload
from service.engine.violations import ValidationError, Violation

MAX_INTEGER = 2**53 - 1


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    return value


def refusal(value: Any, field: str = "input") -> str:
    with pytest.raises(ValidationError) as caught:
        payload.normalise(value, field)
    return str(caught.value)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
scalars = st.none() | st.booleans() | texts | st.integers(-MAX_INTEGER, MAX_INTEGER)
numbers = st.floats(-1e15, 1e15)
json_values = st.recursive(
    scalars | numbers,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=30,
)


@given(json_values)
def test_what_passes_survives_the_wire_and_is_equal(value: Any) -> None:
    clean = payload.normalise(value, "input")
    assert clean == value
    assert payload.decode(payload.encode(clean)) == clean
    assert payload.normalise(clean, "input") == clean
    assert payload.size(clean) == len(payload.encode(clean))


@given(json_values)
def test_the_value_that_was_given_is_neither_changed_nor_shared(value: Any) -> None:
    before = copy.deepcopy(value)
    clean = payload.normalise(value, "input")
    assert repr(value) == repr(before)
    if isinstance(value, list | dict):
        assert clean is not value


@given(
    st.recursive(st.just(float("nan")) | st.binary() | st.tuples(st.integers()) | st.text(), st.lists, max_leaves=20)
)
def test_check_and_normalise_agree_on_anything(value: Any) -> None:
    violations = payload.check(value, "input")
    try:
        payload.normalise(value, "input")
    except ValidationError as error:
        assert list(error.violations) == violations
    else:
        assert violations == []


@pytest.mark.parametrize(
    ("given_value", "clean"),
    [(2.0, 2), (-0.0, 0), (-3.0, -3), (2.5, 2.5), (5e-324, 5e-324), (True, True), ({"a": [1.0]}, {"a": [1]})],
)
def test_whole_floats_come_out_as_ints(given_value: Any, clean: Any) -> None:
    result = payload.normalise(given_value, "input")
    assert result == clean
    assert type(result) is type(clean)
    assert payload.encode(result) == payload.encode(clean)


@pytest.mark.parametrize("number", [MAX_INTEGER - 1, MAX_INTEGER, -MAX_INTEGER, float(MAX_INTEGER)])
def test_numbers_up_to_the_limit_pass(number: float) -> None:
    assert payload.normalise(number, "n") == number


@pytest.mark.parametrize("number", [2**53, -(2**53), 2**53 + 1, 2**63, 10**400, float(2**53), 2.0**63, 2**64, 1.8e19])
def test_numbers_beyond_are_refused_with_advice(number: float) -> None:
    assert refusal({"n": number}) == (
        "input.n: must be between -9007199254740991 and 9007199254740991; send larger numbers as strings"
    )


@pytest.mark.parametrize("number", [2.0**64, -(2.0**64), 6.02e23, -1e300, 1.7976931348623157e308])
def test_floats_beyond_any_integer_of_64_bits_are_floats(number: float) -> None:
    result = payload.normalise([number], "n")
    assert result == payload.decode(payload.encode(result)) == [number]
    assert type(result[0]) is float


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_have(number: float) -> None:
    assert refusal([number]) == "input[0]: must be a finite number; JSON has no NaN and no infinity"


@pytest.mark.parametrize("depth", [0, 1, 23, 24])
def test_depth_up_to_the_limit(depth: int) -> None:
    assert payload.normalise(nested(depth), "input") == nested(depth)


@pytest.mark.parametrize("depth", [25, 30, 33, 34, 50, 51, 100, 1_000, 10_000, 100_000])
def test_depth_beyond_the_limit_is_refused_without_recursion(depth: int) -> None:
    value = nested(depth)
    assert refusal(value) == "input: must be nested at most 24 levels deep"
    while isinstance(value, list | dict):  # taken apart level by level: freeing it at once would recurse
        value = value[0] if isinstance(value, list) else value["k"]


def test_a_value_inside_of_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    assert "24 levels" in refusal(value)


@pytest.mark.parametrize("extra", [-1, 0])
def test_values_up_to_the_limit(extra: int) -> None:
    payload.normalise([0] * (10_239 + extra), "input")
    payload.normalise({str(i): [i] for i in range((10_239 + extra) // 2)}, "input")


@pytest.mark.parametrize("value", [[0] * 10_240, [[0] * 5_119, [0] * 5_119], {str(i): i for i in range(100_000)}])
def test_values_beyond_the_limit(value: Any) -> None:
    assert refusal(value) == "input: must have at most 10,240 values in all"


@pytest.mark.parametrize("extra", [-1, 0])
def test_size_up_to_the_limit(extra: int) -> None:
    text = "x" * (payload.MAX_PAYLOAD_BYTES - 2 + extra)
    assert payload.normalise(text, "input") == text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("x" * (256 * 1024 - 1), "input: must be at most 262,144 bytes as JSON, but has 262,145"),
        ("é" * (128 * 1024), "input: must be at most 262,144 bytes as JSON, but has 262,146"),
        ("\n" * (128 * 1024), "input: must be at most 262,144 bytes as JSON, but has 262,146"),
        ("x" * 64_000_000, "input: must be at most 262,144 bytes as JSON; its strings alone have more"),
        ({"x" * 200_000: "y" * 100_000}, "input: must be at most 262,144 bytes as JSON; its strings alone have more"),
    ],
)
def test_size_beyond_the_limit(value: Any, message: str) -> None:
    assert refusal(value) == message


def test_the_limit_on_bytes_can_be_another_one() -> None:
    assert payload.check("x" * 8, "f", max_bytes=10) == []
    assert payload.check("x" * 9, "f", max_bytes=10) == [Violation("f", "must be at most 10 bytes as JSON, but has 11")]


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ud83d"])
def test_half_of_a_surrogate_pair_is_refused_in_values_and_keys(text: str) -> None:
    assert "surrogate" in refusal(text)
    assert "surrogate" in refusal({text: 1})


@pytest.mark.parametrize("text", ["\0", "a\0b"])
def test_nul_is_refused_in_values_and_keys(text: str) -> None:
    assert "NUL" in refusal([text])
    assert "NUL" in refusal({text: 1})


@pytest.mark.parametrize(
    "text", ["\ufeff", "\u202e", "\u00e9", "e\u0301", "😀", "\x01", "\x7f", "\ufffe", "\u2028", ""]
)
def test_unusual_characters_round_trip(text: str) -> None:
    clean = payload.normalise({text: text}, "input")
    assert payload.decode(payload.encode(clean)) == {text: text}


@pytest.mark.parametrize("value", [(1,), {1}, b"x", object(), 1j, range(3)])
def test_other_types_are_refused(value: Any) -> None:
    assert refusal({"a": value}) == f"input.a: must be a JSON value, not {type(value).__name__}"


def test_every_violation_has_its_path() -> None:
    value = {"items": [0, 1, 2, {"name": "\0"}], "a b": {"": math.nan}, 7: 1, "q": {"x": b"", '"': b""}}
    with pytest.raises(ValidationError) as caught:
        payload.normalise(value, "input")
    assert {violation.field for violation in caught.value.violations} == {
        "input",
        "input.items[3].name",
        'input["a b"][""]',
        "input.q.x",
        'input.q["\\""]',
    }


def test_paths_are_printable_and_short() -> None:
    message = refusal({"x" * 5_000: b"", "new\nline": b"", "\ud800": 1, "\u202e": b""})
    assert message.isprintable()
    assert len(message) < 400


def test_at_most_twenty_violations() -> None:
    assert len(payload.check([b""] * 9_000)) == 20


def test_an_empty_field_names_no_root() -> None:
    assert payload.check({"a": b""})[0].field == "a"
    assert payload.check([b""])[0].field == "[0]"
    assert str(payload.check(b"")[0]) == "must be a JSON value, not bytes"


@pytest.mark.parametrize(
    "data", [b"", b"[1,", b"\xff", b"NaN", b"1e400", b'"\\ud800"', b"[" * 100_000, b"{'a': 1}", b"1 2"]
)
def test_what_is_not_json_is_a_violation(data: bytes) -> None:
    with pytest.raises(ValidationError, match="is not JSON"):
        payload.decode(data)
