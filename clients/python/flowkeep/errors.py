"""What can go wrong when working with Flowkeep.

Exception
├── FlowkeepError               an RPC was refused, or could not be done
│   ├── InvalidArgumentError    a field breaks a rule; `violations` says which
│   ├── UnauthenticatedError    there is no token, or it is not valid
│   ├── PermissionDeniedError   the identity lacks a permission
│   ├── NotFoundError           no such workflow, revision or execution
│   ├── AlreadyExistsError      the name is taken, or the request id was used with other content
│   ├── FailedPreconditionError the thing is not in the state that the call needs
│   ├── OutOfRangeError         a resume position or page token that no longer, or not yet, stands for anything
│   ├── ResourceExhaustedError  there is too much work; `retry_after` says when to come back
│   └── UnavailableError        server or database cannot be reached; what the call did is unknown
├── ExecutionFailedError        an execution did not complete: data about the work, not the error of an RPC
└── ValueError
    ├── PayloadError            a value that payloads cannot carry
    └── DefinitionError         a document that is no workflow definition
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from flowkeep.v1.execution_pb2 import Execution, Failure


class Violation(NamedTuple):
    """One thing that is wrong: the path of the field, and what would be right."""

    field: str
    description: str

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" if self.field else self.description


class FlowkeepError(Exception):
    """An RPC was refused, or could not be done.

    `reason` is a name of `flowkeep.v1.ErrorReason` without its prefix, and empty when the error is not from the
    service itself (a broken connection, say). `metadata` repeats every variable part of the message. `retry_after`
    is the pause in seconds that the server asks for.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        violations: Sequence[Violation] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.violations = list(violations)
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after

    def moved(self, place: str, to: str) -> Self:
        """Return the same error of a request that stands elsewhere in its batch."""
        violations = [Violation(each.field.replace(place, to, 1), each.description) for each in self.violations]
        message = self.message.replace(place, to, 1)
        return type(self)(self.code, self.reason, message, violations, self.metadata, self.retry_after)

    def __str__(self) -> str:
        label = f"{self.code.name} ({self.reason})" if self.reason else self.code.name
        lines = [f"{label}: {self.message}", *(f"  {violation}" for violation in self.violations)]
        return "\n".join(lines)


class InvalidArgumentError(FlowkeepError):
    """Fields of the request break a rule; `violations` says which and what would be right."""


class UnauthenticatedError(FlowkeepError):
    """There is no token, or it is not valid."""


class PermissionDeniedError(FlowkeepError):
    """The identity lacks the permission named in `metadata["permission"]`."""


class NotFoundError(FlowkeepError):
    """There is no such workflow, revision or execution, or it belongs to somebody else."""


class AlreadyExistsError(FlowkeepError):
    """The name is taken, or the request id was used with other content."""


class FailedPreconditionError(FlowkeepError):
    """The thing is not in the state that the call needs: it has ended, changed or is in use."""


class OutOfRangeError(FlowkeepError):
    """The resume position lies beyond the newest event or is no longer kept, or the page token is too old."""


class ResourceExhaustedError(FlowkeepError):
    """The server has more work than it may hold. Nothing was done; `retry_after` says when to come back."""


class UnavailableError(FlowkeepError):
    """Server or database cannot be reached. What the call did is unknown, unless it only reads."""


class ExecutionFailedError(Exception):
    """An execution ended without completing.

    `state` is FAILED, CANCELLED or TIMED_OUT as a value of `Execution.State`; `failure` says why. The text names the
    cause: where a step failed, the code of that step's failure.
    """

    def __init__(self, execution_id: str, state: Execution.State.ValueType, failure: Failure) -> None:
        name = Execution.State.Name(state).removeprefix("STATE_")
        where = f" in step {failure.step_path}" if failure.step_path else ""
        code = failure.details.fields["code"].string_value if "code" in failure.details.fields else ""
        code = code if code and failure.code == "STEP_FAILED" else failure.code
        why = f": {code}{where}: {failure.message}" if code else ""
        super().__init__(f"execution {execution_id} {name}{why}")
        self.execution_id = execution_id
        self.state = state
        self.failure = failure


class PayloadError(ValueError):
    """A value that payloads cannot carry. `path` says where it stands, `description` what would be right."""

    def __init__(self, path: str, description: str) -> None:
        super().__init__(str(Violation(path, description)))
        self.path = path
        self.description = description


class DefinitionError(ValueError):
    """A document that is no workflow definition. `violations` holds all that is wrong, with paths."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("\n".join(str(violation) for violation in violations))
        self.violations = list(violations)


_CLASSES: dict[grpc.StatusCode, type[FlowkeepError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRangeError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
}


_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_DETAILS = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)


def from_rpc_error(error: grpc.aio.AioRpcError) -> FlowkeepError:
    """Return our error for one of gRPC, with the details that the server attached, as far as they can be read."""
    # A proxy may drop or garble trailers: an error without its details is still that error.
    try:
        status = rpc_status.from_call(error)
    except (ValueError, DecodeError):
        status = None
    return _error(error.code(), error.details() or "", status)


def from_status(status: status_pb2.Status) -> FlowkeepError:
    """Return our error for one that came as a message, as if a call had ended with it."""
    return _error(_CODES.get(status.code, grpc.StatusCode.UNKNOWN), status.message, status)


def _error(code: grpc.StatusCode, message: str, status: status_pb2.Status | None) -> FlowkeepError:
    reason, metadata, retry_after = "", dict[str, str](), None
    violations: list[Violation] = []
    for detail in _details(status):
        match detail:
            case error_details_pb2.ErrorInfo():
                reason, metadata = detail.reason, dict(detail.metadata)
            case error_details_pb2.BadRequest():
                violations += (Violation(each.field, each.description) for each in detail.field_violations)
            case error_details_pb2.RetryInfo():
                retry_after = detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9
    kind = _CLASSES.get(code, FlowkeepError)
    return kind(code, reason, message, violations, metadata, retry_after)


def _details(status: status_pb2.Status | None) -> list[Any]:
    try:
        packed = status.details if status else ()
        return [kind.FromString(each.value) for each in packed for kind in _DETAILS if each.Is(kind.DESCRIPTOR)]
    except DecodeError:
        return []
