"""Events, domain to the bytes that are stored and sent."""

from __future__ import annotations

from datetime import datetime
from functools import cache, lru_cache
from typing import Any, TypeAlias, overload

from google.protobuf.message import Message

from flowkeep import payload
from flowkeep.v1 import event_pb2 as pb
from flowkeep.v1.execution_pb2 import Execution as ExecutionMessage
from flowkeep.v1.execution_pb2 import Lineage as LineageMessage
from flowkeep.v1.execution_pb2 import StepCounts as StepCountsMessage
from flowkeep.v1.execution_pb2 import Usage as UsageMessage
from flowkeep.v1.execution_pb2 import Wait as WaitMessage
from flowkeep.v1.execution_pb2 import WorkerWait
from persistence.breakpoints import Halt
from persistence.lineage import Lineage
from persistence.model import LARGE_PAYLOAD, ExecutionState, StepCounts, Wait, WaitKind
from persistence.model import Event as StoredEvent
from persistence.signals import Signal
from persistence.usage import Usage
from service.api.breakpoints import put_breakpoints
from service.api.encoded import tag
from service.api.failures import failure_message
from service.api.times import timestamp
from service.api.values import struct_bytes, value_bytes
from service.engine.planning import events
from service.engine.wishes import Wishes
from service.wire import varint

_SEQ, _TRANSITION_SEQ, _TIME, _PROGRESS, _COUNTS = (
    tag(pb.ExecutionEvent, name) for name in ("seq", "transition_seq", "time", "progress_percent", "step_counts")
)
_INHERITED = tag(pb.ExecutionEvent, "inherited") + varint(1)
_KINDS = {field.name: tag(pb.ExecutionEvent, field.name) for field in pb.ExecutionEvent.DESCRIPTOR.oneofs[0].fields}

_INPUT, _STARTED_ITERATION = tag(pb.StepStarted, "input"), tag(pb.StepStarted, "iteration")
_OUTPUT, _COMPLETED_ITERATION = tag(pb.StepCompleted, "output"), tag(pb.StepCompleted, "iteration")
_COMPLETED_USAGE = tag(pb.StepCompleted, "usage")
_RESULT, _SCHEDULED = tag(pb.ExecutionFinished, "result"), tag(pb.ExecutionCreated, "scheduled_time")
_LINEAGE = tag(pb.ExecutionCreated, "lineage")

_STATES = {state: ExecutionMessage.State.Value(f"STATE_{state.value}") for state in ExecutionState}

Content: TypeAlias = tuple[str, bytes, bytes]
"""What happened: the field of the event that holds it, what that holds, and the payload in it, if it is large."""

_PAYLOADS = {"input", "output", "vars", "result", "details", "payload"}
"""Fields that hold one."""


def encode(event: events.Event) -> StoredEvent:
    """Return the event as it is stored; its body is the serialized message, and stays the same for ever."""
    kind, content, held = _content(event.body)
    body = b"".join((_head(event), _KINDS[kind], varint(len(content)), content))
    begin = body.rfind(held) if len(held) >= LARGE_PAYLOAD else -1
    place = None if begin < 0 else (begin, begin + len(held))
    return StoredEvent(event.seq, event.transition_seq, kind, event.time, body, place)


def _head(event: events.Event) -> bytes:
    """Return the fields before what happened, as protobuf writes them: they are the same few in each of many events."""
    progress = _PROGRESS + varint(event.progress) if event.progress else b""
    numbers = _SEQ + varint(event.seq) + _TRANSITION_SEQ + varint(event.transition_seq)
    inherited = _INHERITED if event.inherited else b""
    return b"".join((numbers, _time(event.time), progress, _counts(event.counts), inherited))


@lru_cache(maxsize=256)
def _time(time: datetime) -> bytes:
    return _field(_TIME, timestamp(time))


@lru_cache(maxsize=1_024)
def _counts(counts: StepCounts) -> bytes:
    return _field(_COUNTS, counts_message(counts))


def _field(tag: bytes, message: Message) -> bytes:
    return _sized(tag, message.SerializeToString(deterministic=True))


def _sized(tag: bytes, content: bytes) -> bytes:
    return b"%b%b%b" % (tag, varint(len(content)), content)


def counts_message(counts: StepCounts) -> StepCountsMessage:
    """Return the message of step counts."""
    message = StepCountsMessage()
    put_counts(message, counts)
    return message


def put_counts(target: StepCountsMessage, counts: StepCounts) -> None:
    """Set a message, which thereby is there, to step counts."""
    target.total = counts.total
    target.completed = counts.completed
    target.failed = counts.failed
    target.skipped = counts.skipped
    target.running = counts.running
    target.cancelled = counts.cancelled


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
            _put_worker_wait(message.worker, wait)
        case WaitKind.TASK:
            message.task.task_id, message.task.escalated = wait.task, wait.escalated
        case WaitKind.BREAKPOINT:
            message.breakpoint.SetInParent()
            message.breakpoint.edited = wait.edited
        case WaitKind.SIGNAL:
            message.signal.name, message.signal.every = wait.signals[0], wait.every
            message.signal.names.extend(wait.signals)
    return message


