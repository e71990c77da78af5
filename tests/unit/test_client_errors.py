"""Errors of gRPC as ours: the right class, everything that the server attached, and no trouble with bad trailers."""

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc.aio import AioRpcError, Metadata

import flowkeep
from flowkeep.errors import FlowkeepError, from_rpc_error
from flowkeep.retry import Backoff, may_repeat, may_resume, never_sent, nothing_done
from flowkeep.v1.execution_pb2 import Execution, Failure

Code = grpc.StatusCode


def rpc_error(code, message="no", details=(), trailers=None):
    if details:
        status = status_pb2.Status(code=code.value[0], message=message)
        for detail in details:
            status.details.add().Pack(detail)
        trailers = [("grpc-status-details-bin", status.SerializeToString())]
    return AioRpcError(code, Metadata(), Metadata(*(trailers or ())), message, None)


def test_all_details_are_read():
    error = from_rpc_error(
        rpc_error(
            Code.INVALID_ARGUMENT,
            "2 fields are wrong",
            [
                error_details_pb2.ErrorInfo(reason="INVALID_FIELDS", domain="flowkeep.v1", metadata={"a": "b"}),
                error_details_pb2.BadRequest(
                    field_violations=[
                        error_details_pb2.BadRequest.FieldViolation(field="workflow", description="must not be empty"),
                        error_details_pb2.BadRequest.FieldViolation(field="tags", description="must be unique"),
                    ]
                ),
                error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000)),
                error_details_pb2.Help(),  # a kind we do not know is passed over
            ],
        )
    )

    assert type(error) is flowkeep.InvalidArgumentError
    assert (error.code, error.reason, error.message) == (Code.INVALID_ARGUMENT, "INVALID_FIELDS", "2 fields are wrong")
    assert error.violations == [("workflow", "must not be empty"), ("tags", "must be unique")]
    assert error.metadata == {"a": "b"}
    assert error.retry_after == 1.5
    assert str(error) == (
        "INVALID_ARGUMENT (INVALID_FIELDS): 2 fields are wrong\n  workflow: must not be empty\n  tags: must be unique"
    )


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.NOT_FOUND, flowkeep.NotFoundError),
        (Code.ALREADY_EXISTS, flowkeep.AlreadyExistsError),
        (Code.FAILED_PRECONDITION, flowkeep.FailedPreconditionError),
        (Code.UNAVAILABLE, flowkeep.UnavailableError),
        (Code.PERMISSION_DENIED, flowkeep.PermissionDeniedError),
        (Code.UNAUTHENTICATED, flowkeep.UnauthenticatedError),
        (Code.OUT_OF_RANGE, flowkeep.OutOfRangeError),
        (Code.RESOURCE_EXHAUSTED, flowkeep.ResourceExhaustedError),
        (Code.INTERNAL, FlowkeepError),
    ],
)
def test_the_code_decides_the_class(code, kind):
    assert type(from_rpc_error(rpc_error(code))) is kind


@pytest.mark.parametrize(
    "trailers",
    [
        [],
        [("grpc-status-details-bin", b"\xff\xff\xff")],
        [("grpc-status-details-bin", status_pb2.Status(code=code_pb2.INTERNAL, message="no").SerializeToString())],
        [("grpc-status-details-bin", status_pb2.Status(code=code_pb2.NOT_FOUND, message="x").SerializeToString())],
    ],
    ids=["none", "no message", "other code", "other message"],
)
def test_trailers_that_cannot_be_read_are_passed_over(trailers):
    error = from_rpc_error(rpc_error(Code.NOT_FOUND, "no", trailers=trailers))

    assert type(error) is flowkeep.NotFoundError
    assert (error.reason, error.violations, error.metadata, error.retry_after) == ("", [], {}, None)


