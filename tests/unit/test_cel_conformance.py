"""CEL's own conformance tests hold, but for the differences that are listed with their reasons."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from service.engine.expressions import ExpressionError, compile_value


class Case(NamedTuple):
    """One expression, its value as another expression (None: it has none), and why it differs here, if it does."""

    name: str
    source: str
    value: str | None
    variables: dict[str, Any] = {}  # noqa: RUF012 - never changed
    difference: str = ""


TABLE = json.loads(Path(__file__).with_name("cel_conformance.json").read_text("utf-8"))
CASES = [Case(*row) for row in TABLE["tests"]]
# A test of these cannot be written down with variables that are JSON.
UNTOLD = "variables"


def holds(case: Case) -> bool:
    """Return whether an expression gives what CEL's specification says."""
    same = f"({case.source}\n) == ({case.value})"
    if case.value == "double('NaN')":
        same = f"({case.source}) != ({case.source})"
    try:
        result = compile_value(same if case.value is not None else case.source, frozenset(case.variables)).evaluate(
            case.variables
        )
    except ExpressionError as error:
        # A value that is not JSON is a value.
        return case.value is None and "JSON" not in str(error)
    return case.value is not None and result is True


@pytest.mark.parametrize("section", sorted({case.name.split("/")[0] for case in CASES}))
def test_expressions_do_what_the_specification_says(section: str) -> None:
    cases = [case for case in CASES if case.name.split("/")[0] == section and case.difference != UNTOLD]
    assert [case for case in cases if holds(case) is bool(case.difference)] == []


def test_few_differences_are_listed_each_with_a_reason() -> None:
    assert Counter(case.difference for case in CASES if case.difference) == {
        "messages": 72,
        "NUL": 8,
        "transformMap": 6,
        "types": 5,
        "names": 2,
        "variables": 3,
        "keys": 1,
    }
    assert {case.difference for case in CASES if case.difference} == set(TABLE["reasons"])