def lineage_message(lineage: Lineage) -> LineageMessage:
    """Return the message of where an execution comes from."""
    return LineageMessage(
        source_execution_id=str(lineage.source),
        source_seq=lineage.seq,
        source_step_path=lineage.step_path,
        source_step_iteration=lineage.step_iteration,
    )


def _put_worker_wait(target: WorkerWait, wait: Wait) -> None:
    """Set a message to the worker that a step waits for."""
    target.handler = wait.handler
    try:
        wishes = Wishes.of(wait.wishes)
    except ValueError:  # written by hand
        return
    target.labels.update(wishes.labels)
    target.versions.extend(wishes.versions)


@overload
def usage_message(usage: Usage) -> UsageMessage: ...
@overload
def usage_message(usage: Usage | None) -> UsageMessage | None: ...
def usage_message(usage: Usage | None) -> UsageMessage | None:
    """Return the message of what was used, None for nothing."""
    if usage is None:
        return None
    return UsageMessage(
        input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cost_micros=usage.cost_micros
    )


def _content(body: events.EventBody) -> Content:
    """Return what happened. Of what most histories consist of, all that is the same in many events is made once."""
    match body:
        case events.StepStarted():
            return _step_started(body)
        case events.StepCompleted():
            return _step_completed(body)
        case events.Created():
            return _created(body)
        case events.Finished():
            return _finished(body)
        case events.Started():
            return _serialized("started", pb.ExecutionStarted(deadline_time=timestamp(body.deadline_time)))
        case events.StepProgressed():
            return _serialized("step_progressed", _progressed(body))
        case events.StepWaiting():
            return _serialized("step_waiting", _waiting(body))
        case events.StepEdited():
            return _serialized("step_edited", _edited(body))
        case events.BreakpointsSet():
            breakpoints_set = pb.BreakpointsSet(set_by=body.set_by)
            put_breakpoints(breakpoints_set.breakpoints, body.points)
            return _serialized("breakpoints_set", breakpoints_set)
        case events.StepRetrying():
            return _serialized("step_retrying", _retrying(body))
        case events.StepFailed():
            return _serialized("step_failed", _failed(body))
        case events.StepSkipped():
            skipped = pb.StepSkipped(path=body.path, reason=body.reason, iteration=body.iteration)
            return _serialized("step_skipped", skipped)
        case events.StepCancelled():
            return _serialized("step_cancelled", _cancelled(body))
        case events.VariablesAssigned():
            return _serialized("variables_assigned", _assigned(body))
        case events.SignalReceived():
            return _serialized("signal_received", _signal(body.signal))
        case events.Cancelling():
            cancelling = pb.ExecutionCancelling(
                cancelled_by=body.cancelled_by, reason=body.reason, terminated=body.terminated, bulk_id=body.bulk_id
            )
            return _serialized("cancelling", cancelling)
        case events.Paused():
            paused = pb.ExecutionPaused(
                paused_by=body.paused_by,
                reason=body.reason,
                hard=body.hard,
                stop_deadline=body.stop_deadline,
                step_path=body.step_path,
                bulk_id=body.bulk_id,
                workflow_pause_id=body.workflow_pause_id,
            )
            return _serialized("paused", paused)
        case events.Resumed():
            by, reason = body.resumed_by, body.reason
            resumed = pb.ExecutionResumed(resumed_by=by, reason=reason, run_to=body.step_path, bulk_id=body.bulk_id)
            resumed.step_over, resumed.workflow_pause_id = body.halt is Halt.NEXT, body.workflow_pause_id
            if body.deadline_time is not None:
                resumed.deadline_time.CopyFrom(timestamp(body.deadline_time))
            return _serialized("resumed", resumed)
        case events.Reopened():
            return _serialized("reopened", _reopened(body))


def _reopened(body: events.Reopened) -> pb.ExecutionReopened:
    by, reason = body.reopened_by, body.reason
    reopened = pb.ExecutionReopened(run=body.run, reopened_by=by, reason=reason, bulk_id=body.bulk_id)
    if body.deadline_time is not None:
        reopened.deadline_time.CopyFrom(timestamp(body.deadline_time))
    if (edit := body.edit) is not None:
        reopened.edit.path, reopened.edit.iteration = edit.path, edit.iteration
        if edit.is_skipped:
            reopened.edit.output.MergeFromString(value_bytes(edit.value))
        else:
            reopened.edit.input.MergeFromString(struct_bytes(edit.value))
        reopened.edit.SetInParent()
    return reopened


def _serialized(kind: str, message: Message) -> Content:
    content = message.SerializeToString(deterministic=True)
    return kind, content, _payload(message) if len(content) >= LARGE_PAYLOAD else b""


def _payload(content: Any) -> bytes:
    """Return the one large payload of what happened; empty when there is none."""
    for field, value in content.ListFields():
        if field.name == "failure":
            return _payload(value)
        if field.name in _PAYLOADS and value.ByteSize() >= LARGE_PAYLOAD:
            written: bytes = value.SerializeToString(deterministic=True)
            return written
    return b""


