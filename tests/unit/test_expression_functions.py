"""The table of functions is whole and true, and the command shows it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from service.cli import functions as functions_command
from service.cli.main import build
from service.engine.expressions import ExpressionError, compile_value
from service.engine.expressions.functions import Function, functions

OPERATORS = {"+", "-", "*", "/", "%", "==", "!=", "<", "&&", "||", "!", "? :", "in", "[ ]"}
FORMS = (
    "{}(x)", "{}(x.a)", "{}(x, x)", "{}(x, x, x)", "x.{}()", "x.{}(x)", "x.{}(x, x)", "x.{}(x, x, x)",
    "{}(v, x, x)", "x.{}(i, true)", "x.{}(i, v, true)", "x.{}(i, v, true, v)",
)  # fmt: skip
NAMESPACES = ("base64", "cel", "lists", "math", "optional", "regex", "sets", "strings")
# Of other extensions of CEL, and of other languages.
ELSEWHERE = {
    "abs", "cel.block", "cel.index", "distinct", "first", "flatten", "ip", "json", "keys", "last", "len", "lists.range",
    "lower", "max", "min", "now", "optMap", "optional.none", "optional.of", "orValue", "regex.extract", "regex.replace",
    "round", "sets.contains", "sets.equivalent", "sets.intersects", "slice", "sort", "sortBy", "str", "strip", "sum",
}  # fmt: skip


def is_offered(name: str) -> bool:
    """Return whether some form of a call compiles."""
    return any(_compiles(form.format(name)) for form in FORMS if "." not in name or form.startswith("{"))


def _compiles(source: str) -> bool:
    try:
        compile_value(source, frozenset({"x"}))
    except ExpressionError:
        return False
    return True


@pytest.mark.parametrize("entry", functions(), ids=lambda entry: entry.name)
def test_every_example_gives_its_result(entry: Function) -> None:
    result = compile_value(entry.example, frozenset()).evaluate({})
    assert json.dumps(result) == json.dumps(entry.result)
    assert entry.name in OPERATORS or f"{entry.name}(" in entry.example
    assert entry.name in OPERATORS or f"{entry.name}(" in entry.form


def test_every_function_that_is_offered_is_in_the_table() -> None:
    """The words of CEL's conformance tests are all that a function of its core and its extensions may be called."""
    sources = Path(__file__).with_name("cel_conformance.json").read_text("utf-8")
    words = {word for word in re.findall(r"[\w.]+(?=\()", sources) if word.partition(".")[0] in NAMESPACES}
    words |= set(re.findall(r"[a-z]\w*(?=\()", sources))
    in_table = {entry.name for entry in functions()}
    assert {name for name in words | ELSEWHERE | in_table - OPERATORS if is_offered(name)} == in_table - OPERATORS
    assert in_table > OPERATORS


def test_the_command_prints_the_table_as_json() -> None:
    answer = CliRunner().invoke(build(), ["functions", "--output", "json"])
    assert answer.exit_code == 0
    assert json.loads(answer.stdout) == {"functions": [entry._asdict() for entry in functions()]}


def test_the_command_finds_functions_by_a_part_of_their_names() -> None:
    text = CliRunner().invoke(build(), ["functions", "INDEX"]).stdout
    assert "s.indexOf(t)" in text
    assert "'hello'.lastIndexOf('l')  gives 3" in text
    assert "substring" not in text
    assert 'No function has "nope" in its name.' in CliRunner().invoke(build(), ["functions", "nope"]).stdout


@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_table_fits(width: int) -> None:
    console = Console(width=width, force_terminal=True, no_color=True, file=None)
    with console.capture() as capture:
        for table in functions_command.tables(functions()):
            console.print(table)
    text = re.sub(r"\x1b\[[0-9;]*m", "", capture.get())
    assert max(map(len, text.splitlines())) <= width
    shown = re.sub(r"\s", "", text)
    assert [entry.example for entry in functions() if re.sub(r"\s", "", entry.example) not in shown] == []
    assert all(entry.form in capture.get() for entry in functions())
