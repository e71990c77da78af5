"""Errors to status: one table, and the details that go with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from uuid import uuid4

import grpc
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from flowkeep.v1.error_pb2 import ErrorReason
from persistence import errors as store
from service.api import trailers
from service.api.claims import READ_WORKFLOWS, UnauthenticatedError
from service.api.identity import current_identity
from service.api.keys import KeysUnavailableError
from service.engine.creations import RaceLostError
from service.engine.editing import StepNotHeldError, UnfitStepError
from service.engine.forks import ForkNotFittingError, ForkTooLargeError
from service.engine.history import MOST_HISTORY, HistoryTooLargeError
from service.engine.signalling import CorrelationAmbiguousError, CorrelationNotFoundError
from service.engine.steps import StepNotFoundError
from service.engine.trials import StepNotTestedError
from service.engine.violations import ValidationError, Violation
from service.engine.watch import ShuttingDownError
from service.engine.workers.model import HandlerExistsError
from service.engine.workers.pool import StreamReplacedError, WorkerSilentError

log = structlog.get_logger(__name__)

DOMAIN = "flowkeep.v1"

LONGEST_VALUE = 512
"""Bytes of a value of the metadata, and of the field of a violation."""

LONGEST_DESCRIPTION = 1_024
"""Bytes of the description of a violation."""

_BRIEF = 200
_AROUND_VIOLATION = 4
# The type of the detail, and the line that counts the rest.
_BESIDE_VIOLATIONS = 128
_ROOM_FOR_COUNT = 32


@dataclass(frozen=True, slots=True)
class Refusal:
    """How an error is told: status code, reason, message, and what varies in it."""

    code: grpc.StatusCode
    reason: ErrorReason.ValueType
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: Sequence[Violation] = ()
    retry_after: float | None = None


class RefusedError(Exception):
    """A servicer's own refusal."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def invalid(field_path: str, description: str) -> ValidationError:
    """Return the error for one wrong field of a request."""
    return ValidationError([Violation(field_path, description)])


