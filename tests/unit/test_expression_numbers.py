"""What a number does in an expression: never does it depend on whether it is whole."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from service.engine import payload
from service.engine.expressions import ExpressionError, Template, compile_condition, compile_value

NAMES = frozenset({"input"})
INPUT: dict[str, Any] = {
    "three": 3,
    "half": 3.5,
    "minus": -7,
    "one": 1,
    "zero": 0,
    "most": 2**53 - 1,
    "mole": 6.02e23,
    "long": 1234567.5,
    "list": [1, 2, 7.5],
    "map": {"a": 1, "b": 2.5},
    "words": "to be or not to be",
    "moment": 1_700_000_000,
    "day": "1d",
}


def value(source: str, given_input: Any = INPUT) -> Any:
    return compile_value(source, NAMES).evaluate({"input": given_input})


def error(source: str, given_input: Any = INPUT) -> str:
    with pytest.raises(ExpressionError) as caught:
        value(source, given_input)
    return str(caught.value)


numbers = st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6)
OPERATORS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b}


@given(numbers, numbers, st.sampled_from(sorted(OPERATORS)), st.booleans())
def test_arithmetic_is_that_of_doubles(one: float, other: float, sign: str, literal: bool) -> None:
    assume(sign != "/" or other)
    source = f"input.a {sign} ({other!r})" if literal else f"input.a {sign} input.b"
    expected = OPERATORS[sign](float(one), float(other))
    assume(not payload.check(expected))
    assert value(source, {"a": one, "b": other}) == expected


@given(numbers, numbers, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), st.booleans())
def test_comparisons_are_those_of_numbers(one: float, other: float, sign: str, literal: bool) -> None:
    source = f"input.a {sign} ({other!r})" if literal else f"input.a {sign} input.b"
    condition = compile_condition(source, NAMES)
    assert condition.evaluate({"input": {"a": one, "b": other}}) is eval(f"one {sign} other")  # noqa: S307 - of six signs


@pytest.mark.parametrize(("ok", "of"), [(3, 4), (3.5, 4.5), (3, 4.5), (3.5, 4)])
def test_a_ratio_is_a_ratio(ok: float, of: float) -> None:
    assert value("input.ok / input.of > 0.4", {"ok": ok, "of": of}) is True


@pytest.mark.parametrize(
    ("source", "result"),
    [
        ("1 + 1.5", 2.5),
        ("2 * 1.5", 3),
        ("7 / 2", 3),  # of two literals, which are ints
        ("7 / 2.0", 3.5),
        ("size(input.list) / 2", 1),
        ("size(input.list) * 1.5", 4.5),
        ("1u + 1.5", 2.5),
        ("input.three % 2", 1),
        ("input.minus % 2", -1),
        ("7 % input.three", 1),
        ("input.three == 3 && input.three == 3.0 && input.three == 3u", True),
        ("1 == 1.0 && 1 < 1.5 && 1u < 1.5 && 2 > 1u", True),
        ("[1] == [1.0] && [[1]] == [[1.0]] && {'a': 1} == {'a': 1.0} && {1: 2} == {1: 2.0}", True),
        ("[1, 2, 7.5] == input.list && {'a': 1, 'b': 2.5} == input.map", True),
        ("1 in [1.0] && 1.0 in [1] && [1] in [[1.0]] && 3.0 in {3: 1} && input.three in [1, 3]", True),
        ("{3: 'x'}[input.three] + {3: 'x'}[3.0]", "xx"),
        ("['a', 'b'][input.one] + ['a', 'b'][1.0] + ['a', 'b'][-0.0]", "bba"),
        ("input.list[input.three - 1]", 7.5),
        ("input.list[size(input.list) - 1]", 7.5),
        ("true ? 1 : 2.5", 1),
        ("(input.three > 2 ? 1 : 0.5) + 1.5", 2.5),
        ("true ? [1] : [1.5]", [1]),
        ("[1] + [1.5]", [1, 1.5]),
        ("input.list.map(x, x * 2)", [2, 4, 15]),
        ("[1, 2.5].map(x, x + 1)", [2, 3.5]),
        ("[1, 2].exists(x, x == 1.0) && input.list.all(x, x >= 1)", True),
        ("int(input.half) + int(input.three)", 6),
        ("math.ceil(input.three) + math.ceil(input.half)", 7),
        ("math.greatest(input.three, 5, 2.5)", 5),
        ("-input.three", -3),
        ("double('1.5') + 1", 2.5),
        ("input.mole", 6.02e23),
        ("input.mole * 10", 6.02e24),
        ("[0.0, -0.0, input.zero * -1]", [0, 0, 0]),
    ],
)
def test_numbers_mix(source: str, result: Any) -> None:
    assert payload.encode(value(source)) == payload.encode(result)


@pytest.mark.parametrize(
    ("source", "result"),
    [
        ("input.words.substring(input.three)", "be or not to be"),
        ("input.words.substring(input.three, input.three + 2)", "be"),
        ("input.words.substring(math.floor(input.half))", "be or not to be"),
        ("input.words.charAt(input.three)", "b"),
        ("input.words.indexOf('to', input.one)", 13),
        ("input.words.lastIndexOf('to', 12.0)", 0),
        ("input.words.split(' ', input.three)", ["to", "be", "or not to be"]),
        ("input.words.replace('to', '2', input.one)", "2 be or not to be"),
        ("timestamp(input.moment)", "2023-11-14T22:13:20Z"),
        ("timestamp(1700000000)", "2023-11-14T22:13:20Z"),
        ("[math.bitAnd(input.three, 2), math.bitOr(input.one, 4), math.bitXor(3, input.one)]", [2, 5, 2]),
        ("[math.bitNot(input.one), math.bitShiftLeft(input.one, 3), math.bitShiftRight(8, input.one)]", [-2, 8, 4]),
    ],
)
def test_a_whole_number_counts_as_an_int_where_one_is_wanted(source: str, result: Any) -> None:
    assert value(source) == result


@pytest.mark.parametrize(
    "source",
    [
        "input.half % 2",
        "input.words.substring(input.half)",
        "timestamp(input.half)",
        "math.bitAnd(input.half, 1)",
        "['a'].exists(x, x.charAt(0.5) == '')",
    ],
)
def test_any_other_number_does_not(source: str) -> None:
    assert error(source).startswith("needs a whole number, not ")


def test_an_index_is_whole() -> None:
    assert error("input.list[input.half]") == "indexes a list by a number that is not whole"


@pytest.mark.parametrize(
    ("source", "result"),
    [
        ("string(input.three) + string(input.half) + string(3)", "33.53"),
        ("string(input.most)", "9007199254740991"),
        ("string(input.long)", "1234567.5"),
        ("string(input.mole)", "6.02e23"),
        ("'%s'.format([[0.000012]])", "[0.000012]"),
        ("[1.5, 2.0].map(double, string(double))", ["1.5", "2"]),
        ("'%d %s %x'.format([input.three, input.three, input.three])", "3 3 3"),
        ("'%d/%d'.format([input.three, size(input.list)])", "3/3"),
        ("'%.2f %f'.format([input.three, input.half])", "3.00 3.500000"),
        ("'%s and %s'.format([input.long, input.most])", "1234567.5 and 9007199254740991"),
        (
            "'%s, %s'.format([input.list, [1234567.5, {'n': input.most}]])",
            "[1, 2, 7.5], [1234567.5, {n: 9007199254740991}]",
        ),
        ("'%s %d %s'.format(input.list)", "1 2 7.5"),
        (
            "'%s'.format([[input.one, timestamp(0), duration('1h'), b'raw', null]])",
            "[1, 1970-01-01T00:00:00Z, 3600s, raw, null]",
        ),
    ],
)
def test_numbers_are_written_as_in_json(source: str, result: Any) -> None:
    assert value(source) == result


def test_templates_write_whole_numbers_without_a_point() -> None:
    template = Template.parse({"whole": "${ input.three * 2 }", "text": "${input.three}/${input.list}"}, NAMES)
    rendered = template.render({"input": INPUT})
    assert payload.encode(rendered) == payload.encode({"whole": 6, "text": "3/[1,2,7.5]"})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("input.one / 0", "result: must be a finite number; JSON has no NaN and no infinity"),
        ("[input.zero / input.zero]", "result[0]: must be a finite number; JSON has no NaN and no infinity"),
        ("1e308 * 10", "result: must be a finite number; JSON has no NaN and no infinity"),
        ("input.most + 1", "result: must be between -9007199254740991 and 9007199254740991; "),
        ("input.most * 1000", "result: must be between -9007199254740991 and 9007199254740991; "),
        ("input.three % 0", "modulus by zero"),
        ("1 % 0", "modulus by zero"),
        ("1 / 0", "divide by zero"),
        ("input.half % (1.0 / 0.0)", "needs a whole number, not "),
        ("int(input.mole)", "double out of int64 range"),
        ("timestamp(input.mole)", "needs a whole number of 64 bits, not 6.02e+23"),
        ("'a'.charAt(9223372036854775808.0)", "needs a whole number of 64 bits, not 9.22337e+18"),
    ],
)
def test_what_is_no_number_of_json(source: str, message: str) -> None:
    assert error(source).startswith(message)


def test_division_is_that_of_doubles() -> None:
    assert value("input.one / 0 > 1e300 && -1 / 0.0 < 0.0 && 1 / -0.0 < 0.0 && !(0 / 0.0 == 0 / 0.0)") is True


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("1d", "86400s"),
        ("1w", "604800s"),
        ("1h30m", "5400s"),
        ("45s", "45s"),
        ("PT5M", "300s"),
        ("P1DT12H", "129600s"),
        ("1.5d", "129600s"),
        ("250ms", "0.25s"),
        ("-1d", "-86400s"),
        ("-1.5h", "-5400s"),
        ("1500us", "0.0015s"),
        ("30m1h", "5400s"),
    ],
)
def test_durations(text: str, result: str) -> None:
    assert value(f"duration('{text}')") == result
    assert value("duration(input.d)", {"d": text}) == result


def test_two_variables_in_loops() -> None:
    assert value("input.list.all(i, x, i < x) && input.map.exists(k, v, k == 'b' && v == 2.5)") is True
    assert value("input.list.existsOne(i, x, x == i + 1)") is False
    assert value("input.list.transformList(i, x, x > 1, x * i)") == [2, 15]
    assert sorted(value("input.map.transformList(k, v, k + string(v))")) == ["a1", "b2.5"]
