"""Events, domain to the bytes that are stored and sent."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from google.protobuf.message import DecodeError, Message

from flowkeep import payload
from flowkeep.v1 import event_pb2 as pb
from flowkeep.v1.execution_pb2 import Execution as ExecutionMessage
from flowkeep.v1.execution_pb2 import StepCounts as StepCountsMessage
from flowkeep.v1.execution_pb2 import Wait as WaitMessage
from persistence.model import LARGE_PAYLOAD, StepCounts, Wait, WaitKind
from persistence.model import Event as StoredEvent
from service.api.encoded import tag
from service.api.failures import failure_message
from service.api.times import timestamp
from service.engine.planning import events
from service.wire import varint

_SEQ, _TRANSITION_SEQ, _TIME, _PROGRESS, _COUNTS = (
    tag(pb.ExecutionEvent, name) for name in ("seq", "transition_seq", "time", "progress_percent", "step_counts")
)
_KINDS = {field.name: tag(pb.ExecutionEvent, field.name) for field in pb.ExecutionEvent.DESCRIPTOR.oneofs[0].fields}

_PAYLOADS = {"input", "output", "vars", "result", "details"}
"""Fields that hold one."""


def encode(event: events.Event) -> StoredEvent:
    """Return the event as it is stored; its body is the serialized message, and stays the same for ever."""
    ((kind, content),) = _content(event.body).items()
    written = content.SerializeToString(deterministic=True)
    body = b"".join((_head(event), _KINDS[kind], varint(len(written)), written))
    payload = _payload(body, content) if len(body) >= LARGE_PAYLOAD else None
    return StoredEvent(event.seq, event.transition_seq, kind, event.time, body, payload)


def _head(event: events.Event) -> bytes:
    """Return the fields before what happened, as protobuf writes them: they are the same few in each of many events."""
    progress = _PROGRESS + varint(event.progress) if event.progress else b""
    numbers = _SEQ + varint(event.seq) + _TRANSITION_SEQ + varint(event.transition_seq)
    return b"".join((numbers, _time(event.time), progress, _counts(event.counts)))


@lru_cache(maxsize=256)
def _time(time: datetime) -> bytes:
    return _field(_TIME, timestamp(time))


@lru_cache(maxsize=1_024)
def _counts(counts: StepCounts) -> bytes:
    return _field(_COUNTS, counts_message(counts))


def _field(tag: bytes, message: Message) -> bytes:
    written = message.SerializeToString(deterministic=True)
    return tag + varint(len(written)) + written


def _payload(body: bytes, content: Any) -> tuple[int, int] | None:
    """Return where in the body its one large payload begins and ends."""
    for field, value in content.ListFields():
        if field.name == "failure":
            return _payload(body, value)
        if field.name in _PAYLOADS and len(written := value.SerializeToString(deterministic=True)) >= LARGE_PAYLOAD:
            begin = body.rfind(written)
            return None if begin < 0 else (begin, begin + len(written))
    return None


def mended(event: StoredEvent) -> StoredEvent:
    """Return an event of the store; for one whose body is no message, one that tells only its number."""
    with suppress(DecodeError):
        if pb.ExecutionEvent.FromString(event.body).seq == event.seq:
            return event
    bare = pb.ExecutionEvent(seq=event.seq, transition_seq=event.transition_seq)
    return replace(event, body=bare.SerializeToString(deterministic=True))


def without_definition(event: StoredEvent) -> StoredEvent:
    """Return an event without what repeats the definition, for callers that may not read that."""
    if event.kind != "step_started":
        return event
    message = pb.ExecutionEvent.FromString(event.body)
    message.step_started.ClearField("input")
    return replace(event, body=message.SerializeToString(deterministic=True), payload=None)


def counts_message(counts: StepCounts) -> StepCountsMessage:
    """Return the message of step counts."""
    return StepCountsMessage(
        total=counts.total,
        completed=counts.completed,
        failed=counts.failed,
        skipped=counts.skipped,
        running=counts.running,
        cancelled=counts.cancelled,
    )


def wait_message(wait: Wait) -> WaitMessage:
    """Return the message of what a step waits for."""
    message = WaitMessage(
        start_time=timestamp(wait.start_time), wake_time=timestamp(wait.wake_time), reason=wait.reason
    )
    match wait.kind:
        case WaitKind.TIMER:
            message.timer.SetInParent()
        case WaitKind.RETRY:
            message.retry.attempt = wait.attempt
        case WaitKind.SLOT:
            message.slot.resource = wait.resource
        case WaitKind.WORKER:
            message.worker.handler = wait.handler
    return message


def _content(body: events.EventBody) -> dict[str, Message]:
    """Return what happened as the one field of the event that holds it."""
    match body:
        case events.Created():
            return {"created": _created(body)}
        case events.Started():
            return {"started": pb.ExecutionStarted(deadline_time=timestamp(body.deadline_time))}
        case events.StepStarted():
            return {"step_started": _started(body)}
        case events.StepProgressed():
            return {"step_progressed": _progressed(body)}
        case events.StepWaiting():
            return {"step_waiting": _waiting(body)}
        case events.StepRetrying():
            return {"step_retrying": _retrying(body)}
        case events.StepCompleted():
            return {"step_completed": _completed(body)}
        case events.StepFailed():
            return {"step_failed": _failed(body)}
        case events.StepSkipped():
            return {"step_skipped": pb.StepSkipped(path=body.path, reason=body.reason, iteration=body.iteration)}
        case events.StepCancelled():
            return {"step_cancelled": _cancelled(body)}
        case events.VariablesAssigned():
            return {"variables_assigned": _assigned(body)}
        case events.Cancelling():
            return {"cancelling": pb.ExecutionCancelling(cancelled_by=body.cancelled_by, reason=body.reason)}
        case events.Finished():
            return {"finished": _finished(body)}
        case events.Reopened():
            reopened = pb.ExecutionReopened(run=body.run, reopened_by=body.reopened_by, reason=body.reason)
            return {"reopened": reopened}


def _created(body: events.Created) -> pb.ExecutionCreated:
    return pb.ExecutionCreated(
        workflow_id=body.workflow_id,
        workflow_name=body.workflow_name,
        revision=body.revision,
        owner=body.owner,
        scheduled_time=timestamp(body.scheduled_time),
    )


def _started(body: events.StepStarted) -> pb.StepStarted:
    return pb.StepStarted(
        path=body.path,
        handler=body.handler,
        attempt=body.attempt,
        worker=body.worker,
        input=payload.to_struct(body.input),
        iteration=body.iteration,
    )


def _progressed(body: events.StepProgressed) -> pb.StepProgressed:
    return pb.StepProgressed(
        path=body.path,
        attempt=body.attempt,
        progress_percent=body.progress_percent,
        message=body.message,
        iteration=body.iteration,
    )


def _waiting(body: events.StepWaiting) -> pb.StepWaiting:
    output = payload.to_value(body.output) if body.wait.kind is WaitKind.TIMER else None
    return pb.StepWaiting(path=body.path, wait=wait_message(body.wait), iteration=body.iteration, output=output)


def _retrying(body: events.StepRetrying) -> pb.StepRetrying:
    return pb.StepRetrying(
        path=body.path,
        attempt=body.attempt,
        failure=failure_message(body.failure),
        retry_time=timestamp(body.retry_time),
        iteration=body.iteration,
        failures=body.failures,
    )


def _completed(body: events.StepCompleted) -> pb.StepCompleted:
    output = payload.to_value(body.output)
    return pb.StepCompleted(path=body.path, attempt=body.attempt, output=output, iteration=body.iteration)


def _failed(body: events.StepFailed) -> pb.StepFailed:
    return pb.StepFailed(
        path=body.path,
        attempt=body.attempt,
        failure=failure_message(body.failure),
        iteration=body.iteration,
        failures=body.failures,
        attempt_failed=body.is_of_attempt,
    )


def _cancelled(body: events.StepCancelled) -> pb.StepCancelled:
    failure = None if body.failure is None else failure_message(body.failure)
    return pb.StepCancelled(path=body.path, attempt=body.attempt, failure=failure, iteration=body.iteration)


def _assigned(body: events.VariablesAssigned) -> pb.VariablesAssigned:
    return pb.VariablesAssigned(path=body.path, vars=payload.to_struct(body.vars), iteration=body.iteration)


def _finished(body: events.Finished) -> pb.ExecutionFinished:
    state = ExecutionMessage.State.Value(f"STATE_{body.state.value}")
    if body.failure is not None:
        return pb.ExecutionFinished(state=state, failure=failure_message(body.failure))
    return pb.ExecutionFinished(state=state, result=payload.to_value(body.result))
