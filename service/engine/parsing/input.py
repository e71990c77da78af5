"""The schema of a workflow's input, and the check of an input against it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from service.engine.definition import Definition
from service.engine.parsing.fields import Fields
from service.engine.schema import locate
from service.engine.schema_kept import compiling, judging
from service.engine.slices import Work, in_one_go
from service.engine.violations import ValidationError, Violation


def read_input_schema(fields: Fields) -> Work[Mapping[str, Any] | None]:
    """Return the input schema if there is one. It must be cheap to check, and accept objects."""
    if not fields.has("input_schema"):
        return None
    document = fields.object("input_schema")
    if document is None:
        return None
    for problem in (yield from judging(document)):
        fields.findings.add_problem(fields.at("input_schema"), problem)
    return document


def check_input(definition: Definition, payload: Mapping[str, Any]) -> None:
    """Raise ValidationError with all that is wrong with an input, by paths such as `input.customer.id`."""
    if definition.input_schema is None:
        return
    schema = in_one_go(compiling(msgspec.json.encode(definition.input_schema)))
    problems = schema.problems(payload)
    if problems:
        raise ValidationError([Violation(locate("input", p.path), p.message) for p in problems])


def input_cost(definition: Definition, payload: Mapping[str, Any], *, is_wrong: bool) -> int:
    """Return about how many microseconds `check_input` took."""
    if definition.input_schema is None:
        return 0
    return in_one_go(compiling(msgspec.json.encode(definition.input_schema))).cost(payload, is_wrong=is_wrong)
