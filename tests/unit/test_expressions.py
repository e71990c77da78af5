"""Expressions: what they give, what they refuse and how they say it, and the traps of the library beneath."""

from __future__ import annotations

import sys
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine import payload
from service.engine.expressions import (
    ExpressionError,
    compile_condition,
    compile_value,
    step_references,
)

NAMES = frozenset({"input", "steps", "vars"})
VARIABLES: dict[str, Any] = {
    "input": {"total": 150, "rate": 1.5, "currency": "EUR", "items": [{"name": "a"}, {"name": "b"}], "none": None},
    "steps": {"fetch": {"output": {"rows": [3, 1, 2]}}},
    "vars": {},
}


def value(source: str, variables: Any = VARIABLES) -> Any:
    return compile_value(source, NAMES).evaluate(variables)


def condition(source: str) -> bool:
    return bool(compile_condition(source, NAMES).evaluate(VARIABLES))


def error(source: str, variables: Any = VARIABLES) -> str:
    with pytest.raises(ExpressionError) as caught:
        value(source, variables)
    return str(caught.value)


@pytest.mark.parametrize(
    ("source", "result"),
    [
        ("input.total * 2", 300),
        ("input.items.map(i, i.name + '!')", ["a!", "b!"]),
        ("input.items.filter(i, i.name == 'b')", [{"name": "b"}]),
        ("steps.fetch.output.rows[0]", 3),
        ("steps['fetch'].output.rows.size()", 3),
        ("has(input.nope) ? dyn(1) : null", None),
        ("cel.bind(t, input.total, t + t)", 300),
        ("math.greatest(input.total, 7)", 150),
        ("'a,b'.split(',')", ["a", "b"]),
        ("base64.encode(b'hello')", "aGVsbG8="),
        ("'%s: %d'.format([input.currency, input.total])", "EUR: 150"),
        ("timestamp('2024-01-01T02:00:00.120+02:00')", "2024-01-01T00:00:00.12Z"),
        ("timestamp('2024-01-01T00:00:00Z') + duration('90m')", "2024-01-01T01:30:00Z"),
        ("[duration('90s'), duration('-1.5s'), duration('0s')]", ["90s", "-1.5s", "0s"]),
        ("3u", 3),
        ("// a comment\n1", 1),
        ("input", VARIABLES["input"]),
        ("vars", {}),
    ],
)
def test_values(source: str, result: Any) -> None:
    assert value(source) == result


@pytest.mark.parametrize(("source", "result"), [("2.0", 2), ("1.5 * 2.0", 3), ("-0.0", 0), ("[0.5, 4.0]", [0.5, 4])])
def test_results_are_normalised(source: str, result: Any) -> None:
    given_value = value(source)
    assert payload.encode(given_value) == payload.encode(result)