def refusal_of(error: BaseException) -> Refusal | None:
    """Return how the error is told to callers, None when it is a fault of ours."""
    code, reason = grpc.StatusCode, ErrorReason
    text = str(error)
    match error:
        case RefusedError():
            return error.refusal
        case ValidationError():
            if _sees_definitions():
                error = ValidationError(violation.told for violation in error.violations)
            return Refusal(
                code.INVALID_ARGUMENT, reason.ERROR_REASON_INVALID_FIELDS, _summary(error), violations=error.violations
            )
        case UnauthenticatedError():
            return Refusal(code.UNAUTHENTICATED, reason.ERROR_REASON_INVALID_TOKEN, text)
        case KeysUnavailableError():
            return Refusal(code.UNAVAILABLE, reason.ERROR_REASON_IDENTITY_UNAVAILABLE, text, retry_after=5.0)
        case store.WorkflowNotFoundError():
            return Refusal(code.NOT_FOUND, reason.ERROR_REASON_WORKFLOW_NOT_FOUND, text, {"workflow": error.workflow})
        case store.RevisionNotFoundError():
            metadata = {"workflow": error.workflow, "revision": str(error.revision)}
            return Refusal(code.NOT_FOUND, reason.ERROR_REASON_REVISION_NOT_FOUND, text, metadata)
        case store.ExecutionNotFoundError():
            metadata = {"execution_id": str(error.execution_id)}
            return Refusal(code.NOT_FOUND, reason.ERROR_REASON_EXECUTION_NOT_FOUND, text, metadata)
        case CorrelationNotFoundError():
            metadata = {"workflow": error.workflow, "correlation_id": error.correlation_id}
            return Refusal(code.NOT_FOUND, reason.ERROR_REASON_EXECUTION_NOT_FOUND, text, metadata)
        case CorrelationAmbiguousError():
            metadata = {"workflow": error.workflow, "correlation_id": error.correlation_id}
            return Refusal(code.FAILED_PRECONDITION, reason.ERROR_REASON_CORRELATION_AMBIGUOUS, text, metadata)
        case RaceLostError():
            return Refusal(code.ABORTED, reason.ERROR_REASON_CONFLICT, text)
        case store.SignalsFullError():
            metadata = {"execution_id": str(error.execution_id)}
            return Refusal(code.RESOURCE_EXHAUSTED, reason.ERROR_REASON_SIGNALS_FULL, text, metadata)
        case StepNotFoundError():
            metadata = {"execution_id": str(error.execution_id), "path": error.path}
            return Refusal(code.NOT_FOUND, reason.ERROR_REASON_STEP_NOT_FOUND, text, metadata)
        case UnfitStepError():
            metadata = {"execution_id": str(error.execution_id), "path": error.path, "state": error.state}
            is_held = isinstance(error, StepNotHeldError)
            why = reason.ERROR_REASON_STEP_NOT_HELD if is_held else reason.ERROR_REASON_STEP_NOT_RETRIED
            return Refusal(code.FAILED_PRECONDITION, why, text, metadata)
        case ForkNotFittingError():
            metadata = {"execution_id": str(error.execution_id), "checks": str(len(error.checks))}
            return Refusal(code.FAILED_PRECONDITION, reason.ERROR_REASON_FORK_NOT_FITTING, text, metadata)
        case ForkTooLargeError():
            metadata = {"execution_id": str(error.execution_id), "steps": str(error.steps), "bytes": str(error.size)}
            return Refusal(code.FAILED_PRECONDITION, reason.ERROR_REASON_FORK_TOO_LARGE, text, metadata)
        case StepNotTestedError():
            metadata = {"path": error.path, "handler": error.handler}
            return Refusal(code.FAILED_PRECONDITION, reason.ERROR_REASON_STEP_NOT_TESTED, text, metadata)
        case HistoryTooLargeError():
            metadata = {
                "execution_id": str(error.execution_id),
                "at_seq": str(error.at_seq),
                "limit": str(MOST_HISTORY),
            }
            return Refusal(code.FAILED_PRECONDITION, reason.ERROR_REASON_HISTORY_TOO_LARGE, text, metadata)
        case store.NameTakenError():
            return Refusal(code.ALREADY_EXISTS, reason.ERROR_REASON_WORKFLOW_NAME_TAKEN, text, {"name": error.name})
        case store.RequestIdReusedError():
            metadata = {"request_id": error.request_id}
            return Refusal(code.ALREADY_EXISTS, reason.ERROR_REASON_REQUEST_ID_REUSED, text, metadata)
        case store.EtagMismatchError():
            return Refusal(
                code.FAILED_PRECONDITION, reason.ERROR_REASON_ETAG_MISMATCH, text, {"workflow": error.workflow}
            )
        case store.WorkflowInUseError():
            metadata = {"workflow": error.workflow, "running": str(error.running)}
            return Refusal(code.FAILED_PRECONDITION, reason.ERROR_REASON_WORKFLOW_IN_USE, text, metadata)
        case store.ExecutionFinishedError():
            metadata = {"execution_id": str(error.execution_id), "state": error.state}
            return Refusal(code.FAILED_PRECONDITION, reason.ERROR_REASON_EXECUTION_FINISHED, text, metadata)
        case store.ExecutionStateError():
            metadata = {"execution_id": str(error.execution_id), "state": error.state}
            return Refusal(code.FAILED_PRECONDITION, reason.ERROR_REASON_EXECUTION_STATE, text, metadata)
        case store.BulkNotFoundError():
            return Refusal(code.NOT_FOUND, reason.ERROR_REASON_BULK_NOT_FOUND, text, {"bulk_id": str(error.bulk_id)})
        case store.TooManyBulksError():
            metadata = {"limit": str(error.most)}
            return Refusal(code.FAILED_PRECONDITION, reason.ERROR_REASON_TOO_MANY_BULKS, text, metadata)
        case store.TaskNotFoundError():
            return Refusal(code.NOT_FOUND, reason.ERROR_REASON_TASK_NOT_FOUND, text, {"task_id": str(error.task_id)})
        case store.TaskEndedError():
            metadata = {"task_id": str(error.task_id), "state": error.state, "completed_by": error.completed_by}
            return Refusal(code.FAILED_PRECONDITION, reason.ERROR_REASON_TASK_ENDED, text, metadata)
        case store.TaskClaimedError():
            metadata = {"task_id": str(error.task_id), "claimed_by": error.claimed_by}
            return Refusal(code.FAILED_PRECONDITION, reason.ERROR_REASON_TASK_CLAIMED, text, metadata)
        case store.TaskNotAssignedError():
            metadata = {"task_id": str(error.task_id)}
            return Refusal(code.PERMISSION_DENIED, reason.ERROR_REASON_TASK_NOT_ASSIGNED, text, metadata)
        case store.CursorAheadError():
            metadata = {"after_seq": str(error.after_seq), "last_seq": str(error.last_seq)}
            return Refusal(code.OUT_OF_RANGE, reason.ERROR_REASON_CURSOR_AHEAD, text, metadata)
        case store.CursorExpiredError():
            metadata = {"oldest_seq": str(error.oldest_seq)}
            return Refusal(code.OUT_OF_RANGE, reason.ERROR_REASON_CURSOR_EXPIRED, text, metadata)
        case store.UnreadableError():
            metadata = {"workflow": error.workflow, "revision": str(error.revision)}
            if not _sees_definitions():
                text = text.removesuffix(f": {error.why}")  # it repeats what stands in the definition
            return Refusal(code.DATA_LOSS, reason.ERROR_REASON_UNREADABLE_RECORD, text, metadata)
        case store.QueueFullError():
            return Refusal(
                code.RESOURCE_EXHAUSTED,
                reason.ERROR_REASON_QUEUE_FULL,
                "the server has more work than it may hold; try again",
                retry_after=1.0,
            )
        case store.StorageFullError():
            return Refusal(
                code.RESOURCE_EXHAUSTED,
                reason.ERROR_REASON_STORAGE_FULL,
                "the disk of the database is full, and nothing was written; try again when it has space",
                retry_after=2.0,
            )
        case store.DamagedError():
            return Refusal(
                code.DATA_LOSS,
                reason.ERROR_REASON_DATABASE_DAMAGED,
                "the database found its files damaged; its log says where, and what is there comes from a backup alone",
            )
        case store.UnavailableError():
            return Refusal(
                code.UNAVAILABLE,
                reason.ERROR_REASON_DATABASE_UNAVAILABLE,
                f"{error.told}; try again with the same request_id",
                retry_after=1.0,
            )
        case HandlerExistsError():
            return Refusal(code.ALREADY_EXISTS, reason.ERROR_REASON_HANDLER_EXISTS, text, {"handler": error.name})
        case StreamReplacedError():
            return Refusal(code.ABORTED, reason.ERROR_REASON_CONFLICT, "the worker has opened another stream")
        case WorkerSilentError():
            text = f"{text}; connect again, and name the attempts that still run"
            return Refusal(code.UNAVAILABLE, reason.ERROR_REASON_REQUEST_TOO_SLOW, text, retry_after=0.5)
        case ShuttingDownError():
            return Refusal(
                code.UNAVAILABLE, reason.ERROR_REASON_SHUTTING_DOWN, "the server is shutting down", retry_after=0.5
            )
    return None


