"""`map` and `filter` over long lists build what they give in pieces, and give the same as they do in one."""

from __future__ import annotations

from typing import Any

import pytest

from service.engine.expressions import ExpressionError, cost, tree
from service.engine.expressions.library import program, syntax
from service.engine.expressions.numbers import as_doubles

NAMES = frozenset({"input"})
INPUT: dict[str, Any] = {
    **{f"l{count}": list(range(count)) for count in (0, 1, 31, 32, 33, 64, 100, 1_000)},
    "map": {f"k{n:03}": n for n in range(150)},
    "rows": [{"name": f"n{n}", "tags": ["a"] * (n % 3)} for n in range(150)],
    "text": "abc",
}


@pytest.mark.parametrize(
    "source",
    [
        *(f"input.l{count}.map(x, x * 2)" for count in (0, 1, 31, 32, 33, 64, 1_000)),
        "input.l100.filter(x, x % 3 == 0)",
        "input.l100.map(x, x % 2 == 0, {'x': x})",
        "input.l100.filter(x, x > 10).map(x, x + 1)",
        "input.l100.map(x, input.l33.filter(y, y > 95 - x)).size()",
        "input.rows.map(x, x.tags.map(t, t + x.name))",
        "input.map.map(k, input.map[k])",
        "input.map.filter(k, input.map[k] > 70)",
        "input.map.transformList(k, v, [k, v])",
        "input.l100.transformList(i, x, i + x)",
        "input.l100.transformList(i, x, x > 50, i + x)",
        "input.l100.map(x, x).transformList(i, x, i + x)",
        "cel.bind(over, input.l33, over.map(at, over.map(all, all + at).size()))",
        "input.l100.map(x, cel.bind(y, x * 2, y + 1)).exists(z, z == 7)",
        "[1, 2].map(x, x).map(x, [x])",
        "input.text.map(x, x)",
        "input.l33.map(x, x / 0 > 1 ? input.text[0] : x)",
        "input.l100.map(x, x == 40 ? [1][int(x)] : 1)",
        "input.l100.map(x, x.y)",
    ],
)
def test_a_list_that_is_built_in_pieces_is_the_same(source: str) -> None:
    found = []
    compiled = program(source, syntax(source), NAMES)
    assert compiled.can_build_in_pieces()
    for in_pieces in (False, True):
        try:
            found.append(compiled.run({"input": as_doubles(INPUT)}, in_pieces=in_pieces))
        except ExpressionError as error:
            found.append(str(error))
    assert found[0] == found[1]


def test_lists_of_lists_as_deep_as_they_may_be_are_built_in_pieces() -> None:
    source = "input.l33" + ".map(x, [x])" * 29 + ".size()"
    compiled = program(source, syntax(source), NAMES)
    assert compiled.can_build_in_pieces()
    assert compiled.run({"input": as_doubles(INPUT)}, in_pieces=True) == 33


@pytest.mark.parametrize(("count", "in_pieces"), [(10, False), (1_000, True)])
def test_only_long_lists_are_built_in_pieces(count: int, in_pieces: bool) -> None:
    root = tree.read(syntax("input.map(x, x)"))
    values = list(range(count))
    assert cost.Allowance().spend(root, {"input": values}, [values], lambda: True) is in_pieces


def test_rounds_of_pieces_leave_as_many_rounds_as_there_may_be() -> None:
    root = tree.read(syntax("input.a.all(y, input.b.map(x, x).size() > 0)"))
    variables = {"input": {"a": list(range(98)), "b": list(range(100))}}
    assert cost.Allowance().spend(root, variables, [], lambda: True) is False