def test_conditions() -> None:
    assert condition("input.total > 100 && input.currency == 'EUR'")
    assert not condition("input.items.exists(i, i.name == 'c')")
    assert condition("input.items.all(i, has(i.name)) && input.items.exists_one(i, i.name == 'a')")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("1", "a condition must be true or false, but this gives int"),
        ("'a' + 'b'", "a condition must be true or false, but this gives string"),
        ("input.total", "a condition must be true or false, but this gives a number"),
        ("input.none", "a condition must be true or false, but this gives null"),
        ("input.items", "a condition must be true or false, but this gives a list"),
    ],
)
def test_a_condition_is_a_bool(source: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        condition(source)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("1\0", "contains the character NUL"),
        ("x" * 4_097, "is longer than 4096 characters"),
        ("nope", "line 1, column 1: unknown variable 'nope'; known are input, steps, vars"),
        ("input.total +\n nope.a.b", "line 2, column 8: unknown variable 'nope'; known are input, steps, vars"),
        ("foo(1)", "line 1, column 4: unknown function 'foo'"),
        ("math.foo(1)", "line 1, column 1: unknown function 'math'"),
        ("input.total +", "line 1, column 14: unexpected end"),
        ("[1, 2", "line 1, column 6: unexpected end"),
        ("'open", "line 1, column 1: unexpected ''open'"),
        ("@#", "line 1, column 1: unexpected '@'"),
        ("true ? 1 : null", "line 1, column 6: the two results of ? : have different types (bool, int, null); "),
        ("'a'[0]", "line 1, column 4: cannot apply […] to (string, int)"),
        ("1 in 2", "line 1, column 3: cannot apply in to (int, int)"),
        ("1 + 'a'", "line 1, column 3: cannot apply + to (int, string)"),
        ("google.protobuf.Struct{}", "builds the message google.protobuf.Struct; use a map: {'key': value}"),
        ("(" * 40 + "1" + ")" * 40, "is nested more than 32 levels deep"),
        ("1" + " + 1" * 40, "is nested or chained more than 32 levels deep"),
        ("[" + "1," * 1_000 + "1]", "has more than 1,000 parts"),
        ("[1].all(a, [1].all(b, [1].all(c, true)))", "nests loops more than 2 deep"),
        (
            "input.transformMap(k, v, v)",
            "uses transformMap or transformMapEntry, which are not offered; use transformList",
        ),
    ],
)
def test_what_does_not_compile(source: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_value(source, NAMES)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("input.total = 5", "line 1, column 13: = does not compare; write =="),
        ("input.total === 5", "line 1, column 13: === is no operator; write =="),
        ("input.total <> 5", "line 1, column 13: <> is no operator; write !="),
        ("true and\nfalse", "line 1, column 6: and is no operator; write &&"),
        ("'a' == 'and' ||\n true or false", "line 2, column 7: or is no operator; write ||"),
        ("not true", "line 1, column 1: not is no operator; write !"),
        ("1 not in [2]", "line 1, column 3: not in is no operator; write !(a in b)"),
        ("input.none is null", "line 1, column 12: is is no operator; write == or !="),
        ("input.none == None", "line 1, column 15: None is not known; write null"),
        ("True", "line 1, column 1: True is not known; write true"),
        ("False", "line 1, column 1: False is not known; write false"),
        ("1 if true else 2", "line 1, column 3: there is no if; write condition ? this : that"),
        ("input?.total", "line 1, column 6: ?. is not offered; test with has(…) where a field may be absent"),
        ("{ input.total }", "line 1, column 1: these braces make a map, which has keys; write the value without them"),
        ("input.total.string()", "line 1, column 19: unknown function 'string'; write string(a)"),
        ("'a' in 'abc'", "line 1, column 5: cannot apply in to (string, string); of a string write b.contains(a)"),
        ("true & true", "line 1, column 6: & is no operator; write &&, or math.bitAnd(…) for bits"),
        ("'a' + 1", "line 1, column 5: cannot apply + to (string, int); write string(…) around what is no string"),
        ("'a' + input.rate", "cannot apply + to (string, double); write string(…) around what is no string"),
        ("${ input.total }", "is CEL as it stands; write it without ${ }"),
        ("{{ input.total }}", "line 1, column 1: {{ }} is no CEL; write the expression without it"),
        ("inputs.total", "line 1, column 7: unknown variable 'inputs'; did you mean input?"),
        ("len(input.items)", "line 1, column 4: unknown function 'len'; did you mean size?"),
        ("round(1.5)", "line 1, column 6: unknown function 'round'; did you mean math.round?"),
        ("math.flor(1.5)", "line 1, column 1: unknown function 'math'; did you mean math.floor?"),
        ("xyzzy(1)", "line 1, column 6: unknown function 'xyzzy'; `flowkeep functions` lists all that there are"),
        ("now()", "line 1, column 4: unknown function 'now'; an expression knows no clock, so that "),
    ],
)
def test_habits_of_other_languages_are_told(source: str, message: str) -> None:
    assert error(source).startswith(message)


def test_words_in_strings_and_comments_are_no_habits() -> None:
    assert value("'a = b and not None' + \"{{ ${ }}\" // or so = True") == "a = b and not None{{ ${ }}"
    assert error("'=' + input // and\n +") == "line 2, column 3: unexpected end"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("input.nope", "there is no input.nope; test with has(…) where it may be absent"),
        ("steps.gone.output.x", "there is no steps.gone; test with has(…) where it may be absent"),
        ("has(input.a.b)", "there is no input.a; test with has(…) where it may be absent"),
        ("input.items.map(i, i.price)", 'there is no key "price"'),
        ("1 + uint(input.total)", "line 1, column 3: cannot apply + to (int, uint); write int(…) around the uint"),
        ("input.total.substring(1)", "cannot apply substring to (double, int)"),
        ("duration('soon')", 'reads a duration that is none; write "1h30m", "45s", "7d" or "PT5M"'),
        ("input.none > 1", "cannot apply > to (null, int)"),
        ("input.currency.code", "takes a field of a value that is not a map"),
        ("input.total ? 1 : 2", "tests a value that is not a bool"),
        ("input.total.all(i, true)", "loops over a value that is neither a list nor a map"),
        ("input.items[7]", "Index error: index=7 size=2"),
        ("1 / 0", "divide by zero"),
        ("int('x')", "cannot convert string to int"),
        ("1.0 / 0.0", "result: must be a finite number; JSON has no NaN and no infinity"),
        ("[9007199254740993]", "result[0]: must be between -9007199254740991 and 9007199254740991; "),
        ("'\\u0000'", "result: must not contain the character NUL (U+0000)"),
        ("b'x'", "gives bytes, which are not a JSON value; use string(…) or base64.encode(…)"),
        ("[b'x']", "gives bytes, which are not a JSON value; use string(…) or base64.encode(…)"),
        ("{1: 2}", "gives a map with keys that are not strings, which is not a JSON value"),
        ("type(1)", "gives something that is not a JSON value"),
        ("[1].map(a, [a]).map(a, [[a]])" + ".map(a, [[a]])" * 12, "result: must be nested at most 24 levels deep"),
    ],
)
def test_what_has_no_value(source: str, message: str) -> None:
    assert error(source).startswith(message)