def test_a_garbled_detail_is_passed_over():
    status = status_pb2.Status(code=code_pb2.NOT_FOUND, message="no")
    status.details.append(Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff"))
    trailers = [("grpc-status-details-bin", status.SerializeToString())]

    assert type(from_rpc_error(rpc_error(Code.NOT_FOUND, "no", trailers=trailers))) is flowkeep.NotFoundError


def error(code, message="", reason="", retry_after=None):
    return FlowkeepError(code, reason, message, retry_after=retry_after)


@pytest.mark.parametrize(
    ("given", "repeat", "resume"),
    [
        (error(Code.UNAVAILABLE, "Socket closed"), True, True),
        (error(Code.UNAVAILABLE, reason="DATABASE_UNAVAILABLE"), True, True),
        (error(Code.CANCELLED), True, True),
        (error(Code.UNKNOWN, "Stream removed"), True, True),
        (error(Code.INTERNAL, "Received RST_STREAM with error code 2"), True, True),
        (error(Code.INTERNAL, "an internal error: RST_STREAM", reason="INTERNAL"), False, False),
        (error(Code.INTERNAL, "assertion failed"), False, False),
        (error(Code.DEADLINE_EXCEEDED), False, True),
        (error(Code.ABORTED), False, True),
        (error(Code.RESOURCE_EXHAUSTED, reason="QUEUE_FULL", retry_after=1.0), True, True),
        (error(Code.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!"), True, True),
        (error(Code.RESOURCE_EXHAUSTED, "a proxy has had enough"), True, True),
        (error(Code.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 4)"), False, False),
        (error(Code.RESOURCE_EXHAUSTED, "received initial metadata size exceeds hard limit"), False, False),
        (error(Code.RESOURCE_EXHAUSTED, "never", reason="NEVER"), False, False),
        (error(Code.NOT_FOUND), False, False),
        (error(Code.OUT_OF_RANGE), False, False),
        (error(Code.INVALID_ARGUMENT), False, False),
        (error(Code.UNAUTHENTICATED), False, False),
        (error(Code.PERMISSION_DENIED), False, False),
        (error(Code.UNIMPLEMENTED), False, False),
    ],
    ids=str,
)
def test_which_errors_are_worth_another_try(given, repeat, resume):
    assert may_repeat(given) is repeat
    assert may_resume(given) is resume


def test_only_a_refused_connection_surely_sent_nothing():
    assert never_sent(error(Code.UNAVAILABLE, "failed to connect to all addresses; last error: refused"))
    assert never_sent(error(Code.UNAVAILABLE, "DNS resolution failed for nowhere:1"))
    assert not never_sent(error(Code.UNAVAILABLE, "Socket closed"))
    assert not never_sent(error(Code.UNAVAILABLE, "failed to connect to the database", reason="DATABASE_UNAVAILABLE"))


@pytest.mark.parametrize(
    ("given", "again"),
    [
        (error(Code.UNAVAILABLE, "failed to connect to all addresses"), True),
        (error(Code.UNAVAILABLE, reason="DATABASE_UNAVAILABLE", retry_after=1.0), False),
        (error(Code.UNAVAILABLE, "Socket closed"), False),
        (error(Code.RESOURCE_EXHAUSTED, reason="QUEUE_FULL", retry_after=1.0), True),
        (error(Code.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!"), True),
        (error(Code.RESOURCE_EXHAUSTED, "a proxy has had enough"), False),  # who knows of which answer
        (error(Code.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 4)"), False),
    ],
    ids=str,
)
def test_only_what_surely_did_nothing_is_sent_again_in_any_case(given, again):
    assert nothing_done(given) is again


def test_pauses_double_with_jitter_up_to_the_longest():
    backoff = Backoff(first=1.0, longest=4.0)
    pauses = [backoff.next() for _ in range(4)]
    backoff.reset()

    assert all(full / 2 <= pause <= full for full, pause in zip((1, 2, 4, 4), pauses, strict=True))
    assert backoff.next() <= 1.0
    assert 30.0 < backoff.after(error(Code.UNAVAILABLE, retry_after=30.0)) <= 32.0
    assert backoff.after(error(Code.UNAVAILABLE, "Failed to connect to all addresses")) <= 0.5


def test_a_failed_execution_says_what_failed_where():
    failure = Failure(code="STEP_FAILED", message="HTTP 500", step_path="fetch")
    failed = flowkeep.ExecutionFailedError("0193", Execution.STATE_FAILED, failure)

    assert str(failed) == "execution 0193 FAILED: STEP_FAILED in step fetch: HTTP 500"
    assert not isinstance(failed, FlowkeepError)
