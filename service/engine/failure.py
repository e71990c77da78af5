"""Why a step or an execution failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

MAX_MESSAGE = 2048

HANDLER_ERROR = "HANDLER_ERROR"
INVALID_PARAMS = "INVALID_PARAMS"
INVALID_OUTPUT = "INVALID_OUTPUT"
EXPRESSION_ERROR = "EXPRESSION_ERROR"
STEP_TIMEOUT = "STEP_TIMEOUT"
SECRET_NOT_FOUND = "SECRET_NOT_FOUND"  # noqa: S105 - a code
SECRETS_UNAVAILABLE = "SECRETS_UNAVAILABLE"
NOT_CONFIGURED = "NOT_CONFIGURED"
SERVER_ERROR = "SERVER_ERROR"
STEP_FAILED = "STEP_FAILED"
EXECUTION_TIMEOUT = "EXECUTION_TIMEOUT"
OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
RESULT_DISCARDED = "RESULT_DISCARDED"
INTERRUPTED = "INTERRUPTED"
WORKER_LOST = "WORKER_LOST"
EXECUTION_TOO_LARGE = "EXECUTION_TOO_LARGE"
POISONED = "POISONED"
UNREADABLE_RECORD = "UNREADABLE_RECORD"
CANCELLED = "CANCELLED"
TERMINATED = "TERMINATED"
TASK_OVERDUE = "TASK_OVERDUE"
SIGNAL_TIMEOUT = "SIGNAL_TIMEOUT"
SIGNAL_INVALID = "SIGNAL_INVALID"
NOT_MOCKED = "NOT_MOCKED"
INTERNAL = "INTERNAL"

# Of a stored failure, what only callers with the permission `executions.debug` see.
_FOR_DEBUGGERS = frozenset({"stack_trace"})


@dataclass(frozen=True, slots=True)
class Failure:
    """A code of the protos' `FailureCode` or of a user's handler, and what a person needs to act on it."""

    code: str
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)
    step_path: str = ""
    step_iteration: int = 0
    retryable: bool = False
    stack_trace: str = ""

    def __post_init__(self) -> None:
        if len(self.message) > MAX_MESSAGE:
            object.__setattr__(self, "message", self.message[:MAX_MESSAGE])

    @property
    def bare(self) -> Failure:
        """The same without what may be large: details and stack trace."""
        return replace(self, details={}, stack_trace="")

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that is stored; what is empty is left out."""
        document: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.details:
            document["details"] = dict(self.details)
        if self.step_path:
            document["step_path"] = self.step_path
        if self.step_iteration:
            document["step_iteration"] = self.step_iteration
        if self.retryable:
            document["retryable"] = True
        if self.stack_trace:
            document["stack_trace"] = self.stack_trace
        return document

    @staticmethod
    def told(document: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Return of what `to_json` wrote what is told to everybody, expressions and handlers among them."""
        if document is None or _FOR_DEBUGGERS.isdisjoint(document):
            return document
        return {name: value for name, value in document.items() if name not in _FOR_DEBUGGERS}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Failure:
        """Return the failure that `to_json` wrote. What only a later release knows is left out."""
        return cls(**{name: value for name, value in document.items() if name in cls.__slots__})


def storable(text: object, longest: int) -> str:
    """Return what a handler said, cut, and without the characters that can be neither kept nor sent."""
    return str(text)[:longest].replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
