"""Forms of tasks: what is judged and compiled in one go is bounded."""

from __future__ import annotations

from typing import Any

import pytest

from service.engine.people.asking import check


@pytest.mark.parametrize(
    ("properties", "complaint"),
    [
        ({f"p{n}": {"type": "string"} for n in range(1_000)}, "is too large: it may have 16,384 bytes as JSON"),
        ({f"p{n}": {"pattern": "^[\\p{L}1]{9}$"} for n in range(2)}, "is too costly to compile; repeat less in it"),
        ({f"p{n}": {"pattern": "^[a-z]{9}$"} for n in range(20)}, ""),
    ],
)
def test_a_form_is_bounded(properties: dict[str, Any], complaint: str) -> None:
    for _ in range(2):  # also where it is compiled already
        problems = list(check({"title": "x", "form": {"type": "object", "properties": properties}}))
        assert [(each.path, each.message) for each in problems] == ([(("form",), complaint)] if complaint else [])
