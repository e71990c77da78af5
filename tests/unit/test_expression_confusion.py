"""Whatever types meet in an expression, it gives JSON or a clear error, and never anything else."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine import payload
from service.engine.expressions import ExpressionError, compile_condition, compile_value

VARIABLES: dict[str, Any] = {
    "input": {
        "n": 7,
        "x": 1.5,
        "t": "text",
        "l": [1, "a", None, [2.5]],
        "m": {"a": 1, "b": {"c": []}},
        "z": None,
        "b": True,
    }
}
NAMES = frozenset(VARIABLES)

_LEAVES = st.sampled_from(
    [
        *("1", "0", "-1", "1u", "0u", "1.5", "-0.0", "1e308", "9223372036854775807", "-9223372036854775808"),
        *("18446744073709551615u", "0.0 / 0.0", "1.0 / 0.0", "true", "false", "null", "'a'", "''", "b'a'", "b''", "[]"),
        *("{}", "input", "input.n", "input.x", "input.t", "input.l", "input.m", "input.z", "input.b", "input.none"),
        *("timestamp(0)", "timestamp('9999-12-31T23:59:59Z')", "timestamp('0001-01-01T00:00:00Z')", "duration('1s')"),
        *(
            "duration('315576000000s')",
            "duration('-315576000000s')",
            "int",
            "type(1)",
            "type(type)",
            "null_type",
            "'\\U0010ffff'",
        ),
    ]
)


def _compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(inner, inner)
    operators = ("+", "-", "*", "/", "%", "==", "!=", "<", ">=", "&&", "||", "in")
    calls = ("size({0})", "string({0})", "int({0})", "uint({0})", "double({0})", "bool({0})", "bytes({0})", "dyn({0})")
    members = (
        "has({0}.a)",
        "({0}).a",
        "-({0})",
        "!({0})",
        "type({0})",
        "timestamp({0})",
        "duration({0})",
        "'%s'.format([{0}])",
    )
    methods = (
        *(
            "({0})[{1}]",
            "{{{0}: {1}}}",
            "[{0}, {1}]",
            "{{'k': {0}, 'k': {1}}}",
            "({0}).map(x, {1})",
            "({0}).filter(x, {1})",
        ),
        *(
            "({0}).exists(x, x == {1})",
            "({0}).all(k, v, v == {1})",
            "({0}).transformList(i, x, [x, {1}])",
            "({0}).join({1})",
        ),
        *(
            "({0}).split({1})",
            "({0}).contains({1})",
            "({0}).replace({1}, 'z')",
            "({0}).substring({1})",
            "({0}).charAt({1})",
        ),
        *("({0}).getHours({1})", "'%d %.2f'.format([{0}, {1}])", "math.greatest({0}, {1})", "math.bitAnd({0}, {1})"),
        *(
            "({0}) ? {1} : {0}",
            "cel.bind(x, {0}, [x, {1}])",
            "({0}).matches({1})",
            "base64.encode({0}) + {1}",
            "{{{0}: {1}}}[{0}]",
        ),
    )
    forms = (*(f"({{0}}) {operator} ({{1}})" for operator in operators), *calls, *members, *methods)
    return st.builds(lambda form, of: form.format(*of), st.sampled_from(forms), pair)


SOURCES = st.recursive(_LEAVES, _compound, max_leaves=6)


def _is_clear(error: ExpressionError) -> bool:
    text = str(error)
    return bool(text) and len(text) < 500 and "\n" not in text and text.isprintable()


@settings(max_examples=600)
@given(source=SOURCES)
def test_a_value_is_json_or_the_error_is_clear(source: str) -> None:
    try:
        result = compile_value(source, NAMES).evaluate(VARIABLES)
    except ExpressionError as error:
        assert _is_clear(error), error
    else:
        assert not payload.check(result)


@settings(max_examples=300)
@given(source=SOURCES)
def test_a_condition_is_a_bool_or_the_error_is_clear(source: str) -> None:
    try:
        result = compile_condition(source, NAMES).evaluate(VARIABLES)
    except ExpressionError as error:
        assert _is_clear(error), error
    else:
        assert type(result) is bool
