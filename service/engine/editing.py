"""What somebody puts in the place of what a step is called with: how it is judged, and why it may not be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from persistence.errors import PersistenceError
from service.engine.definition import Call
from service.engine.handlers.registry import Registry
from service.engine.violations import ValidationError, Violation, below

NO_HANDLER = "has no handler that could be called with another input"
"""What is wrong with a step whose input cannot be edited at all."""

_MOVED_SECRETS = "is of a step that is called with secrets: to change it takes the permission workflows.write, too"


class UnfitStepError(PersistenceError):
    """The step is none that can be changed so; `wanted` says why. `state` is where it stands."""

    def __init__(self, execution_id: UUID, path: str, state: str, wanted: str) -> None:
        super().__init__(f"step {path} of execution {execution_id} {wanted}")
        self.execution_id = execution_id
        self.path = path
        self.state = state


class StepNotHeldError(UnfitStepError):
    """No breakpoint holds the step, or nothing is known of what it would be called with."""


class StepNotRetriedError(UnfitStepError):
    """The step cannot be edited or skipped, since it does not run again; or its input, since no handler runs it."""


def judge_input(
    registry: Registry, org: str, action: Call, given: Mapping[str, Any], field: str, *, moves_secrets: bool
) -> None:
    """Raise ValidationError for an input that the handler would not take; where that is not here, the attempt does so.

    Of a step that is called with secrets the input is changed only by who may send these anywhere: `moves_secrets`.
    """
    secrets = action.params.secrets
    if secrets and not moves_secrets:
        raise ValidationError([Violation(field, _MOVED_SECRETS)])
    handler = registry.get(action.handler, org)
    if handler is not None and (problems := handler.validate(given, secrets.keys())):
        raise ValidationError([Violation(below(field, path), message) for path, message in problems])