def _step_started(body: events.StepStarted) -> Content:
    given = struct_bytes(body.input)
    begin = _start_of(body.path, body.handler, body.attempt, body.worker)
    content = begin + _STARTED_ITERATION + varint(body.iteration) + _sized(_INPUT, given)
    if body.mocked:
        content += pb.StepStarted(mocked=True).SerializeToString()
    return "step_started", content, given


@lru_cache(maxsize=1_024)
def _start_of(path: str, handler: str, attempt: int, worker: str) -> bytes:
    started = pb.StepStarted(path=path, handler=handler, attempt=attempt, worker=worker)
    return started.SerializeToString(deterministic=True)


def _step_completed(body: events.StepCompleted) -> Content:
    output = value_bytes(body.output)
    content = _completion_of(body.path, body.attempt) + _sized(_OUTPUT, output)
    content += _COMPLETED_ITERATION + varint(body.iteration)
    if body.usage is not None:
        content += _field(_COMPLETED_USAGE, usage_message(body.usage))
    if body.signals or body.mocked:
        rest = pb.StepCompleted(signal_ids=map(str, body.signals), mocked=body.mocked)
        content += rest.SerializeToString(deterministic=True)
    return "step_completed", content, output


@lru_cache(maxsize=1_024)
def _completion_of(path: str, attempt: int) -> bytes:
    return pb.StepCompleted(path=path, attempt=attempt).SerializeToString(deterministic=True)


def _created(body: events.Created) -> Content:
    content = _creation_of(body.workflow_id, body.workflow_name, body.revision, body.owner)
    if body.scheduled_time is not None:
        content += _field(_SCHEDULED, timestamp(body.scheduled_time))
    if body.lineage is not None:
        content += _field(_LINEAGE, lineage_message(body.lineage))
    if body.dry_run:
        content += pb.ExecutionCreated(dry_run=True).SerializeToString()
    return "created", content, b""


@lru_cache(maxsize=256)
def _creation_of(workflow_id: str, workflow_name: str, revision: int, owner: str) -> bytes:
    created = pb.ExecutionCreated(workflow_id=workflow_id, workflow_name=workflow_name, revision=revision, owner=owner)
    return created.SerializeToString(deterministic=True)


def _finished(body: events.Finished) -> Content:
    if body.failure is not None:
        failure = failure_message(body.failure)
        return _serialized("finished", pb.ExecutionFinished(state=_STATES[body.state], failure=failure))
    result = value_bytes(body.result)
    return "finished", _end_in(body.state) + _sized(_RESULT, result), result


@cache
def _end_in(state: ExecutionState) -> bytes:
    return pb.ExecutionFinished(state=_STATES[state]).SerializeToString(deterministic=True)


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
    wait, usage = wait_message(body.wait), usage_message(body.usage)
    waiting = pb.StepWaiting(path=body.path, wait=wait, iteration=body.iteration, output=output, usage=usage)
    if body.input is not None:
        waiting.input.MergeFromString(struct_bytes(body.input))
        waiting.input.SetInParent()
    return waiting


def _edited(body: events.StepEdited) -> pb.StepEdited:
    edited = pb.StepEdited(path=body.path, edited_by=body.edited_by, iteration=body.iteration)
    edited.input.MergeFromString(struct_bytes(body.input))
    edited.input.SetInParent()
    return edited


def _retrying(body: events.StepRetrying) -> pb.StepRetrying:
    return pb.StepRetrying(
        path=body.path,
        attempt=body.attempt,
        failure=failure_message(body.failure),
        retry_time=timestamp(body.retry_time),
        iteration=body.iteration,
        failures=body.failures,
        usage=usage_message(body.usage),
    )


def _failed(body: events.StepFailed) -> pb.StepFailed:
    return pb.StepFailed(
        path=body.path,
        attempt=body.attempt,
        failure=failure_message(body.failure),
        iteration=body.iteration,
        failures=body.failures,
        attempt_failed=body.is_of_attempt,
        usage=usage_message(body.usage),
        signal_ids=map(str, body.signals),
        mocked=body.mocked,
    )


def _cancelled(body: events.StepCancelled) -> pb.StepCancelled:
    failure = None if body.failure is None else failure_message(body.failure)
    return pb.StepCancelled(
        path=body.path,
        attempt=body.attempt,
        failure=failure,
        iteration=body.iteration,
        usage=usage_message(body.usage),
    )


def _signal(signal: Signal) -> pb.SignalReceived:
    return pb.SignalReceived(
        name=signal.name,
        payload=payload.to_struct(signal.payload),
        signal_id=str(signal.id),
        sender=signal.sender,
        send_time=timestamp(signal.time),
    )


def _assigned(body: events.VariablesAssigned) -> pb.VariablesAssigned:
    return pb.VariablesAssigned(
        path=body.path, vars=payload.to_struct(body.vars), iteration=body.iteration, edited_by=body.edited_by
    )
