"""What stands in a module is changed in one place at a time, and never what only says something."""

from __future__ import annotations

import ast

import pytest

from tests.mutation.__main__ import mutants_of
from tests.mutation.mutations import function_at, mutations
from tests.mutation.parts import PARTS


@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("a < b", ["a <= b"]),
        ("a is not (b)", ["a is (b)"]),
        ("a + b", ["(a) - (b)"]),
        ("not a", ["(a)"]),
        ("a and b", ["((a) or (b))", "((a))", "((b))"]),
        ("if a: b", ["if (not (a)): b", "if True: b", "if False: b"]),
        ("x = 7", ["x = 8"]),
        ("x = True", ["x = False"]),
        ("x = 'é' + y", ["x = 'é?' + y", "x = ('é') - (y)"]),
        ("self.x = y", ["pass"]),
        ("f(a, b)", ["f(b, a)", "pass"]),
        ("x = f(a, b=c)", ["x = f(a)"]),
        ("x = min(a, b)", ["x = max(a, b)"]),
        ("x: int = y + z", ["x: int = (y) - (z)"]),
        ("'documentation'", []),
        ("log.info('told', why=1)", []),
        ("def f(a: 'A') -> 'B': ...", []),
        ("x = f'{a + b}'", []),
    ],
)
def test_mutations(source: str, changed: list[str]) -> None:
    assert sorted(each.applied(source) for each in mutations(source)) == sorted(changed)


def test_the_function_of_a_mutant_is_the_innermost_whose_body_runs_it() -> None:
    source = """
A = 1
def f(b=2):
    c = 3
    try:
        def g(): return 4
    except E:
        d = 5
class C:
    e = 6
    async def h(self):
        async with self:
            return [7]
"""
    functions = ["", "", "f", "f.<locals>.g", "f", "", "C.h"]
    assert [function_at(source, source.index(str(number + 1))) for number in range(7)] == functions


@pytest.mark.parametrize("part", PARTS)
def test_each_part_has_mutants_that_are_other_programs(part: str) -> None:
    mutants = mutants_of(PARTS[part])
    assert len(mutants) > 100
    for mutant in mutants[:: len(mutants) // 20]:
        assert ast.dump(ast.parse(mutant.mutated)) != ast.dump(ast.parse(mutant.source))
