"""Hostile inputs as data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.integration.calls import Answer


@dataclass(frozen=True)
class Case:
    """One hostile input, and what must come out: `right` is what the test of the corpus compares with."""

    name: str
    given: Any
    right: Any


def each(cases: Iterable[Case]) -> pytest.MarkDecorator:
    """Run a test with each `case`, under its name."""
    found = list(cases)
    return pytest.mark.parametrize("case", found, ids=[case.name for case in found])


def outcome(answer: Answer) -> str:
    """Return an answer as a case names it: `OK`, or code and reason as in `INVALID_ARGUMENT INVALID_FIELDS`."""
    return f"{answer.code} {answer.reason}".strip()
