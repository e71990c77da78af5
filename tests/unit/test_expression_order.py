"""An expression gives the same each time, however its maps were ordered and whichever of its values are shared."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.expressions import ExpressionError, compile_condition, compile_value
from service.engine.expressions.cost import Allowance

NAMES = frozenset({"input", "vars", "steps"})

KEYS = st.text("abAB_é\U0001f600\uffff 1", min_size=1, max_size=4)
SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text("ab", max_size=3)
MAPS = st.recursive(
    st.dictionaries(KEYS, SCALARS, max_size=12),
    lambda inner: st.dictionaries(KEYS, SCALARS | inner, max_size=6),
    max_leaves=20,
)

LISTS = [
    "_.map(k, k)",
    "_.map(k, _[k])",
    "_.map(k, k < 'b', k)",
    "_.filter(k, _[k] != null)",
    "_.transformList(k, v, [v, k])",
    "_.transformList(k, v, v == null, k)",
    "_.map(k, {'key': k, 'value': _[k]})",
    "_.map(k, {k: 1, string(k) + 'x': _})",
    "_.map(k, k).join(',')",
    "'%s'.format([_])",
    "cel.bind(m, _, m.map(k, m.exists(other, other > k)))",
    "[_, {'b': _, 'a': 1}].map(m, m.map(k, k))",
    "_",
    "{'m': _, 'a': [_]}",
]
# Of these only the error and the number of rounds could differ.
TESTS = [
    "_.exists(k, _[k] > 1)",
    "_.exists(k, v, v > 'a')",
    "_.all(k, _[k].a == 1)",
    "_.all(k, v, v && true)",
    "_.exists_one(k, _[k] < 1.5)",
    "_.existsOne(k, v, v)",
]


def shuffled(value: Any, random: Random) -> Any:
    """Return a value with the entries of all its maps in another order; nothing of it is shared."""
    if isinstance(value, dict):
        keys = list(value)
        random.shuffle(keys)
        return {key: shuffled(value[key], random) for key in keys}
    return [shuffled(item, random) for item in value] if isinstance(value, list) else value


def outcome(source: str, variables: dict[str, Any], *, is_condition: bool = False) -> str:
    """Return what evaluation gives, the order of keys and the text of an error included, and how much work it is."""
    allowance = Allowance()
    try:
        compiled = (compile_condition if is_condition else compile_value)(source, NAMES)
        result = repr(compiled.spend(variables, allowance))
    except ExpressionError as error:
        result = f"error: {error}"
    return f"{result}, work {allowance.spent}"


@settings(max_examples=60)
@given(st.sampled_from(sorted(NAMES)), MAPS, st.randoms(use_true_random=False))
def test_the_order_in_which_a_map_came_makes_no_difference(name: str, value: dict[str, Any], random: Random) -> None:
    other = shuffled(value, random)
    for source in LISTS + TESTS:
        written, is_condition = source.replace("_", name), source in TESTS
        before = outcome(written, {name: value}, is_condition=is_condition)
        assert outcome(written, {name: other}, is_condition=is_condition) == before, written


@given(MAPS)
def test_whether_two_values_are_one_object_makes_no_difference(value: dict[str, Any]) -> None:
    shared = {"input": {"a": value, "b": [value, value]}, "vars": {"b": value}, "steps": {"x": value, "y": value}}
    apart = {
        "input": {"a": copy.deepcopy(value), "b": [copy.deepcopy(value), copy.deepcopy(value)]},
        "vars": {"b": copy.deepcopy(value)},
        "steps": {"x": copy.deepcopy(value), "y": copy.deepcopy(value)},
    }
    for source in ("input.a == vars.b", "input.map(k, input[k])", "[input, vars]", "steps.exists(k, k == '')"):
        assert outcome(source, shared) == outcome(source, apart), source


def test_keys_are_in_the_order_of_their_code_points() -> None:
    keys = ["\U0001f600", "\uffff", "é", "b", "a", "B", "10", "9"]
    found = compile_value("input.map(k, k)", NAMES).evaluate({"input": dict.fromkeys(keys)})
    assert found == ["10", "9", "B", "a", "b", "é", "\uffff", "\U0001f600"]


def test_a_loop_ends_after_the_same_number_of_rounds_each_time() -> None:
    """Up to the one key there are fewer rounds than there may be, and up to the other one more."""
    variables = {"input": {"m": {f"k{n:03}": n for n in reversed(range(300))}, "l": list(range(100))}}
    source = "input.m.exists(k, v, !input.l.exists(x, x == -1) && v == {})"
    found = compile_condition(source.format(90), NAMES)
    missed = compile_condition(source.format(290), NAMES)
    for _ in range(20):
        assert found.evaluate(variables) is True
        with pytest.raises(ExpressionError, match="loops more than 10,000 times"):
            missed.evaluate(variables)


@pytest.mark.parametrize(
    "source",
    ["{true: 1, 1: 2}", "{1: 'a', 1u: 'b'}", "[true].map(x, {x: 0, 1: 1, 'a': 2})", "{dyn(1): 2, dyn(true): 3}"],
)
def test_keys_that_differ_in_their_types_only_are_refused(source: str) -> None:
    for _ in range(5):
        with pytest.raises(ExpressionError, match="keys that differ in their types only"):
            compile_value(f"dyn({source}) == null", NAMES).evaluate({})


ZONES = [
    "localtime",
    "posixrules",
    "libc:localtime",
    "libc:UTC",
    "file:/etc/localtime",
    "/etc/localtime",
    "../UTC",
    "posix/localtime",
]


@pytest.mark.parametrize("zone", ZONES)
def test_a_time_zone_that_each_machine_has_of_its_own_is_refused(zone: str) -> None:
    time = "timestamp('2030-01-31T12:34:56Z').getHours"
    with pytest.raises(ExpressionError, match="reads a time zone that is none"):
        compile_value(f"{time}('{zone}')", NAMES)
    computed = compile_value(f"{time}(input)", NAMES)
    with pytest.raises(ExpressionError, match="reads a time zone that is none"):
        computed.evaluate({"input": zone})
    assert computed.evaluate({"input": "America/Argentina/Buenos_Aires"}) == 9
    assert computed.evaluate({"input": "Etc/GMT+3"}) == 9