SHOWN: dict[str, Any] = {
    "done": {"state": "COMPLETED", "output": {"x": {"y": 0}, "error": "none"}, "error": None},
    "empty": {"state": "COMPLETED", "output": None, "error": None},
    "failed": {"state": "FAILED", "output": None, "error": {"code": "BAD", "message": "bad"}},
    "skipped": {"state": "SKIPPED", "output": None, "error": None},
}


@pytest.mark.parametrize(
    ("source", "result"),
    [
        ("has(steps.{}.error)", {"failed"}),
        ("has(steps['{}'].error)", {"failed"}),
        ("has(steps[input.{}].error)", {"failed"}),
        ("has(steps.{}.error.code)", {"failed"}),
        ("steps.{}.error != null", {"failed"}),
        ("has(steps.{}.error.details.status)", set()),
        ("has(steps.{}.output)", {"done"}),
        ("has(steps.{}.output.x)", {"done"}),
        ("has(steps.{}.output.x.y)", {"done"}),
        ("has(steps.{}.output['x'].y)", {"done"}),
        ("has(steps.{}.output.error)", {"done"}),
        ("steps.{}.output == null", {"empty", "failed", "skipped"}),
        ("has(steps.{}.state) && has(steps.{}) && !has(steps.{}.x)", set(SHOWN)),
    ],
)
def test_a_step_has_an_error_or_output_when_there_is_one(source: str, result: set[str]) -> None:
    variables = {"steps": SHOWN, "input": {name: name for name in SHOWN}}
    tests = {name: source.replace("{}", name) for name in SHOWN if "details" not in source or name != "failed"}
    assert {name for name, test in tests.items() if value(test, variables)} == result


def test_has_of_anything_else_is_that_of_maps() -> None:
    assert value("has(input.none) && !has(input.gone) && !has(vars.x) && !has(steps.gone)") is True
    assert value("[{'a': {}}].exists(steps, has(steps.a.error))") is False


@pytest.mark.parametrize("source", ["\n".join(["'" + "x" * 4_000, "@"]), "@#$%^" * 800, "+-*/" * 1_000, '"' * 4_096])
def test_errors_are_one_short_line(source: str) -> None:
    message = error(source)
    assert "\n" not in message
    assert len(message) < 400


@pytest.mark.parametrize("source", ["{}['\\u0000']", "{}['\\x1b[31m']", "{}['\\u202e']", "'\x01", "\x01"])
def test_errors_are_printable(source: str) -> None:
    """What fails is kept in Postgres, which has no NUL, and shown in terminals."""
    assert error(source).isprintable()


def test_variables_that_are_declared_but_absent() -> None:
    assert error("input.a", {}) == 'No value with name "input" found in Activation'


def test_a_read_only_mapping_is_a_map() -> None:
    variables = MappingProxyType({"vars": MappingProxyType({"a": 1})})
    assert value("vars.a", variables) == 1
    assert value("vars", variables) == {"a": 1}


def test_an_expression_tells_what_it_reads() -> None:
    expression = compile_value("steps.a.output + steps['b'] > 1 && input.x.exists(vars, vars.y == steps.c)", NAMES)
    assert expression.names == {"steps", "input"}
    assert expression.references == {"a", "b", "c"}
    assert compile_value(expression.source, NAMES) == expression


@pytest.mark.parametrize(
    ("source", "steps"),
    [
        ("steps.a.output.x + steps['b-1'].output", {"a", "b-1"}),
        ("'steps.a' + \"steps.b\" + r'steps.c' // steps.d", set()),
        ("has(steps.a) && has(steps.b.output)", {"a", "b"}),
        ("steps[input.which].output", set()),
        ("input.steps.a", set()),
        ("input.all(steps, steps.a == steps.b)", set()),
        ("input.all(steps, .steps.a == 1)", {"a"}),
        ("steps.a +", set()),
        ("", set()),
    ],
)
def test_step_references(source: str, steps: set[str]) -> None:
    assert step_references(source) == steps


