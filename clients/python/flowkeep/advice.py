"""What a server advises about definitions that it takes, beside what it answers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from flowkeep.definition import short_name
from flowkeep.errors import Violation
from flowkeep.v1.workflow_service_pb2 import ApplyWorkflowsResponse, ValidateWorkflowResponse

_LOG = logging.getLogger("flowkeep")


class DefinitionWarning(NamedTuple):
    """One thing in a sound definition that should be otherwise: the path of the field, and what would be right.

    `code` is a name of `ValidateWorkflowResponse.Warning.Code` without its prefix, such as PLAIN_SECRET.
    """

    field: str
    code: str
    description: str

    def __str__(self) -> str:
        return f"{self.field}: {self.description}"


class Checked(list[Violation]):
    """All that is wrong with a definition; if nothing is, `warnings` has what should be otherwise in it."""

    def __init__(self, violations: Iterable[Violation] = (), warnings: Iterable[DefinitionWarning] = ()) -> None:
        super().__init__(violations)
        self.warnings = list(warnings)


class Applied(list[ApplyWorkflowsResponse.Result]):
    """What became of definitions, in their order; `warnings` has what should be otherwise in them."""

    def __init__(
        self, results: Iterable[ApplyWorkflowsResponse.Result] = (), warnings: Iterable[DefinitionWarning] = ()
    ) -> None:
        super().__init__(results)
        self.warnings = list(warnings)


class _Warned(Protocol):
    @property
    def warnings(self) -> Sequence[ValidateWorkflowResponse.Warning]: ...


def warnings_of(response: _Warned) -> list[DefinitionWarning]:
    """Return the warnings of a response."""
    codes = ValidateWorkflowResponse.Warning.Code.DESCRIPTOR
    return [DefinitionWarning(each.field, short_name(codes, each.code), each.description) for each in response.warnings]


def log_warnings(workflow: str, response: _Warned) -> None:
    """Log the warnings of a response whose workflow has no room for them, by the logger `flowkeep`."""
    for each in warnings_of(response):
        _LOG.warning("workflow %s: %s", workflow, each)
