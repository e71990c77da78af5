"""Batches of requests: each is read and judged as a call of its own would be, and has an outcome of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import structlog

from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1.error_pb2 import ErrorReason
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_FULL
from flowkeep.v1.execution_pb2 import Execution as ExecutionMessage
from persistence.transition import Created
from service.api.encoded import Encoded, tag
from service.api.errors import brief_status, invalid, status, told
from service.api.executions import executed, execution_message
from service.api.large import Batch, reader, whole
from service.api.paging import LARGEST_PAGE_BYTES
from service.api.requests import Judge, check_read
from service.engine.requests import StartRequest
from service.engine.slices import Slicing
from service.engine.violations import ValidationError, below
from service.wire import varint

log = structlog.get_logger(__name__)

METHOD = "/flowkeep.v1.ExecutionService/BatchExecute"

_READING, _ANSWERING = 20, 10
"""Microseconds that a request takes to be read and judged, and to be answered."""

_BYTES_A_MICROSECOND = 20

_BRIEF = ("execution_id", "workflow_id", "workflow_name", "revision", "state", "create_time", "request_id", "last_seq")
_RESULTS = tag(pb.BatchExecuteResponse, "results")
_Result = pb.BatchExecuteResponse.Result
_RESPONSE = tag(_Result, "response")
_read = reader(pb.ExecuteRequest.FromString)


async def start_requests(
    batch: Batch, start: Callable[[pb.ExecuteRequest], StartRequest]
) -> Sequence[StartRequest | Exception]:
    """Return what each request asks for, or why it is refused."""
    found: list[StartRequest | Exception] = []
    judge, slicing = Judge(), Slicing()
    for raw in batch.items:
        try:
            found.append(start(await _judged(raw, judge)))
        except Exception as error:
            found.append(error)
        await slicing.spend(_READING + len(raw) // _BYTES_A_MICROSECOND)
    return found


async def _judged(raw: bytes, judge: Judge) -> pb.ExecuteRequest:
    request = await whole(_read(raw))
    check_read(request)
    if found := await judge.violations(request):
        raise ValidationError(found)
    if request.view == EXECUTION_VIEW_FULL:
        raise invalid("view", "must be BASIC in a batch: read with GetExecution what else you need")
    if request.wait:
        raise invalid(
            "wait", "must not be set in a batch, whose answer waits for no execution: watch it, or Execute it"
        )
    if request.breakpoints:
        raise invalid("breakpoints", "must not be set in a batch: Execute what is to be debugged")
    if request.HasField("dry_run"):
        raise invalid("dry_run", "must not be set in a batch: Execute what is to be tried")
    judged: pb.ExecuteRequest = request
    return judged


async def response(ended: Sequence[Created | Exception]) -> bytes:
    """Return the serialized response with what became of each request."""
    answer, slicing = Encoded(), Slicing()
    refused = Counter[str]()
    for index, outcome in enumerate(ended):
        is_brief = answer.size > LARGEST_PAGE_BYTES
        if isinstance(outcome, Created):
            result = _started(outcome, is_brief=is_brief)
        else:
            result, reason = _refused(outcome, index, is_brief=is_brief)
            refused[reason] += 1
            await slicing.spend(len(result))  # each text of it is measured and cut, byte by byte
        answer.add_field(_RESULTS, result)
        await slicing.spend(_ANSWERING)
    if refused:
        log.info("requests of a batch refused", of=len(ended), **refused)
    return answer.serialized()


def _started(created: Created, *, is_brief: bool) -> bytes:
    execution = execution_message(created.execution)
    if is_brief:
        execution = ExecutionMessage(**{name: getattr(execution, name) for name in _BRIEF})
    response = executed(execution, created)
    return _RESPONSE + varint(len(response)) + response


def _refused(error: Exception, index: int, *, is_brief: bool) -> tuple[bytes, str]:
    if isinstance(error, ValidationError):
        place = f"requests[{index}]"
        error = ValidationError([each.under(below(place, each.field)) for each in error.violations])
    refusal = told(error, METHOD)
    reason = ErrorReason.Name(refusal.reason).removeprefix("ERROR_REASON_")
    result = _Result(error=brief_status(refusal) if is_brief else status(refusal))
    return result.SerializeToString(), reason