def test_only_what_is_read_is_looked_at() -> None:
    """A value that the library cannot take does not matter when the expression does not read it."""
    assert value("input.a", {"input": {"a": 1, "b": object()}, "steps": {"x": object()}}) == 1
    assert error("input.b", {"input": {"b": object()}})


# The traps of cel-expr-python 0.1.3


def test_trap_nulls_in_results_do_not_abort_the_process() -> None:
    """On Python 3.11 each null in a result loses a reference to None; a few thousand were the end."""
    nulls, null = compile_value("[null, {'a': null}, input.none]", NAMES), compile_value("null", NAMES)
    for _ in range(20_000):
        nulls.evaluate(VARIABLES)
        null.evaluate(VARIABLES)
    assert nulls.evaluate(VARIABLES) == [None, {"a": None}, None]
    assert sys.getrefcount(None) > 1_000_000


@pytest.mark.parametrize("source", ["{1: input.?q}", "[input.?q]", "optional.none()", "input[?'a']"])
def test_trap_optionals_are_not_offered(source: str) -> None:
    assert error(source)


def test_trap_errors_are_not_taken_for_strings() -> None:
    assert error("1 / 0") == "divide by zero"
    assert value("'divide by zero'") == "divide by zero"
    assert condition("'error' == 'error'")


def test_trap_maps_come_in_the_same_order_every_time() -> None:
    expected = [f"k{n:02}" for n in range(30)]
    source = "{" + ", ".join(f"'{key}': {{'b': 1, 'a': 2}}" for key in reversed(expected)) + "}"
    for _ in range(5):
        result = value(source)
        assert list(result) == expected
        assert all(list(inner) == ["a", "b"] for inner in result.values())


@pytest.mark.parametrize(
    ("source", "result"),
    [
        ("input.m.map(k, k)", [f"k{n}" for n in range(10)]),
        ("input.m.filter(k, input.m[k] % 2 == 0)", [f"k{n}" for n in range(0, 10, 2)]),
        ("input.m.map(k, input.m[k] > 7, input.m[k])", [8, 9]),
        ("input.m.transformList(k, v, k + string(v))", [f"k{n}{n}" for n in range(10)]),
        ("input.m.transformList(k, v, v > 7, v)", [8, 9]),
        ("input.m.transformList(k, v, [v].transformList(i, x, [k, x, i]))[1]", [["k1", 1, 0]]),
        ("{3: 'c', 1: 'a', 2: 'b'}.transformList(k, v, v)", ["a", "b", "c"]),
        ("input.l.transformList(i, x, i * x)", [0, 1, 4]),
    ],
)
def test_trap_loops_over_maps_go_by_their_keys(source: str, result: Any) -> None:
    """The library takes another order each time, and what is computed again must be the same."""
    variables = {"input": {"m": {f"k{n}": n for n in reversed(range(10))}, "l": [0, 1, 2]}}
    assert all(value(source, variables) == result for _ in range(5))


@pytest.mark.parametrize("source", ["input.items.map(i, i) == []", "input.items.filter(i, true).size() > 0"])
def test_trap_quadratic_macros_are_not_for_conditions(source: str) -> None:
    with pytest.raises(ExpressionError, match="uses map or filter, which a condition cannot; use exists, all"):
        compile_condition(source, NAMES)


@pytest.mark.parametrize("macro", ["map(i, i)", "filter(i, true)"])
def test_trap_quadratic_macros_take_a_thousand_elements(macro: str) -> None:
    source = f"input.l.{macro}.size()"
    assert value(source, {"input": {"l": [0] * 999}}) == 999
    assert value(source, {"input": {"l": [0] * 1_000}}) == 1_000
    assert error(source, {"input": {"l": [0] * 1_001}}) == (
        "uses map or filter on what may be more than 1,000 elements"
    )


@pytest.mark.parametrize("alien", [(1, 2), {1}, object(), 1j])
def test_trap_types_that_the_library_does_not_know(alien: Any) -> None:
    assert error("input.a", {"input": {"a": alien}})
    assert error("input.a", {"input": {"a": [alien]}})


def test_trap_a_loop_ends_after_ten_thousand_rounds() -> None:
    assert not value("input.l.exists(x, x == 1)", {"input": {"l": [0] * 9_000}})
    assert error("input.l.exists(x, x == 1)", {"input": {"l": [0] * 10_001}}) == "loops more than 10,000 times in all"


@settings(max_examples=300)
@given(st.text(max_size=60) | st.text("input.stepsvar()[]{}'\"\\+-*/?:<>=!&|,$ 019\n", max_size=60))
def test_any_text_compiles_or_is_refused(source: str) -> None:
    try:
        result = value(source)
    except ExpressionError as refused:
        assert "\n" not in str(refused)
    else:
        assert payload.check(result) == []