def _sees_definitions() -> bool:
    caller = current_identity.get(None)
    return caller is not None and caller.may(READ_WORKFLOWS)


def told(error: Exception, method: str) -> Refusal:
    """Return how the error is told to callers; what the table does not know is ours, and only the log shows it."""
    if (refusal := refusal_of(error)) is not None:
        return refusal
    error_id = str(uuid4())
    log.error("call failed", method=method, error_id=error_id, exc_info=error)
    return Refusal(
        grpc.StatusCode.INTERNAL,
        ErrorReason.ERROR_REASON_INTERNAL,
        f"the server made a mistake; its log has it under error_id {error_id}",
        {"error_id": error_id},
    )


def sent(refusal: Refusal) -> grpc.Status:
    """Return the status as it is sent."""
    if refusal.metadata or refusal.violations:
        return rpc_status.to_status(status(refusal))  # type: ignore[no-any-return]
    return _always_sent(refusal.code, refusal.reason, refusal.message, refusal.retry_after)


@lru_cache(maxsize=64)
def _always_sent(
    code: grpc.StatusCode, reason: ErrorReason.ValueType, message: str, retry_after: float | None
) -> grpc.Status:
    """Return a status in which nothing varies: a flood of calls without tokens gets it thousands of times a second."""
    return rpc_status.to_status(status(Refusal(code, reason, message, retry_after=retry_after)))  # type: ignore[no-any-return]


def status(refusal: Refusal) -> status_pb2.Status:
    """Return the rich status, cut so that clients take its trailers: violations beyond that are counted, not listed."""
    number: Any = getattr(code_pb2, refusal.code.name)
    message = trailers.as_message(refusal.message)
    whole = status_pb2.Status(code=number, message=message)
    _pack(
        whole,
        error_details_pb2.ErrorInfo(
            reason=ErrorReason.Name(refusal.reason).removeprefix("ERROR_REASON_"),
            domain=DOMAIN,
            metadata={key: trailers.as_detail(value, LONGEST_VALUE) for key, value in refusal.metadata.items()},
        ),
    )
    if refusal.retry_after is not None:
        pause = Duration()
        pause.FromMilliseconds(int(refusal.retry_after * 1000))
        _pack(whole, error_details_pb2.RetryInfo(retry_delay=pause))
    if refusal.violations:
        _pack(whole, _bad_request(refusal.violations, trailers.details_room(message) - whole.ByteSize()))
    return whole


def brief_status(refusal: Refusal) -> status_pb2.Status:
    """Return a status of at most 400 bytes, for where there is no room for more: its message may be cut."""
    number: Any = getattr(code_pb2, refusal.code.name)
    whole = status_pb2.Status(code=number, message=trailers.as_detail(refusal.message, _BRIEF))
    reason = ErrorReason.Name(refusal.reason).removeprefix("ERROR_REASON_")
    _pack(whole, error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN))
    return whole


def _pack(whole: status_pb2.Status, detail: Any) -> None:
    packed: AnyMessage = whole.details.add()
    packed.Pack(detail)


def _bad_request(violations: Sequence[Violation], room: int) -> Any:
    """Return the first violations, as many as there is room for, and how many more there are."""
    request = error_details_pb2.BadRequest()
    room -= _BESIDE_VIOLATIONS
    for index, violation in enumerate(violations):
        shown = error_details_pb2.BadRequest.FieldViolation(
            field=trailers.as_detail(violation.field, LONGEST_VALUE),
            description=trailers.as_detail(violation.description, LONGEST_DESCRIPTION),
        )
        room -= shown.ByteSize() + _AROUND_VIOLATION
        if room < 0 and index:
            request.field_violations.add(field="", description=f"and {len(violations) - index} more violations")
            break
        request.field_violations.append(shown)
    return request


def _summary(error: ValidationError) -> str:
    first = error.violations[0]
    more = len(error.violations) - 1
    text = f"{first.field}: {first.description}" if first.field else first.description
    return f"{trailers.as_message(text, _ROOM_FOR_COUNT)} (and {more} more)" if more else text
