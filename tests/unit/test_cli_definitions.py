"""What is wrong with a definition in a file is told with the step in which it stands."""

from __future__ import annotations

import pytest

from flowkeep.errors import Violation
from flowkeep.reading import read
from service.cli.definitions import Written
from service.cli.reading import parse_documents

TEXT = """name: w
steps:
  - id: first
    handler: wait
  - id: fan_out
    for_each:
      items: input.xs
      steps:
        - id: fetch
          handler: call_api
"""


@pytest.mark.parametrize(
    ("field", "step", "line"),
    [
        ("name", "", 1),
        ("steps[0].handler", "first", 4),
        ("steps[1].for_each.items", "fan_out", 7),
        ("steps[1].for_each.steps[0].handler", "fan_out.fetch", 10),
    ],
)
def test_a_finding_names_the_innermost_step(field: str, step: str, line: int) -> None:
    (document,) = parse_documents(TEXT)
    written = Written("w.yaml", 1, document, read(document.value))
    (finding,) = written.findings([Violation(field, "is wrong")])
    assert (finding.step, finding.line) == (step, line)
