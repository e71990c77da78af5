"""The statements of the write path: parameters have names, and the file that shows them is current."""

from __future__ import annotations

from pathlib import Path

from persistence.postgres.commit import statements
from persistence.postgres.commit.statements import Statement, rendered


def test_parameters_are_numbered_as_they_come_and_casts_are_none() -> None:
    statement = Statement("SELECT :b::text[], :a::int FROM t WHERE x = :b AND y = 'z'::text")
    assert statement.text == "SELECT $1::text[], $2::int FROM t WHERE x = $1 AND y = 'z'::text"
    assert statement.arguments({"a": 1, "b": ["x"], "c": None}) == [["x"], 1]


def test_the_file_has_what_is_sent() -> None:
    """Else: make generate."""
    assert Path(statements.__file__).with_suffix(".sql").read_text() == rendered()
